"""A linear-Gaussian state-space model of all sensors, filtered while some of them are missing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mm_perception.data.dataset import Dataset
from mm_perception.evaluation.baselines.codes import SharedCodes
from mm_perception.evaluation.baselines.linear import Moments, folds
from mm_perception.evaluation.outages import pairs, previous_rows, tick_s
from mm_perception.modalities.base import Array

ORDER = 2
COMPONENTS = 20
"""Of the code of one modality."""
NOISE = 1e-6
"""Variance of what a working sensor shows, in that of the training rows."""
LARGEST = 0.999
"""Eigenvalue of the transition: a state that grows without bound is no model of a robot."""


@dataclass(frozen=True)
class Dynamics:
    """
    A vector autoregression of order two.

    :param names: the modalities, whose codes lie side by side in this order.
    :param sizes: of the codes.
    :param transition: of the state now and a tick before, ``float64[2 d, 2 d]``.
    :param offset: ``float64[2 d]``.
    :param noise: covariance of what is new in a tick, ``float64[2 d, 2 d]``.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    transition: np.ndarray
    offset: np.ndarray
    noise: np.ndarray

    def place(self, name: str) -> np.ndarray:
        """Positions of a modality's code in the state."""
        k = self.names.index(name)
        return np.arange(self.sizes[k]) + sum(self.sizes[:k])


class Kalman:
    """
    Kalman filter of a vector autoregression, fitted by ridge regression on the training rows.

    Up to the loss all is known. From there on it predicts tick by tick, and corrects by what the
    observed modalities show. Durbin and Koopman 2012, chapter 4 (missing observations).
    """

    name = 'kalman'

    def __init__(self, codes: SharedCodes) -> None:
        self._codes = codes
        self._known: Dataset | None = None
        self._dynamics: dict[tuple[str, ...], Dynamics] = {}
        self._gains: tuple[tuple[str, tuple[str, ...]] | None, list[np.ndarray]] = (None, [])

    def fit(self, dataset: Dataset) -> None:
        """Keep the training rows; the model of some modalities is fitted when asked for."""
        self._codes.fit(dataset)
        self._known, self._dynamics, self._gains = dataset, {}, (None, [])

    def predict(
        self,
        dataset: Dataset,
        target: str,
        observed: tuple[str, ...],
        lost: np.ndarray,
        now: np.ndarray,
    ) -> Array:
        """Filter from the loss on."""
        used = tuple(name for name in dataset.names if name in {target, *observed})
        dynamics, path = self._model(used), _paths_back(dataset, lost, now)
        steps = len(path) - 1
        states = _stack(self._shown(dataset, used, lost), self._before(dataset, used, lost))
        first = states[:, dynamics.place(target)]
        seen = np.concatenate([dynamics.place(name) for name in observed])
        gains = self._gains_of(dynamics, target, observed, seen, steps)
        asked = _steps(dataset, lost, now)
        result = np.zeros_like(first)
        for k in range(steps):
            states = states @ dynamics.transition.T + dynamics.offset
            shown = self._shown(dataset, observed, path[k + 1])
            states += (shown - states[:, seen]) @ gains[k].T
            done = asked == k + 1
            result[done] = states[done][:, dynamics.place(target)] - first[done]
        change = np.zeros((len(now), self._codes[target].size))
        change[:, : result.shape[1]] = result
        shape = dataset.values[target].shape[1:]
        return dataset.rows(target, lost) + self._codes.change(target, change, shape)

    def _shown(self, dataset: Dataset, names: tuple[str, ...], rows: np.ndarray) -> np.ndarray:
        known = self._codes.of(dataset)
        parts = [known[name][rows, :COMPONENTS] for name in names]
        return np.concatenate(parts, 1).astype(np.float64)

    def _before(self, dataset: Dataset, names: tuple[str, ...], rows: np.ndarray) -> np.ndarray:
        """Codes of the rows before; where something was missing there, those of the rows."""
        before = previous_rows(dataset)[rows]
        columns = [dataset.names.index(name) for name in names]
        known = dataset.present[before][:, columns].all(1)
        return self._shown(dataset, names, np.where(known, before, rows))

    def _model(self, names: tuple[str, ...]) -> Dynamics:
        if names not in self._dynamics:
            dataset = self._known
            assert dataset is not None
            lost, now = pairs(dataset, tick_s(dataset), lost=names)
            states = _stack(self._shown(dataset, names, lost), self._before(dataset, names, lost))
            after = self._shown(dataset, names, now)
            sizes = tuple(min(COMPONENTS, self._codes[name].size) for name in names)
            self._dynamics[names] = _fit(names, sizes, states, after, folds(dataset, now))
        return self._dynamics[names]

    def _gains_of(
        self,
        dynamics: Dynamics,
        target: str,
        observed: tuple[str, ...],
        seen: np.ndarray,
        steps: int,
    ) -> list[np.ndarray]:
        """Gain of each tick since the loss, the same for all queries: all was known then."""
        if self._gains[0] != (target, observed) or len(self._gains[1]) < steps:
            self._gains = (target, observed), _riccati(dynamics, seen, steps)
        return self._gains[1]


def _stack(now: np.ndarray, before: np.ndarray) -> np.ndarray:
    return np.concatenate([now, before], 1)


def _steps(dataset: Dataset, lost: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Ticks from the loss on."""
    assert dataset.time_s is not None
    return np.rint((dataset.time_s[now] - dataset.time_s[lost]) / tick_s(dataset)).astype(int)


def _paths_back(dataset: Dataset, lost: np.ndarray, now: np.ndarray) -> list[np.ndarray]:
    """Rows of each tick from the loss to now, the longest query's count; shorter ones stay."""
    previous, count = previous_rows(dataset), _steps(dataset, lost, now)
    path = [now]
    for k in range(int(count.max()), 0, -1):
        path.append(np.where(count >= k, previous[path[-1]], path[-1]))
    return path[::-1]


def _fit(
    names: tuple[str, ...],
    sizes: tuple[int, ...],
    states: np.ndarray,
    after: np.ndarray,
    fold: np.ndarray,
) -> Dynamics:
    size = after.shape[1]
    moments = Moments(np.concatenate([states, after], 1), fold)
    mixing = np.zeros((3 * size, size))
    mixing[2 * size + np.arange(size), np.arange(size)] = 1
    mixing[np.arange(size), np.arange(size)] = -1
    change, offset = moments.solve(np.arange(2 * size), mixing)
    residual = after - states[:, :size] - states @ change - offset
    transition = np.zeros((2 * size, 2 * size))
    transition[:size] = change.T
    transition[:size, :size] += np.eye(size)
    largest = float(np.abs(np.linalg.eigvals(_companion(transition, size, 1.0))).max())
    transition = _companion(transition, size, min(1.0, LARGEST / largest))
    noise = np.zeros_like(transition)
    noise[:size, :size] = residual.T @ residual / max(1, len(residual))
    return Dynamics(names, sizes, transition, np.r_[offset, np.zeros(size)], noise)


def _companion(transition: np.ndarray, size: int, factor: float) -> np.ndarray:
    """Transition of both ticks, its eigenvalues times a factor."""
    result = transition.copy()
    for k in range(ORDER):
        result[:size, k * size : (k + 1) * size] *= factor ** (k + 1)
    result[size:, :size] = np.eye(size)
    return result


def _riccati(dynamics: Dynamics, seen: np.ndarray, steps: int) -> list[np.ndarray]:
    covariance, gains = np.zeros_like(dynamics.noise), []
    for _ in range(steps):
        covariance = dynamics.transition @ covariance @ dynamics.transition.T + dynamics.noise
        innovation = covariance[np.ix_(seen, seen)] + NOISE * np.eye(len(seen))
        gain = np.linalg.solve(innovation, covariance[seen]).T
        covariance = covariance - gain @ covariance[seen]
        covariance = (covariance + covariance.T) / 2
        gains.append(gain)
    return gains
