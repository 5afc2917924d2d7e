"""How likely is the label that a joint latent gives the right one?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mm_perception.bundle import Health
from mm_perception.errors import BundleError
from mm_perception.fusion.consistency import log_std, log_sum
from mm_perception.modalities import build_modality
from mm_perception.modalities.base import Array
from mm_perception.spec import ModelSpec

TABLE, WEIGHTS = 'confidence.table', 'confidence.weights'
"""Names of a confidence's arrays among those of the class heads."""
FEATURES = 5
LEAST = 1e-4


class Confidence:
    """
    A logistic regression: is the label that the joint latent gives right?

    What tells it best is how far the class heads of the present modalities, which were learned
    apart from the latent, say the same label; then how much these contradict each other, the
    std of the latent, and how many they are.

    :param name: the modality whose labels are meant.
    :param table: p(label | shared class), ``float[K, L]``.
    :param weights: of the features, ``float[FEATURES]``.
    """

    def __init__(self, name: str, table: NDArray[np.float64], weights: NDArray[np.float64]):
        self.name = name
        self._table, self._weights = table, weights

    def __call__(
        self,
        labels: Array,
        evidence: NDArray[np.float64],
        surprise: NDArray[np.float64],
        std: Array,
    ) -> NDArray[np.float64]:
        """
        Probability that the likeliest label is right, 0..1: ``float64[B]``.

        :param labels: shares of the labels, generated from the joint latent, ``float32[B, L]``.
        :param evidence: of each modality, all 0 of those that are absent: ``float64[B, M, K]``,
            see :meth:`~mm_perception.fusion.consistency.ConsistencyCheck.evidence`.
        :param surprise: the largest among the present ones, 1.0 being the threshold.
        :param std: of the joint posterior, ``float32[B, D]``.
        """
        logits = features(self._table, labels, evidence, surprise, std) @ self._weights
        chance: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-np.clip(logits, -30.0, 30.0)))
        return chance


def features(
    table: NDArray[np.float64],
    labels: Array,
    evidence: NDArray[np.float64],
    surprise: NDArray[np.float64],
    std: Array,
) -> NDArray[np.float64]:
    """What the regression weighs, see :class:`Confidence`: ``float64[B, FEATURES]``."""
    total = evidence.sum(axis=1)
    shares = np.exp(total - log_sum(total)[:, None]) @ table
    said = np.take_along_axis(shares, labels.argmax(axis=1)[:, None], axis=1)[:, 0]
    said = np.clip(said / shares.sum(axis=1), LEAST, 1.0 - LEAST)
    count = (evidence != 0.0).any(axis=2).sum(axis=1)
    columns = (
        np.log(said / (1.0 - said)),
        np.minimum(surprise, 3.0),
        log_std(std),
        count,
        np.ones(len(std)),
    )
    return np.stack(columns, axis=1).astype(np.float64)


def read_confidence(spec: ModelSpec, health: Health) -> Confidence | None:
    """
    Confidence of a bundle; None where it has none.

    :raises BundleError: if it is not of this model.
    """
    if TABLE not in health.class_heads:
        return None
    table, weights = (
        np.asarray(health.class_heads.get(key, ()), np.float64) for key in (TABLE, WEIGHTS)
    )
    kind = next((m for m in map(build_modality, spec.modalities) if m.classes), None)
    fits = kind is not None and table.ndim == 2 and table.shape[1] == len(kind.classes)
    if kind is None or not fits or weights.shape != (FEATURES,):
        raise BundleError(
            f'confidence of the bundle does not fit its model (shapes {table.shape},'
            f' {weights.shape}); make it again: mm-perception calibrate-health'
        )
    return Confidence(kind.spec.name, table, weights)
