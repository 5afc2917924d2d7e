"""Ridge regressions of the displacement of a lost sensor's value, of one age at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mm_perception.data.dataset import Dataset
from mm_perception.fusion.displacement import (
    PENALTIES,
    Inputs,
    Layout,
    Moments,
    Regression,
    State,
)
from mm_perception.fusion.memory import Features
from mm_perception.modalities.base import Array

MOST_PAIRS = 20_000
ELEMENTS, COMPONENTS = 64, 64
"""Up to so many elements are features themselves; of more, so many principal components."""
VALUES = 1500
"""That principal components are taken from."""
FOLDS = 5
GRID = 10.0 ** np.arange(-1, 6)
FIRST_PENALTIES = (1.0, 100.0)
COUNTED = 7
"""More inputs of one modality weigh as so many: else those of a picture outweigh all others."""
SLACK = 0.25
"""Inputs may lie so many times the range of their 1 % to 99 % quantiles outside of it."""
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Recordings:
    """
    A dataset with the features of its rows.

    :param fold: of each row, ``int[N]``; of whole recordings if there are enough.
    """

    dataset: Dataset
    states: dict[str, State]
    fold: NDArray[np.intp]

    def pairs(self, age_s: float, period_s: float) -> tuple[Rows, Rows]:
        """Rows of one recording that are an age apart, the later one as near to it as can be."""
        first: list[np.ndarray] = [np.zeros(0, np.intp)]
        second: list[np.ndarray] = [np.zeros(0, np.intp)]
        for recording in self.dataset.recordings():
            time_s = recording.time_s
            wanted = time_s + age_s
            place = np.clip(np.searchsorted(time_s, wanted), 1, max(len(time_s) - 1, 1))
            if len(time_s) < 2:
                continue
            place -= wanted - time_s[place - 1] < time_s[place] - wanted
            near = np.abs(time_s[place] - wanted) <= 0.6 * period_s
            near &= place > np.arange(len(time_s))
            first.append(recording.rows[near])
            second.append(recording.rows[place[near]])
        return np.concatenate(first), np.concatenate(second)

    def known(self, names: Sequence[str], first: Rows, second: Rows) -> NDArray[np.bool_]:
        """Whether all these modalities are there in both rows."""
        present = self.dataset.present[:, [self.dataset.names.index(name) for name in names]]
        there: NDArray[np.bool_] = np.all(present[first] & present[second], axis=1)
        return there


class Age:
    """
    Regressions of one age, of all data and of those without a fold.

    :param rows: pairs of rows that lie this age apart.
    """

    def __init__(
        self, data: Recordings, layout: Layout, age_s: float, rows: tuple[Rows, Rows]
    ) -> None:
        self.data, self.layout, self.age_s = data, layout, age_s
        step = -(-len(rows[0]) // MOST_PAIRS)
        self.first, self.second = (part[::step] for part in rows)
        states = data.states
        moments = Moments(
            {name: state.rows(self.first) for name, state in states.items()},
            {name: state.feature[self.second] for name, state in states.items()},
        )
        raw = layout.inputs_of(moments, list(states))
        self.inputs = _bounds(layout, raw)
        self._design = self.inputs.prepare(raw, slice(None))
        self._fold = data.fold[self.first]
        self.grams: list[Array] = []
        self._known: list[bytes] = []
        self._parts: list[NDArray[np.float64]] = []

    def regression(self, target: str, before: Array | None) -> tuple[list[Regression], int]:
        """
        Regressions of a target: the last of all data, the others without a fold.

        :param before: penalties of the age before, to begin with.
        :returns: and the number of its Gram matrix.
        """
        known = self.data.known([target], self.first, self.second)
        state = self.data.states[target]
        velocity = state.velocity[self.first[known]]
        moved = state.feature[self.second[known]] - state.feature[self.first[known]]
        damping_s = self._damping(velocity, moved, self._fold[known])
        rest = moved - np.float32(damping_s) * velocity
        number = self._gram(known)
        fold, design = self._fold[known], self._design[known]
        cross = np.stack(
            [design[fold == f].T.astype(np.float64) @ rest[fold == f] for f in range(FOLDS)]
        )
        grams = self._parts[number]
        penalty = self._penalty(target, grams, cross, before)
        made = [
            Regression(self.inputs, gram, part, penalty, damping_s)
            for gram, part in zip(
                [*(grams.sum(0) - grams), grams.sum(0)], [*(cross.sum(0) - cross), cross.sum(0)]
            )
        ]
        return made, number

    def _damping(self, velocity: Array, moved: Array, fold: NDArray[np.intp]) -> float:
        """
        Seconds that a velocity lasts: from constant velocity, as far as folds are sure of less.

        Without any motion a sensor is held.
        """
        product = np.bincount(fold, (velocity * moved).sum(1), FOLDS)
        power = np.bincount(fold, (velocity**2).sum(1), FOLDS)
        if power.sum() <= 1e-9:
            return 0.0
        found = product.sum() / power.sum()
        without = (product.sum() - product) / np.maximum(power.sum() - power, 1e-9)
        variance = (1.0 - 1.0 / FOLDS) * ((without - without.mean()) ** 2).sum()  # jackknife
        less = found - self.age_s
        return float(self.age_s + less * max(1.0 - variance / (less**2 + 1e-12), 0.0))

    def _gram(self, known: NDArray[np.bool_]) -> int:
        key = known.tobytes()
        if key not in self._known:
            self._known.append(key)
            parts = []
            for f in range(FOLDS):
                part = self._design[known & (self._fold == f)].astype(np.float64)
                parts.append(part.T @ part)
            self._parts.append(np.stack(parts))
            self.grams.append(self._parts[-1].sum(0))
        return self._known.index(key)

    def _penalty(
        self,
        target: str,
        grams: NDArray[np.float64],
        cross: NDArray[np.float64],
        before: Array | None,
    ) -> Array:
        """Penalties with the least error on folds left out, one after the other."""
        others = [name for name in self.layout.sizes if name != target]
        columns = self.layout.columns(target, others)
        grams, cross = grams[:, columns][:, :, columns], cross[:, columns]

        def error(penalty: Array) -> float:
            diagonal = np.diag(self.layout.penalties(target, others, penalty))
            total = 0.0
            for gram, part in zip(grams, cross):
                weight = np.linalg.solve(grams.sum(0) - gram + diagonal, cross.sum(0) - part)
                total += float((weight * (gram @ weight - 2.0 * part)).sum())
            return total

        # Blocks that matter only together are not found one by one: begin where that is best.
        begins: list[Array] = [np.full(PENALTIES, each) for each in FIRST_PENALTIES]
        begins += [] if before is None else [before]
        least, best = min(((error(each), each) for each in begins), key=lambda pair: pair[0])
        for block in [*range(PENALTIES)] * (2 if before is None else 1):
            near = GRID if before is None else best[block] * np.array([0.1, 10.0])
            for value in near:
                tried = best.copy()
                tried[block] = value
                if (found := error(tried)) < least:
                    least, best = found, tried
        return best


def _bounds(layout: Layout, raw: Array) -> Inputs:
    some = raw[:: -(-len(raw) // 5000)]
    low, high = np.nanquantile(some, (0.01, 0.99), axis=0).astype(np.float32)
    slack = SLACK * (high - low)
    low, high = low - slack, high + slack
    clipped = np.clip(raw, low, high)
    mean, square = np.nanmean(clipped, 0), np.nanvar(clipped, 0)
    scale, begin = np.ones(layout.inputs, np.float32), 0
    for size in [*layout.sizes.values()] * 3:
        block = slice(begin, begin + size)
        spread = square[block].sum() / min(size, COUNTED)
        scale[block] = max(float(np.sqrt(spread)), 1e-6)
        begin += size
    return Inputs(low, high, mean.astype(np.float32), scale)


def evenly(rows: Rows, count: int) -> Rows:
    """At most so many of the rows, evenly spread."""
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), count)).astype(int)]


def learn_features(dataset: Dataset, name: str) -> Features:
    """Features of one modality of a dataset."""
    known = dataset.only(name).shown()
    count = len(known.values[name])
    data = known.unique(name, evenly(np.arange(count), VALUES))
    data = data.reshape(len(data), -1)
    centre = data.mean(0)
    if data.shape[1] <= ELEMENTS:
        std = data.std(0)
        return Features(centre, np.where(std > 1e-5, std, 1.0).astype(np.float32))
    data = data - centre
    power, vectors = np.linalg.eigh((data @ data.T).astype(np.float64))
    kept = power > 1e-6 * power[-1]
    power, vectors = power[kept][-COMPONENTS:][::-1], vectors[:, kept][:, -COMPONENTS:][:, ::-1]
    basis = ((vectors / np.sqrt(power)).T @ data).astype(np.float16).astype(np.float32)
    scale = np.sqrt(power.mean() / len(data))
    return Features(centre, np.full(len(basis), scale, np.float32), basis)
