"""
What fills in for a lost sensor, from its last good value and from what the others tell.

The value is the last good one plus a mix of displacements, whose weights were learned per target,
age and observed others on held-out recordings: by damped velocity, by a linear head, by similar
moments (see :mod:`~mm_perception.fusion.displacement`), towards what the model generates now, by
what it generates now less what it generated at the loss, and towards the mean. Holding is the mix
of none.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mm_perception.bundle import Arrays
from mm_perception.errors import BundleError
from mm_perception.fusion.displacement import (
    Head,
    Inputs,
    Layout,
    Moments,
    References,
    Regression,
    State,
)
from mm_perception.modalities import build_modality
from mm_perception.modalities.base import Array
from mm_perception.spec import ModelSpec

PARTS = ('damped', 'head', 'similar', 'generated', 'anchored', 'mean')
"""What is mixed, in the order of the weights; the rest up to 1 is the last good value."""
HEADS = 32
"""Solved heads that are kept."""
WORTH = 0.1
"""A target is only held where its own past and the mean have all but this of the weight."""
INTERVAL = 1.6449
"""Standard deviations on either side of 90 % of a normal distribution."""


class Filled(NamedTuple):
    """What fills in, and its standard deviation; ``float32[N, *shape]`` each."""

    value: Array
    std: Array


@dataclass(frozen=True)
class Features:
    """
    Features of a modality: its standardised elements, or principal components of many.

    :param centre: mean in training, ``float32[E]``.
    :param scale: of each feature, ``float32[d]``.
    :param basis: orthonormal, ``float32[d, E]``; None for the elements themselves.
    """

    centre: Array
    scale: Array
    basis: Array | None = None

    def encode(self, data: Array) -> Array:
        """Features of ``float32[N, *shape]``: ``float32[N, d]``."""
        flat: Array = data.reshape(len(data), -1) - self.centre
        if self.basis is not None:
            flat = flat @ self.basis.T
        return np.asarray(flat / self.scale, np.float32)

    def decode(self, displacement: Array) -> Array:
        """Change of the data, ``float32[N, E]``, with a change of the features."""
        scaled: Array = np.asarray(displacement * self.scale, np.float32)
        return scaled if self.basis is None else scaled @ self.basis

    def at(self, elements: NDArray[np.intp]) -> Features:
        """Of some elements; only to decode."""
        if self.basis is None:
            return Features(self.centre[elements], self.scale[elements])
        return Features(self.centre[elements], self.scale, self.basis[:, elements])


@dataclass(frozen=True)
class Query:
    """
    N moments in which a modality is lost and the same others are observed.

    :param value: its last good value, ``float32[N, *shape]``.
    :param age_s: time since then, ``float64[N]``.
    :param moments: features at the loss and now; the observed others are those of ``now``.
    :param generated: what the model generates from these others now, and from the same at the
        loss, ``float32[N, *shape]`` each; None without others.
    """

    value: Array
    age_s: NDArray[np.float64]
    moments: Moments
    generated: tuple[Array, Array] | None = None


@dataclass(frozen=True)
class _Mix:
    """
    How one target is filled in.

    :param subsets: of the other modalities, ``bool[S, M]``.
    :param weight: ``float32[K, S, 6]`` by age.
    :param still: std of what does not move, ``float32[K, S, E or 1]``.
    :param spread: std in parts of how far what fills in has moved, alike.
    :param texture: of the std over the elements, ``float32[E]``.
    """

    subsets: NDArray[np.bool_]
    weight: Array
    still: Array
    spread: Array
    texture: Array
    bounds: Array
    labels: bool


class Memory:
    """
    The memory of one bundle; numpy alone.

    :param spec: of the model.
    :param arrays: content of ``memory.safetensors``.
    :raises BundleError: if they do not fit each other.
    """

    def __init__(self, spec: ModelSpec, arrays: Arrays) -> None:
        try:
            self._read(spec, arrays)
        except (KeyError, ValueError, IndexError) as error:
            reason = ' '.join(str(error).split())[:100]
            raise BundleError(
                f'memory: does not fit the model ({reason}); train the bundle again'
            ) from error

    def fill(self, target: str, query: Query) -> Filled:
        """
        Fill in for a lost modality.

        Between ages that were learned the mix is interpolated over log age; below the first it
        shrinks towards the last good value; after the last it stays.
        """
        mix = self._mixes[target]
        subset = tuple(name for name in self.names if name in query.moments.now)
        nearest = self._nearest(mix, subset)
        age_s = np.maximum(query.age_s, 1e-3)
        place = np.interp(np.log(age_s), np.log(self.ages_s), np.arange(len(self.ages_s)))
        near = np.minimum(age_s / self.ages_s[0], 1.0)[:, None].astype(np.float32)
        moved = np.zeros_like(query.moments.before[target].feature)
        weight = np.zeros((len(age_s), len(PARTS)), np.float32)
        still, spread = np.zeros((2, len(age_s), mix.spread.shape[-1]), np.float32)
        for k in np.unique([np.floor(place), np.ceil(place)]).astype(int):
            share = np.maximum(1.0 - np.abs(place - k), 0.0)
            rows = np.flatnonzero(share)
            part = share[rows, None].astype(np.float32)
            own = mix.weight[k, nearest]
            weight[rows] += part * own
            still[rows] += part * mix.still[k, nearest]
            spread[rows] += part * mix.spread[k, nearest]
            if own[:3].any():
                ways = self._head(target, subset, k)(query.moments.rows(rows))
                moved[rows] += part * sum(w * way for w, way in zip(own[:3], ways))
        change = self.features[target].decode(moved) + self._towards(target, query, weight)
        value = self._bounded(mix, query.value, near * change)
        std = np.sqrt(near) * np.hypot(still, spread * far_of(change)[:, None]) * mix.texture
        return Filled(value, std.reshape(value.shape))

    def generates(self, target: str, subset: Sequence[str]) -> bool:
        """Whether what the model generates has a part in what fills in."""
        mix = self._mixes[target]
        return bool(mix.weight[:, self._nearest(mix, subset), 3:5].any())

    @property
    def holds(self) -> tuple[str, ...]:
        """Modalities of which nothing else tells more than their last value or their mean."""
        return tuple(name for name in self.names if not self._told(name))

    def _told(self, target: str) -> bool:
        mix = self._mixes[target]
        full = self._nearest(mix, [name for name in self.names if name != target])
        return bool(mix.weight[:, full, 1:5].sum(1).mean() > WORTH)

    def _towards(self, target: str, query: Query, weight: Array) -> Array:
        """Change of the data by the model's part and by the mean's."""
        value = query.value.reshape(len(query.value), -1)
        change = weight[:, 5:] * (self.features[target].centre - value)
        if query.generated is not None:
            now, then = (part.reshape(value.shape) for part in query.generated)
            change += weight[:, 3:4] * (now - value) + weight[:, 4:5] * (now - then)
        return change

    def _bounded(self, mix: _Mix, held: Array, change: Array) -> Array:
        """No further out than data can be, or the held value is; labels stay a distribution."""
        low, high = np.minimum(held, mix.bounds[0]), np.maximum(held, mix.bounds[1])
        value = np.clip(held + change.reshape(held.shape), low, high)
        if mix.labels:
            value = np.maximum(value, 0.0)
            value /= np.maximum(value.sum(-1, keepdims=True), 1e-6)
        return value.astype(np.float32)

    def _nearest(self, mix: _Mix, subset: Sequence[str]) -> int:
        """Learned subset that differs least."""
        row = np.array([name in subset for name in self.names])
        return int((mix.subsets != row).sum(1).argmin())

    def _head(self, target: str, subset: tuple[str, ...], k: int) -> Head:
        key = (target, subset, k)
        if key not in self._heads:
            regression, references = self._regressions[target][k], self._references[target][k]
            self._heads[key] = Head(self._layout, regression, target, subset, references)
            if len(self._heads) > HEADS:
                self._heads.popitem(last=False)
        self._heads.move_to_end(key)
        return self._heads[key]

    def _read(self, spec: ModelSpec, arrays: Arrays) -> None:
        self.names = spec.names
        self.ages_s: NDArray[np.float64] = arrays['ages_s'].astype(np.float64)
        self.velocity_s = float(arrays['velocity_s'][0])
        """Time over which velocities are taken."""
        self.features = {name: _features(name, arrays) for name in self.names}
        self._layout = Layout({name: len(f.scale) for name, f in self.features.items()})
        self._heads: OrderedDict[tuple[str, tuple[str, ...], int], Head] = OrderedDict()
        self._mixes = {}
        for modality in spec.modalities:
            parts = ('subsets', 'weight', 'spread', 'texture', 'bounds')
            mix = {part: arrays[f'{modality.name}.{part}'] for part in parts}
            still = arrays.get(f'{modality.name}.still')
            if still is None:  # of an older bundle
                still = mix['spread'] * arrays[f'{modality.name}.usual'][..., None]
            mix['still'] = still
            labels = bool(build_modality(modality).classes)
            self._mixes[modality.name] = _Mix(**mix, labels=labels)
        ages = range(len(self.ages_s))
        grams = {key: unpack(a) for key, a in arrays.items() if key.startswith('gram.')}
        self._regressions = {
            n: [self._regression(n, k, arrays, grams) for k in ages] for n in self.names
        }
        states = {n: State(*arrays[f'{n}.references'].astype(np.float32)) for n in self.names}
        self._references = {
            n: [select(states, n, arrays[f'pairs.{k}']) for k in ages] for n in self.names
        }

    def _regression(
        self, name: str, k: int, arrays: Arrays, grams: Mapping[str, Array]
    ) -> Regression:
        gram = grams[f'gram.{k}.{int(arrays[f"{name}.gram"][0])}']
        if len(gram) != self._layout.inputs + 1:
            raise ValueError(f'{name}: a Gram matrix of {len(gram)} columns')
        return Regression(
            Inputs(*arrays[f'inputs.{k}']),
            gram,
            arrays[f'{name}.cross'][k],
            arrays[f'{name}.penalty'][k],
            float(arrays[f'{name}.damping_s'][k]),
        )


def far_of(change: Array) -> Array:
    """
    How far what fills in has moved, root mean square over the elements: ``float32[N]``.

    :param change: from the last good value, ``float32[N, E]``.
    """
    return np.asarray(np.sqrt((change**2).mean(1)), np.float32)


def select(states: Mapping[str, State], target: str, pairs: NDArray[np.intp]) -> References:
    """Pairs of reference rows in which the target is known."""
    first, second = pairs.T
    feature = states[target].feature
    known = np.isfinite(feature[first, 0]) & np.isfinite(feature[second, 0])
    first, second = first[known], second[known]
    moments = Moments(
        {name: state.rows(first) for name, state in states.items()},
        {name: state.feature[second] for name, state in states.items()},
    )
    return References(moments, feature[second])


def pack(gram: Array) -> Array:
    """Upper triangle of a symmetric matrix, ``float32[C (C + 1) / 2]``."""
    return gram[np.triu_indices(len(gram))].astype(np.float32)


def unpack(triangle: Array) -> Array:
    """Symmetric matrix of its upper triangle."""
    size = int((np.sqrt(8 * len(triangle) + 1) - 1) / 2)
    full = np.zeros((size, size), np.float32)
    full[np.triu_indices(size)] = triangle
    return full + np.triu(full, 1).T


def _features(name: str, arrays: Arrays) -> Features:
    basis = arrays.get(f'{name}.basis')
    return Features(
        arrays[f'{name}.centre'],
        arrays[f'{name}.scale'],
        None if basis is None else basis.astype(np.float32),
    )
