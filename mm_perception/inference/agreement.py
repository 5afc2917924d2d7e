"""Do the present modalities agree, and if not, which one do the others contradict?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mm_perception.errors import BundleError
from mm_perception.inference.engine import Engine
from mm_perception.inference.topics import Reader, surprise_nats
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
    A calibrated comparison of what each modality alone says about all of them.

    Each modality alone says how likely each of K topics is; topics are what the modalities
    were found to have in common. If data are independent given the topic,
    p(a | b) / p(a) = K sum_k p(k | a) p(k | b). The surprise of a modality is the negative
    logarithm of that, given all the others, counted from the smallest possible; thresholds are
    quantiles over data that agree.

    :param engine: any engine; of its networks only ``fuse`` is used, once per :meth:`read`.
    :param spec: the model that it runs.
    :param calibration: as :mod:`mm_perception.training.agreement` makes it.
    :raises BundleError: if the calibration is not of this model.
    """

    def __init__(self, engine: Engine, spec: ModelSpec, calibration: Mapping[str, Any]) -> None:
        self.spec, self.names = spec, spec.names
        self._engine = engine
        try:
            self._readers = {
                m.name: Reader.from_plain(
                    calibration['readers'][m.name], feature_count(engine, spec, m.name)
                )
                for m in spec.modalities
            }
            counts = range(2, len(spec.names) + 1)
            self._thresholds = {n: float(calibration['thresholds'][str(n)]) for n in counts}
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(
                f'health.{SECTION} of the bundle does not fit its model ({error!r});'
                ' make it again: mm-perception calibrate-health'
            ) from error

    def read(self, codes: Mapping[str, Array], names: Sequence[str]) -> dict[str, np.ndarray]:
        """
        What each of some modalities alone says about the topics.

        :param codes: ``float32[1, C_m]`` of every modality.
        :param names: the modalities to read, at least one.
        :returns: ``float64[1, K]`` each, see :meth:`evidence`.
        """
        masks = np.array([[name == other for other in self.names] for name in names])
        repeated = {name: np.repeat(code, len(names), axis=0) for name, code in codes.items()}
        means, stds = self._engine.fuse(repeated, masks)
        return {
            name: self.evidence(name, codes[name], means[k : k + 1], stds[k : k + 1])
            for k, name in enumerate(names)
        }

    def judge(self, evidence: Mapping[str, np.ndarray]) -> Judgement:
        """
        Judge one set of modalities.

        :param evidence: of those to compare, as :meth:`read` gives it.
        """
        names = [name for name in self.names if name in evidence]
        if not names:
            return Judgement({})
        verdicts = self.compare(np.stack([evidence[name] for name in names], axis=1))
        worst = int(verdicts.contradicted[0])
        return Judgement(
            surprise={n: float(s) for n, s in zip(names, verdicts.surprise[0])},
            contradicted=names[worst] if worst >= 0 else '',
            disagree=bool(verdicts.disagree[0]),
        )

    def evidence(self, name: str, code: Array, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
        """
        What a modality alone says about the topics, see :meth:`Reader.evidence`.

        :param code: ``float32[B, C_m]``; ``mean``, ``std``: of the joint posterior given it
            alone, ``float32[B, D]``.
        """
        return self._readers[name].evidence(
            features_of(self._engine, self.spec, name, code, mean), std
        )

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
        return surprise_nats(evidence) / self._thresholds[count]


def features_of(
    engine: Engine, spec: ModelSpec, name: str, code: Array, mean: np.ndarray
) -> np.ndarray:
    """
    What topics are read off: the joint posterior's mean, and the modality's own latent.

    :param code: ``float32[B, C_m]``; ``mean``: ``float32[B, D]``.
    """
    own = feature_count(engine, spec, name) - mean.shape[1]
    return np.concatenate([mean, code[:, :own]], axis=1)


def feature_count(engine: Engine, spec: ModelSpec, name: str) -> int:
    """How many :func:`features_of` a modality there are."""
    own = spec.modality(name).latent_dim if engine.own_latents else 0
    return spec.joint_latent_dim + own
