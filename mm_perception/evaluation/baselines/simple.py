"""Baselines that look at the lost sensor alone, and the nearest neighbours."""

from __future__ import annotations

import numpy as np

from mm_perception.data.dataset import Dataset
from mm_perception.evaluation.baselines.codes import SharedCodes
from mm_perception.evaluation.outages import AGES_S, pairs, previous_rows, tick_s
from mm_perception.modalities.base import Array

NEIGHBOURS = 5


def age_of(dataset: Dataset, lost: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Seconds from the last good values, ``float64[Q]``."""
    assert dataset.time_s is not None
    return dataset.time_s[now] - dataset.time_s[lost]


def of_ages(dataset: Dataset, lost: np.ndarray, now: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """Queries by the age of the protocol that is nearest: the age and their positions."""
    ages = np.log(np.maximum(age_of(dataset, lost, now), 1e-3))
    nearest = np.abs(ages[:, None] - np.log(AGES_S)).argmin(1)
    return [(AGES_S[k], np.flatnonzero(nearest == k)) for k in np.unique(nearest)]


def broadcast(values: np.ndarray, like: Array) -> Array:
    """One number per query, to be multiplied with ``[Q, *shape]``."""
    return values.astype(np.float32).reshape(-1, *(1,) * (like.ndim - 1))


def velocity(dataset: Dataset, target: str, lost: np.ndarray) -> Array:
    """
    Change per second up to the loss, ``float32[Q, *shape]``.

    It is zero where the row before is of another recording or lacks the target.
    """
    before = previous_rows(dataset)[lost]
    known = dataset.present[before, dataset.names.index(target)]
    seconds = np.where(known, age_of(dataset, before, lost), 0.0)
    change = dataset.rows(target, lost) - dataset.rows(target, before)
    rate = np.where(seconds > 0, 1 / np.where(seconds > 0, seconds, 1), 0)
    return change * broadcast(rate, change)


class Hold:
    """The last good value."""

    name = 'hold'

    def fit(self, dataset: Dataset) -> None:
        """Learn nothing."""

    def predict(
        self,
        dataset: Dataset,
        target: str,
        observed: tuple[str, ...],
        lost: np.ndarray,
        now: np.ndarray,
    ) -> Array:
        """Give the value at the loss."""
        return dataset.rows(target, lost)


class Mean:
    """The mean of the training rows."""

    name = 'mean'

    def __init__(self) -> None:
        self._means: dict[str, Array] = {}

    def fit(self, dataset: Dataset) -> None:
        """Take the means over the rows in which a modality is present."""
        for column, name in enumerate(dataset.names):
            shown = dataset.index[name][dataset.present[:, column]]
            used, counts = np.unique(shown, return_counts=True)
            values = dataset.unique(name, used)
            self._means[name] = np.tensordot(counts / counts.sum(), values, 1).astype(np.float32)

    def predict(
        self,
        dataset: Dataset,
        target: str,
        observed: tuple[str, ...],
        lost: np.ndarray,
        now: np.ndarray,
    ) -> Array:
        """Give the mean."""
        return np.repeat(self._means[target][None], len(now), axis=0)


class ConstantVelocity:
    """The last good value, moving on as it moved then."""

    name = 'constant_velocity'

    def fit(self, dataset: Dataset) -> None:
        """Learn nothing."""

    def predict(
        self,
        dataset: Dataset,
        target: str,
        observed: tuple[str, ...],
        lost: np.ndarray,
        now: np.ndarray,
    ) -> Array:
        """Move on from the value at the loss."""
        speed = velocity(dataset, target, lost)
        ages = broadcast(age_of(dataset, lost, now), speed)
        return dataset.rows(target, lost) + ages * speed


class DampedVelocity:
    """Like constant velocity, but only so far as the training recordings moved on."""

    name = 'damped_velocity'

    def __init__(self, codes: SharedCodes) -> None:
        self._codes = codes
        self._reach: dict[tuple[str, float], float] = {}

    def fit(self, dataset: Dataset) -> None:
        """Learn, per modality and age, how many seconds of its velocity a sensor moves on."""
        self._codes.fit(dataset)
        codes, tick = self._codes.of(dataset), tick_s(dataset)
        before = previous_rows(dataset)
        for name in dataset.names:
            present = dataset.present[:, dataset.names.index(name)]
            for age in AGES_S:
                lost, now = pairs(dataset, age, lost=(name,))
                keep = present[before[lost]]
                lost, now = lost[keep], now[keep]
                speed = (codes[name][lost] - codes[name][before[lost]]) / tick
                moved = codes[name][now] - codes[name][lost]
                power = float((speed * speed).sum())
                self._reach[name, age] = float((speed * moved).sum()) / power if power else 0.0

    def predict(
        self,
        dataset: Dataset,
        target: str,
        observed: tuple[str, ...],
        lost: np.ndarray,
        now: np.ndarray,
    ) -> Array:
        """Move on from the value at the loss."""
        reach = np.zeros(len(now))
        for age, chosen in of_ages(dataset, lost, now):
            reach[chosen] = self._reach[target, age]
        speed = velocity(dataset, target, lost)
        return dataset.rows(target, lost) + broadcast(reach, speed) * speed


class NearestNeighbours:
    """The mean of the training rows in which the observed sensors showed the most similar."""

    name = 'knn'

    def __init__(self, codes: SharedCodes) -> None:
        self._codes = codes
        self._known: Dataset | None = None

    def fit(self, dataset: Dataset) -> None:
        """Keep the training rows."""
        self._codes.fit(dataset)
        self._known = dataset

    def predict(
        self,
        dataset: Dataset,
        target: str,
        observed: tuple[str, ...],
        lost: np.ndarray,
        now: np.ndarray,
    ) -> Array:
        """Average over the neighbours."""
        assert self._known is not None
        known = self._known
        columns = [known.names.index(name) for name in (*observed, target)]
        rows = np.flatnonzero(known.present[:, columns].all(1))
        old, new = self._codes.of(known), self._codes.of(dataset)
        there = np.concatenate([old[name][rows] for name in observed], 1)
        here = np.concatenate([new[name][now] for name in observed], 1)
        distance = (there * there).sum(1) - 2 * here @ there.T
        count = min(NEIGHBOURS, len(rows))
        nearest = rows[np.argpartition(distance, count - 1, 1)[:, :count]]
        total = known.rows(target, nearest[:, 0])
        for k in range(1, count):
            total += known.rows(target, nearest[:, k])
        return (total / count).astype(np.float32)
