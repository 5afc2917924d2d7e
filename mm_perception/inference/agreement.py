"""Do the present modalities agree, and if not, which one do the others contradict?"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mm_perception.errors import BundleError
from mm_perception.inference.engine import Engine
from mm_perception.modalities.raw import Array
from mm_perception.spec import ModelSpec

SECTION = 'agreement'
"""Where a bundle's ``health`` keeps the calibration."""


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
class Verdicts:
    """
    Judgements of many rows with the same modalities present.

    :param surprise: ``float[B, P]``, see :class:`Judgement`.
    :param contradicted: position among the present ones, -1 for none: ``int[B]``.
    :param disagree: ``bool[B]``.
    """

    surprise: np.ndarray
    contradicted: np.ndarray
    disagree: np.ndarray


class Agreement:
    """
    A calibrated comparison of what each modality alone says in the joint latent space.

    The joint posterior's mean given one modality alone says how likely each of K topics is;
    topics are whatever the modalities were found to have in common. The surprise of a modality
    is the negative log probability of its data given those of the others, relative to that
    of its data alone and counted from the smallest possible; thresholds are quantiles over
    data that agree.

    :param engine: any engine; only ``fuse`` is used.
    :param spec: the model that it runs.
    :param calibration: as :mod:`mm_perception.training.agreement` makes it.
    :raises BundleError: if the calibration is not of this model.
    """

    def __init__(self, engine: Engine, spec: ModelSpec, calibration: Mapping[str, Any]) -> None:
        self.names = spec.names
        self._engine = engine
        try:
            self._prior = np.asarray(calibration['prior'], np.float64)
            self._weights = _stacked(calibration['weights'], spec.names)
            self._biases = _stacked(calibration['biases'], spec.names)
            self._thresholds = {int(k): float(v) for k, v in calibration['thresholds'].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(
                f'health.{SECTION} of the bundle is broken ({error!r}); {_REMEDY}'
            ) from error
        count, topics = len(spec.names), self._prior.shape
        fits = self._weights.shape == (count, spec.joint_latent_dim, *topics)
        fits &= self._biases.shape == (count, *topics) and len(topics) == 1
        if not fits or set(self._thresholds) != set(range(2, count + 1)):
            raise BundleError(f'health.{SECTION} of the bundle is of another model; {_REMEDY}')

    def judge(self, codes: Mapping[str, Array], present: Collection[str]) -> Judgement:
        """
        Judge one set of codes.

        :param codes: ``float32[1, C_m]`` of every modality; absent ones are ignored.
        :param present: the modalities to compare.
        """
        names = [name for name in self.names if name in present]
        verdicts = self.compare(self.evidence(codes, names))
        worst = int(verdicts.contradicted[0])
        return Judgement(
            surprise={n: float(s) for n, s in zip(names, verdicts.surprise[0])},
            contradicted=names[worst] if worst >= 0 else '',
            disagree=bool(verdicts.disagree[0]),
        )

    def evidence(self, codes: Mapping[str, Array], names: Collection[str]) -> np.ndarray:
        """
        What each modality alone says about the topics: log p(topic | modality) / p(topic).

        :param codes: ``float32[B, C_m]`` of every modality.
        :param names: modalities to ask, in the spec's order.
        :returns: ``float64[B, P, K]``.
        """
        chosen = np.array([k for k, name in enumerate(self.names) if name in names], int)
        if not len(chosen):
            return np.zeros((1, 0, len(self._prior)))
        means = alone(self._engine, codes, chosen)
        logits = np.einsum('bpd,pdk->bpk', means, self._weights[chosen]) + self._biases[chosen]
        evidence: np.ndarray = logits - _log_sum(logits)[..., None] - self._prior
        return evidence

    def compare(self, evidence: np.ndarray) -> Verdicts:
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
        return Verdicts(surprise, contradicted, alarm & (contradicted < 0))

    def surprise(self, evidence: np.ndarray) -> np.ndarray:
        """Surprise of each modality given the others, ``float64[B, P]``; 1.0 is the threshold."""
        count = evidence.shape[1]
        if count < 2:
            return np.zeros(evidence.shape[:2])
        return surprise_nats(evidence, self._prior) / self._thresholds[count]


_REMEDY = 'calibrate it again: mm-perception calibrate-health'


def alone(engine: Engine, codes: Mapping[str, Array], chosen: np.ndarray) -> np.ndarray:
    """
    Means of the joint posteriors given one modality alone, in one call of the engine.

    :param codes: ``float32[B, C_m]`` of every modality.
    :param chosen: positions of the modalities, ``int[P]``.
    :returns: ``float32[B, P, D]``.
    """
    rows, count = len(next(iter(codes.values()))), len(chosen)
    present = np.eye(len(codes), dtype=bool)[np.tile(chosen, rows)]
    repeated = {name: np.repeat(code, count, axis=0) for name, code in codes.items()}
    return engine.fuse(repeated, present)[0].reshape(rows, count, -1)


def surprise_nats(evidence: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """
    Log ratio of how well the others agree without a modality to how well all agree, from 0 on.

    :param evidence: log p(topic | modality) / p(topic), ``float64[B, P, K]``, P at least 2.
    :param prior: log p(topic), ``float64[K]``.
    :returns: ``float64[B, P]``, in nats.
    """
    total = evidence.sum(axis=1, keepdims=True) + prior
    ratio: np.ndarray = _log_sum(total - evidence) - _log_sum(total) - prior.min()
    return ratio


def _log_sum(values: np.ndarray) -> np.ndarray:
    largest = values.max(axis=-1)
    result: np.ndarray = largest + np.log(np.exp(values - largest[..., None]).sum(axis=-1))
    return result


def _stacked(parts: Mapping[str, Any], names: tuple[str, ...]) -> np.ndarray:
    return np.stack([np.asarray(parts[name], np.float64) for name in names])
