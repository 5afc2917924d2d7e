"""Ridge regression from the observed sensors: from what they show now, and with memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mm_perception.data.dataset import RECORDING, Dataset
from mm_perception.evaluation.baselines.codes import SharedCodes
from mm_perception.evaluation.baselines.simple import of_ages
from mm_perception.evaluation.outages import pairs
from mm_perception.modalities.base import Array

PENALTIES = 10.0 ** np.arange(-6, 2.5, 0.5)
"""Candidates, in parts of the mean square of the inputs times the rows."""
FOLDS = 5
TINY = 1e-12


def folds(dataset: Dataset, rows: np.ndarray) -> np.ndarray:
    """
    Number of the fold of each row, ``int[K]``: by recording, or blocks of rows of a few.

    :param rows: in the order of time.
    """
    number = dataset.attributes[RECORDING][1][rows]
    known, place = np.unique(number, return_inverse=True)
    if len(known) >= FOLDS:
        return place % FOLDS
    return np.arange(len(rows)) * FOLDS // max(1, len(rows))


class Moments:
    """
    Second moments of many columns, by fold: any regression among them without the rows.

    :param columns: ``float[K, D]``; of no rows nothing is learned, all weights are zero.
    :param fold: of each row, ``int[K]``.
    """

    def __init__(self, columns: np.ndarray, fold: np.ndarray) -> None:
        if not len(columns):
            columns, fold = np.zeros((1, columns.shape[1])), np.zeros(1, int)
        self.mean = columns.mean(0, dtype=np.float64)
        centred = columns - self.mean
        parts = [centred[fold == k] for k in np.unique(fold)]
        self.folds = np.stack([part.T @ part for part in parts])
        self.total = self.folds.sum(0)

    def solve(self, inputs: np.ndarray, mixing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Regress with the penalty that does best on the folds left out.

        :param inputs: columns that are known, ``int[I]``.
        :param mixing: what is wanted, as a mix of the columns, ``float[D, O]``.
        :returns: weights ``float[I, O]`` and offset ``float[O]``.
        """
        level = max(np.trace(self.total[np.ix_(inputs, inputs)]) / len(inputs), TINY)
        errors = np.zeros(len(PENALTIES))
        for fold in self.folds:
            rest = self.total - fold
            inner, cross = fold[np.ix_(inputs, inputs)], fold[inputs] @ mixing
            for k, weights in enumerate(_by_penalty(rest, inputs, mixing, level)):
                errors[k] += (weights * (inner @ weights - 2 * cross)).sum()
        best = int(errors.argmin())
        weights = list(_by_penalty(self.total, inputs, mixing, level))[best]
        return weights, self.mean @ mixing - self.mean[inputs] @ weights


def _by_penalty(
    moments: np.ndarray, inputs: np.ndarray, mixing: np.ndarray, level: float
) -> Iterator[np.ndarray]:
    """Weights for each of the penalties."""
    values, vectors = np.linalg.eigh(moments[np.ix_(inputs, inputs)])
    turned = vectors.T @ (moments[inputs] @ mixing)
    for penalty in PENALTIES:
        yield vectors @ (turned / (np.maximum(values, 0) + penalty * level)[:, None])


def columns_of(names: Sequence[str], codes: SharedCodes, wanted: Sequence[str]) -> np.ndarray:
    """Columns of some modalities where the codes of all lie side by side."""
    starts = np.cumsum([0, *(codes[name].size for name in names)])
    place = {name: np.arange(a, b) for name, a, b in zip(names, starts, starts[1:])}
    return np.concatenate([place[name] for name in wanted])


class Ridge:
    """
    Linear regression from the codes of the observed modalities.

    The penalty is chosen by cross-validation over the training recordings.
    """

    name = 'ridge'
    memory = False

    def __init__(self, codes: SharedCodes) -> None:
        self._codes = codes
        self._known: Dataset | None = None
        self._moments: dict[tuple[float, tuple[str, ...]], Moments] = {}
        self._solved: dict[tuple[str, tuple[str, ...], float], tuple[np.ndarray, np.ndarray]] = {}

    def fit(self, dataset: Dataset) -> None:
        """Keep the training rows; what is asked for is solved then."""
        self._codes.fit(dataset)
        self._known, self._moments, self._solved = dataset, {}, {}

    def predict(
        self,
        dataset: Dataset,
        target: str,
        observed: tuple[str, ...],
        lost: np.ndarray,
        now: np.ndarray,
    ) -> Array:
        """Regress the target."""
        shape, outputs = dataset.values[target].shape[1:], self._codes[target].size
        inputs = self._inputs(dataset.names, target, observed)
        result = np.zeros((len(now), outputs))
        for age, chosen in self._ages(dataset, lost, now):
            weights, offset = self._solve(target, observed, age)
            columns = self._columns(dataset, lost[chosen], now[chosen])
            result[chosen] = columns[:, inputs] @ weights + offset
        if self.memory:
            return dataset.rows(target, lost) + self._codes.change(target, result, shape)
        return self._codes.write(target, result, shape)

    def _ages(
        self, dataset: Dataset, lost: np.ndarray, now: np.ndarray
    ) -> list[tuple[float, np.ndarray]]:
        return [(0.0, np.arange(len(now)))]

    def _inputs(self, names: Sequence[str], target: str, observed: tuple[str, ...]) -> np.ndarray:
        return columns_of(names, self._codes, observed)

    def _columns(self, dataset: Dataset, lost: np.ndarray, now: np.ndarray) -> np.ndarray:
        """Codes of all modalities, ``float64[K, D]``."""
        known = self._codes.of(dataset)
        return np.concatenate([known[n][now] for n in dataset.names], 1).astype(np.float64)

    def _solve(
        self, target: str, observed: tuple[str, ...], age: float
    ) -> tuple[np.ndarray, np.ndarray]:
        key = (target, observed, age)
        if key not in self._solved:
            assert self._known is not None
            names = self._known.names
            moments = self._learn(age, tuple(n for n in names if n in {target, *observed}))
            wanted, width = columns_of(names, self._codes, (target,)), len(moments.mean)
            mixing = np.zeros((width, len(wanted)))
            mixing[wanted, np.arange(len(wanted))] = 1
            if self.memory:
                mixing[wanted + width // 2, np.arange(len(wanted))] = -1
            self._solved[key] = moments.solve(self._inputs(names, target, observed), mixing)
        return self._solved[key]

    def _learn(self, age: float, used: tuple[str, ...]) -> Moments:
        """Moments of the training rows in which the used modalities are present."""
        dataset = self._known
        assert dataset is not None
        absent = [n for k, n in enumerate(dataset.names) if not dataset.present[:, k].all()]
        needed = tuple(name for name in used if name in absent)
        if (age, needed) not in self._moments:
            lost, now = self._rows(dataset, age, needed)
            columns = self._columns(dataset, lost, now)
            self._moments[age, needed] = Moments(columns, folds(dataset, now))
        return self._moments[age, needed]

    def _rows(
        self, dataset: Dataset, age: float, needed: tuple[str, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        columns = [dataset.names.index(name) for name in needed]
        rows = np.concatenate([recording.rows for recording in dataset.recordings()])
        rows = rows[dataset.present[rows][:, columns].all(1)]
        return rows, rows


class RidgeMemory(Ridge):
    """
    Regression of the target's change since the loss, per age.

    It sees the observed modalities now and at the loss, and the last value of the target.
    """

    name = 'ridge_memory'
    memory = True

    def _ages(
        self, dataset: Dataset, lost: np.ndarray, now: np.ndarray
    ) -> list[tuple[float, np.ndarray]]:
        return of_ages(dataset, lost, now)

    def _inputs(self, names: Sequence[str], target: str, observed: tuple[str, ...]) -> np.ndarray:
        width = sum(self._codes[name].size for name in names)
        then = columns_of(names, self._codes, (*observed, target)) + width
        return np.concatenate([columns_of(names, self._codes, observed), then])

    def _columns(self, dataset: Dataset, lost: np.ndarray, now: np.ndarray) -> np.ndarray:
        there, here = super()._columns(dataset, lost, lost), super()._columns(dataset, lost, now)
        return np.concatenate([here, there], 1)

    def _rows(
        self, dataset: Dataset, age: float, needed: tuple[str, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        return pairs(dataset, age, lost=needed)
