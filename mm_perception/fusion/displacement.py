"""
How far a lost sensor's value has moved since its last good one, told by the other sensors.

A linear head reads the features of the others now, at the loss, and their velocities then; one
Gram matrix over all modalities serves every target and every subset by dropping columns.
What the head misses is added from similar moments of the training recordings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mm_perception.modalities.base import Array

CHANGE, LOSS, VELOCITY, OWN, OWN_VELOCITY = range(5)
PENALTIES = 5
"""Blocks of inputs with a ridge penalty of their own, in this order."""
CONSTANT_PENALTY = 1e-3
NEIGHBOURS, WIDTH = 30, 0.5
"""Similar moments fade by a Gaussian, whose width is this part of the distance to the 30th."""
OWN_SCALE, VELOCITY_SCALE = 0.5, 0.1
"""Weights of the last value and its velocity beside the prediction, where moments are compared."""


class State(NamedTuple):
    """Features of a modality and how fast they change (1/s), ``float32[N, d]`` each."""

    feature: Array
    velocity: Array

    def rows(self, rows: NDArray[np.intp]) -> State:
        """Some of the moments."""
        return State(self.feature[rows], self.velocity[rows])


@dataclass(frozen=True)
class Moments:
    """
    What is known in N moments after a loss; NaN where a modality was missing.

    :param before: of each modality at the loss, the lost one included.
    :param now: features of the observed modalities, ``float32[N, d]`` each.
    """

    before: Mapping[str, State]
    now: Mapping[str, Array]

    def rows(self, rows: NDArray[np.intp]) -> Moments:
        """Some of the moments."""
        return Moments(
            {name: state.rows(rows) for name, state in self.before.items()},
            {name: feature[rows] for name, feature in self.now.items()},
        )


class Layout:
    """
    Where the inputs of each modality lie in a Gram matrix.

    :param sizes: of each modality's features, in the order of the model.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.sizes = dict(sizes)
        self._begin, total = {}, 0
        for name, size in sizes.items():
            self._begin[name] = total
            total += size
        self.total = total
        self.inputs = 3 * total
        """Beside these there is a last column of ones."""

    def columns(self, target: str, subset: Sequence[str]) -> NDArray[np.intp]:
        """Columns that a target reads with these others observed, the one of ones last."""
        parts = [self._block(name, block) for name in subset for block in range(3)]
        parts += [self._block(target, LOSS), self._block(target, VELOCITY)]
        return np.concatenate([*parts, [self.inputs]])

    def penalties(self, target: str, subset: Sequence[str], penalty: Array) -> Array:
        """Ridge penalty of each of these columns, from those of the blocks."""
        kinds = [k for name in subset for k in np.repeat(range(3), self.sizes[name])]
        kinds += list(np.repeat((OWN, OWN_VELOCITY), self.sizes[target]))
        return np.append(penalty[kinds], CONSTANT_PENALTY)

    def inputs_of(self, moments: Moments, names: Sequence[str]) -> Array:
        """All blocks of some modalities, as they lie in a Gram matrix of these alone."""
        before = moments.before
        parts = [moments.now[name] - before[name].feature for name in names]
        parts += [before[name].feature for name in names]
        parts += [before[name].velocity for name in names]
        return np.concatenate(parts, 1)

    def _block(self, name: str, block: int) -> NDArray[np.intp]:
        begin = block * self.total + self._begin[name]
        return np.arange(begin, begin + self.sizes[name])


@dataclass(frozen=True)
class Inputs:
    """
    How inputs are bounded and scaled, per column of a Gram matrix but the one of ones.

    :param low: somewhat below the 1 % quantile in training; ``high``: above that of 99 %.
    """

    low: Array
    high: Array
    mean: Array
    scale: Array

    def prepare(self, raw: Array, columns: NDArray[np.intp] | slice) -> Array:
        """Columns of inputs made ready, what is missing at its mean, with the ones appended."""
        clipped = np.clip(raw, self.low[columns], self.high[columns])
        ready = (clipped - self.mean[columns]) / self.scale[columns]
        return np.append(np.nan_to_num(ready), np.ones((len(raw), 1), np.float32), axis=1)


@dataclass(frozen=True)
class Regression:
    """
    Everything that heads of one age are solved from.

    :param gram: of the inputs, for one target, ``float32[C, C]``; ``cross``: with its
        displacement beyond the damped velocity, ``float32[C, d]``.
    :param penalty: per block, ``float32[5]``.
    :param damping_s: how many seconds the velocity at the loss lasts.
    """

    inputs: Inputs
    gram: Array
    cross: Array
    penalty: Array
    damping_s: float


@dataclass(frozen=True)
class References:
    """
    Moments of the training recordings at one age, to be found again.

    :param truth: features of the target now, ``float32[P, d]``.
    """

    moments: Moments
    truth: Array


class Displacement(NamedTuple):
    """By damped velocity, by the head, and by the head and similar moments; ``float32[N, d]``."""

    damped: Array
    head: Array
    similar: Array


class Head:
    """
    Head of one target, subset of the others and age.

    :param layout: of the Gram matrices.
    :param regression: what it is solved from.
    :param references: of the same age; only those in which the target is known.
    """

    def __init__(
        self,
        layout: Layout,
        regression: Regression,
        target: str,
        subset: Sequence[str],
        references: References,
    ) -> None:
        self._target, self._subset = target, tuple(subset)
        self._inputs, self._damping_s = regression.inputs, np.float32(regression.damping_s)
        columns = layout.columns(target, subset)
        self._columns = columns[:-1]
        gram = regression.gram[np.ix_(columns, columns)].astype(np.float64)
        gram += np.diag(layout.penalties(target, subset, regression.penalty))
        weight = np.linalg.solve(gram, regression.cross[columns].astype(np.float64))
        self._weight = weight.astype(np.float32)
        _, moved = self._linear(references.moments)
        self._keys = self._key(references.moments, moved)
        self._squares = (self._keys**2).sum(1)
        own = references.moments.before[target].feature
        self._missed = references.truth - own - moved

    def __call__(self, moments: Moments) -> Displacement:
        """Displacements of the target's features since the loss."""
        damped, head = self._linear(moments)
        return Displacement(damped, head, head + self._similar(self._key(moments, head)))

    def _linear(self, moments: Moments) -> tuple[Array, Array]:
        own = moments.before[self._target]
        parts = []
        for name in self._subset:
            before = moments.before[name]
            parts += [moments.now[name] - before.feature, before.feature, before.velocity]
        raw = np.concatenate([*parts, own.feature, own.velocity], 1)
        damped = self._damping_s * own.velocity
        return damped, damped + self._inputs.prepare(raw, self._columns) @ self._weight

    def _key(self, moments: Moments, moved: Array) -> NDArray[np.float64]:
        """By what moments are compared; in float64, since near ones differ by little."""
        own = moments.before[self._target]
        parts = (own.feature + moved, OWN_SCALE * own.feature, VELOCITY_SCALE * own.velocity)
        key: NDArray[np.float64] = np.concatenate(parts, 1).astype(np.float64)
        return key

    def _similar(self, keys: NDArray[np.float64]) -> Array:
        """What the head missed in similar moments, on average."""
        if len(self._keys) <= NEIGHBOURS:
            return np.zeros((len(keys), self._missed.shape[1]), np.float32)
        distance = self._squares + (keys**2).sum(1)[:, None] - 2.0 * keys @ self._keys.T
        distance = np.maximum(distance, 0.0)
        far = np.partition(distance, NEIGHBOURS, axis=1)[:, NEIGHBOURS, None]
        weight = np.exp(-distance / (WIDTH * far + 1e-12))
        weight /= weight.sum(1, keepdims=True)
        missed: Array = weight.astype(np.float32) @ self._missed
        return missed
