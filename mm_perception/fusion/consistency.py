"""Do the present modalities agree, and if not, which one do the others contradict?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mm_perception.bundle import Health
from mm_perception.engines.engine import Engine
from mm_perception.errors import BundleError
from mm_perception.modalities.base import Array
from mm_perception.spec import ModelSpec


class Doubt:
    """
    Tells whether a modality contradicts the others, or only runs ahead of them or behind.

    Sensors change at different moments. A value that agreed with the others when it was new is
    not blamed for what they say later; one that never did is, after a while, by those that still
    say so then; and what is blamed is believed again as soon as it agrees.
    """

    def __init__(self) -> None:
        self._value: object = None
        self._agreed = False
        self._since_s: float | None = None
        self._blamed = False

    def blames(
        self,
        value: object,
        surprise: float,
        contradicted: bool,
        now_s: float,
        patience_s: float,
        voted_s: float = math.inf,
    ) -> bool:
        """
        Take a comparison with the others; whether the modality is to blame.

        :param value: the data compared; another object for other data.
        :param surprise: up to 1 it agrees with them.
        :param contradicted: whether they agree against it.
        :param patience_s: how long they must.
        :param voted_s: time of the second newest among the data of the others. What just fell
            silent saw another moment: two have to say so after the patience is over.
        """
        if value is not self._value:
            self._value, self._agreed = value, False
        if surprise <= 1.0 and not contradicted:
            self._agreed, self._since_s, self._blamed = True, None, False
        elif contradicted and not self._agreed:
            self._since_s = now_s if self._since_s is None else self._since_s
            over_s = self._since_s + patience_s
            self._blamed = self._blamed or min(now_s, voted_s) >= over_s
        return self._blamed


class Lasting:
    """Tells whether a condition has held for a while."""

    def __init__(self) -> None:
        self._since_s: float | None = None

    def lasts(self, holds: bool, now_s: float, patience_s: float) -> bool:
        """Take how it is now; whether it has held without a break for ``patience_s``."""
        if not holds:
            self._since_s = None
            return False
        self._since_s = now_s if self._since_s is None else self._since_s
        return now_s - self._since_s >= patience_s


SLOPE = 0.01
"""Of the leaky ReLU."""


@dataclass(frozen=True)
class ClassHead:
    """
    Tells the shared class from what one modality alone says: one hidden layer.

    The more the published std exceeds the usual, the less its reading counts: unusual data are
    read wrong with confidence.

    :param hidden: weights ``float32[F, H]`` and biases ``float32[H]``.
    :param output: weights ``float32[H, K]`` and biases ``float32[K]``.
    :param usual: mean log std of usual data; ``spread``: how far above it still is common.
    """

    hidden: tuple[NDArray[Any], NDArray[Any]]
    output: tuple[NDArray[Any], NDArray[Any]]
    usual: float
    spread: float

    def evidence(self, features: NDArray[Any], std: NDArray[Any]) -> NDArray[Any]:
        """
        Log p(class | modality) / p(class), all classes as likely beforehand.

        :param features: of the modality, ``float32[B, F]``.
        :param std: of the joint posterior given it alone, ``float32[B, D]``.
        :returns: ``float64[B, K]``.
        """
        state = features @ self.hidden[0] + self.hidden[1]
        logits = np.maximum(state, SLOPE * state) @ self.output[0] + self.output[1]
        excess = np.maximum(0.0, log_std(std) - self.usual) / self.spread
        logits = logits.astype(np.float64) / (1.0 + excess[:, None])
        evidence: NDArray[Any] = logits - log_sum(logits)[:, None] + np.log(logits.shape[1])
        return evidence

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Weights and biases by name, rounded to half precision."""
        layers = {'hidden': self.hidden, 'output': self.output}
        return {
            f'{layer}.{name}': values.astype(np.float16)
            for layer, pair in layers.items()
            for name, values in zip(('weight', 'bias'), pair)
        }


def read_class_head(health: Health, name: str, features: int) -> ClassHead:
    """
    Class head of a modality.

    :raises KeyError: if there is none.
    :raises ValueError: if it does not take so many features, or is not finite.
    """

    def layer(kind: str, inputs: int) -> tuple[NDArray[Any], NDArray[Any]]:
        weight, bias = (
            np.asarray(health.class_heads[f'{name}.{kind}.{part}'], np.float32)
            for part in ('weight', 'bias')
        )
        if weight.shape != (inputs, bias.size) or bias.ndim != 1:
            raise ValueError(f'{name}.{kind} has shape {weight.shape}, {bias.shape}')
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise ValueError('weights that are not finite')
        return weight, bias

    hidden = layer('hidden', features)
    output = layer('output', len(hidden[1]))
    return ClassHead(hidden, output, health.usual[name], health.spread[name])


def log_std(std: NDArray[Any]) -> NDArray[Any]:
    """Mean log of ``float[B, D]``: how unsure a posterior is, ``float[B]``."""
    mean: NDArray[Any] = np.log(np.maximum(std, 1e-6)).mean(axis=1)
    return mean


def surprise_nats(evidence: NDArray[Any]) -> NDArray[Any]:
    """
    Negative log of p(modality | others) / p(modality), counted from its least value.

    :param evidence: log p(class | modality) / p(class), ``float64[B, P, K]``, P at least 2.
    :returns: ``float64[B, P]``, from 0 on.
    """
    classes = evidence.shape[-1]
    total = evidence.sum(axis=1, keepdims=True)
    surprise: NDArray[Any] = log_sum(total - evidence) - log_sum(total) + np.log(classes)
    return surprise


def log_sum(values: NDArray[Any]) -> NDArray[Any]:
    largest = values.max(axis=-1)
    result: NDArray[Any] = largest + np.log(np.exp(values - largest[..., None]).sum(axis=-1))
    return result


@dataclass(frozen=True)
class Judgement:
    """
    What the present modalities say about each other.

    :param surprise: of each present modality given the others: 1.0 is the threshold, above it
        they disagree; 0 where there is no other.
    :param contradicted: the modality that the others, agreeing, contradict; empty if none.
    :param disagree: whether they disagree, yet no single one is to blame.
    """

    surprise: dict[str, float]
    contradicted: str = ''
    disagree: bool = False


@dataclass(frozen=True)
class Comparison:
    """
    Judgements of many rows with the same modalities present.

    :param surprise: ``float[B, P]``, see :class:`Judgement`.
    :param contradicted: position among the present ones, -1 for none: ``int[B]``.
    :param disagree: ``bool[B]``.
    """

    surprise: NDArray[Any]
    contradicted: NDArray[Any]
    disagree: NDArray[Any]


class ConsistencyCheck:
    """
    A calibrated comparison of what each modality alone says about all of them.

    Each modality alone says how likely each of K shared classes is, which the modalities were
    found to have in common. If data are independent given the class,
    p(a | b) / p(a) = K sum_k p(k | a) p(k | b). The surprise of a modality is the negative
    logarithm of that, given all the others, counted from the smallest possible; thresholds are
    quantiles over data that agree.

    :param engine: any engine; of its networks only ``fuse`` is used, once per :meth:`read`.
    :param spec: the model that it runs.
    :param health: calibration, as :mod:`mm_perception.training.consistency` makes it.
    :raises BundleError: if the calibration is not of this model.
    """

    def __init__(self, engine: Engine, spec: ModelSpec, health: Health) -> None:
        self.spec, self.names = spec, spec.names
        self._engine = engine
        try:
            self._heads = {
                name: read_class_head(health, name, feature_count(engine, spec, name))
                for name in spec.names
            }
            counts = range(2, len(spec.names) + 1)
            self._thresholds = {count: health.thresholds[str(count)] for count in counts}
            if not np.isfinite(list(self._thresholds.values())).all():
                raise ValueError('thresholds that are not finite')
        except (KeyError, ValueError) as error:
            raise BundleError(
                f'health of the bundle does not fit its model ({error!r});'
                ' make it again: mm-perception calibrate-health'
            ) from error

    @property
    def classes(self) -> int:
        """How many shared classes K there are."""
        return len(self._heads[self.names[0]].output[1])

    def read(self, codes: Mapping[str, Array], names: Sequence[str]) -> list[NDArray[Any]]:
        """
        What one modality alone says about the shared classes, in each of some rows.

        :param codes: ``float32[P, C_m]`` of every modality.
        :param names: the modality to read in each row, P of them.
        :returns: ``float64[K]`` each, see :meth:`evidence`.
        """
        read = np.array(names)
        means, stds = self._engine.fuse(codes, read[:, None] == np.array(self.names))
        found: list[NDArray[Any]] = [read] * len(names)
        for name in dict.fromkeys(names):
            rows = np.flatnonzero(read == name)
            evidence = self.evidence(name, codes[name][rows], means[rows], stds[rows])
            for k, each in zip(rows.tolist(), evidence):
                found[k] = each
        return found

    def judge(self, names: Sequence[str], evidence: NDArray[Any]) -> list[Judgement]:
        """
        Judge rows in which the same modalities are present.

        :param names: of the present modalities, at least two.
        :param evidence: ``float64[B, P, K]``, as :meth:`read` gives it.
        """
        found = self.compare(evidence)
        return [
            Judgement(
                surprise=dict(zip(names, surprise.tolist())),
                contradicted=names[worst] if worst >= 0 else '',
                disagree=bool(disagree),
            )
            for surprise, worst, disagree in zip(
                found.surprise, found.contradicted.tolist(), found.disagree
            )
        ]

    def evidence(
        self, name: str, code: Array, mean: NDArray[Any], std: NDArray[Any]
    ) -> NDArray[Any]:
        """
        What a modality alone says about the shared classes, see :meth:`ClassHead.evidence`.

        :param code: ``float32[B, C_m]``; ``mean``, ``std``: of the joint posterior given it
            alone, ``float32[B, D]``.
        """
        return self._heads[name].evidence(
            features_of(self._engine, self.spec, name, code, mean), std
        )

    def compare(self, evidence: NDArray[Any]) -> Comparison:
        """
        Judge many rows at once.

        :param evidence: of the present modalities, ``float64[B, P, K]``.
        """
        surprise = self.surprise(evidence)
        rows, count = surprise.shape
        alarm = surprise.max(axis=1, initial=0.0) > 1.0
        contradicted = np.full(rows, -1)
        if count > 2 and alarm.any():
            worst = surprise[alarm].argmax(axis=1)
            others = np.arange(count) != worst[:, None]
            rest = evidence[alarm][others].reshape(len(worst), count - 1, -1)
            agree = self.surprise(rest).max(axis=1) <= 1.0
            contradicted[alarm] = np.where(agree, worst, -1)
        return Comparison(surprise, contradicted, alarm & (contradicted < 0))

    def surprise(self, evidence: NDArray[Any]) -> NDArray[Any]:
        """Surprise of each modality given the others, ``float64[B, P]``; 1.0 is the threshold."""
        count = evidence.shape[1]
        if count < 2:
            return np.zeros(evidence.shape[:2])
        return surprise_nats(evidence) / self._thresholds[count]

    def largest_surprise(
        self, evidence: NDArray[Any], present: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """
        Largest surprise among the present modalities of each row; 0 where there is but one.

        :param evidence: of every modality, 0 of those that are absent, ``float64[B, M, K]``.
        :param present: ``bool[B, M]``.
        :returns: ``float64[B]``.
        """
        thresholds = np.array([np.inf, np.inf, *self._thresholds.values()])
        nats = np.where(present, surprise_nats(evidence), 0.0).max(axis=1)
        surprise: NDArray[np.float64] = nats / thresholds[present.sum(axis=1)]
        return surprise


def features_of(
    engine: Engine, spec: ModelSpec, name: str, code: Array, mean: NDArray[Any]
) -> NDArray[Any]:
    """
    What class heads take: the joint posterior's mean, the modality's latent, what is shared.

    :param code: ``float32[B, C_m]``; ``mean``: ``float32[B, D]``.
    """
    own = feature_count(engine, spec, name) - mean.shape[1]
    return np.concatenate([mean, code[:, :own]], axis=1)


def feature_count(engine: Engine, spec: ModelSpec, name: str) -> int:
    """How many :func:`features_of` a modality there are."""
    modality = spec.modality(name)
    own = modality.latent_dim + modality.shared_dim if engine.own_latents else 0
    return spec.joint_latent_dim + own
