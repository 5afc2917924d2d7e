"""A bundle's memory on recordings: the same class that fills in live, over rows of a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mm_perception.bundle import Bundle
from mm_perception.data.dataset import Dataset
from mm_perception.engines.engine import Engine
from mm_perception.errors import DataError
from mm_perception.evaluation.generation import (
    batches,
    decode_all,
    encode_all,
    fuse_all,
    presence,
)
from mm_perception.fusion.displacement import Moments, State
from mm_perception.fusion.losses import EARLIEST, LATEST
from mm_perception.fusion.memory import INTERVAL, Features, Filled, Memory, Query
from mm_perception.modalities.base import Array

OURS, NO_ANCHOR = 'ours', 'ours:no_anchor'


def states_of(
    dataset: Dataset, features: Mapping[str, Features], velocity_s: float
) -> dict[str, State]:
    """
    Features and velocities in all rows, NaN where a modality is missing.

    :param velocity_s: time over which velocities are taken; 0 where nothing was that long before.
    :raises DataError: if the rows do not tell their recording and time.
    """
    known = dataset.shown()
    states = {}
    for name, present in zip(dataset.names, dataset.present.T):
        parts = batches(len(known.values[name]))
        unique = [features[name].encode(known.unique(name, part)) for part in parts]
        feature = np.concatenate(unique)[known.index[name]].astype(np.float32)
        feature[~present] = np.nan
        velocity = np.zeros_like(feature)
        for recording in dataset.recordings():
            rows = recording.rows[present[recording.rows]]
            time_s = recording.time_s[present[recording.rows]]
            before = np.searchsorted(time_s, time_s - EARLIEST * velocity_s, 'right') - 1
            elapsed_s = time_s - time_s[np.maximum(before, 0)]
            good = (before >= 0) & (elapsed_s <= LATEST * velocity_s)
            first, second = rows[before[good]], rows[good]
            change = feature[second] - feature[first]
            velocity[second] = change / elapsed_s[good, None].astype(np.float32)
        velocity[~present] = np.nan
        states[name] = State(feature, velocity)
    return states


class Generator:
    """
    What a model generates in the rows of a dataset.

    :param dataset: whose values are encoded at once.
    """

    def __init__(self, engine: Engine, dataset: Dataset) -> None:
        self._engine, self._names = engine, dataset.names
        self._codes = encode_all(engine, dataset)

    def __call__(self, target: str, subset: Sequence[str], rows: np.ndarray) -> Array:
        """Expected data of the target from some others, ``float32[len(rows), *shape]``."""
        codes = {name: code[rows] for name, code in self._codes.items()}
        joint = fuse_all(self._engine, codes, presence(self._names, subset))[0]
        parts = [data for _, data in decode_all(self._engine, target, joint, 'mean', 0)]
        return np.concatenate(parts)


def query_of(
    dataset: Dataset,
    states: Mapping[str, State],
    target: str,
    subset: Sequence[str],
    rows: tuple[np.ndarray, np.ndarray],
) -> Query:
    """
    Ask for a target in some rows, without what the model generates.

    :param states: of the dataset.
    :param subset: modalities observed at the loss and now.
    :param rows: of the last good value and to fill in, ``int[Q]`` each.
    """
    lost, now = rows
    if dataset.time_s is None:
        raise DataError('the dataset tells no time of its rows; import its recordings again')
    moments = Moments(
        {name: states[name].rows(lost) for name in (*subset, target)},
        {name: states[name].feature[now] for name in subset},
    )
    age_s = dataset.time_s[now] - dataset.time_s[lost]
    return Query(dataset.rows(target, lost), age_s, moments)


class Recall:
    """
    Fills in rows of recordings as the node does live.

    :param memory: of the bundle.
    :param engine: of the same bundle.
    :param name: ``ours``, or ``ours:no_anchor`` for the memory without what the model generates,
        whose weight goes to holding.
    """

    def __init__(self, memory: Memory, engine: Engine, name: str = OURS) -> None:
        self.name = name
        self._memory, self._engine = memory, engine
        self._dataset: Dataset | None = None
        self._generator: Generator | None = None

    def fit(self, dataset: Dataset) -> None:
        """Do nothing: all was learned when the bundle was made."""

    def predict(
        self,
        dataset: Dataset,
        target: str,
        observed: Sequence[str],
        lost: np.ndarray,
        now: np.ndarray,
    ) -> Array:
        """
        Fill in a modality.

        :param observed: the others that are not lost.
        :param lost: row of the last good value, ``int[Q]``.
        :param now: row to fill in, ``int[Q]``, of the same recording.
        :returns: model arrays, ``float32[Q, *shape]``.
        """
        return self.fill(dataset, target, observed, lost, now).value

    def interval(
        self,
        dataset: Dataset,
        target: str,
        observed: Sequence[str],
        lost: np.ndarray,
        now: np.ndarray,
    ) -> tuple[Array, Array]:
        """Value, and half of the interval of 90 % around it, ``float32[Q, *shape]`` each."""
        value, std = self.fill(dataset, target, observed, lost, now)
        return value, INTERVAL * std

    def fill(
        self,
        dataset: Dataset,
        target: str,
        observed: Sequence[str],
        lost: np.ndarray,
        now: np.ndarray,
    ) -> Filled:
        """Value and std of :meth:`predict`; those without what is absent at either moment."""
        self._take(dataset)
        columns = [dataset.names.index(name) for name in observed]
        usable = dataset.present[lost][:, columns] & dataset.present[now][:, columns]
        shape = (len(now), *dataset.values[target].shape[1:])
        filled = Filled(np.zeros(shape, np.float32), np.zeros(shape, np.float32))
        for pattern in np.unique(usable, axis=0):
            rows = np.flatnonzero((usable == pattern).all(1))
            subset = [name for name, used in zip(observed, pattern) if used]
            value, std = self._fill(dataset, target, subset, (lost[rows], now[rows]))
            filled.value[rows], filled.std[rows] = value, std
        return filled

    def _fill(
        self,
        dataset: Dataset,
        target: str,
        subset: Sequence[str],
        rows: tuple[np.ndarray, np.ndarray],
    ) -> Filled:
        query = query_of(dataset, self._states, target, subset, rows)
        wanted = self.name != NO_ANCHOR and self._memory.generates(target, subset)
        if subset and wanted:
            lost, now = rows
            generator = self._generator or Generator(self._engine, dataset)
            self._generator = generator
            generated = generator(target, subset, now), generator(target, subset, lost)
            query = replace(query, generated=generated)
        return self._memory.fill(target, query)

    def _take(self, dataset: Dataset) -> None:
        if self._dataset is not dataset:
            self._dataset = dataset
            memory = self._memory
            self._states = states_of(dataset, memory.features, memory.velocity_s)
            self._generator = None


def recalls(bundle: Bundle, engine: Engine) -> list[Recall]:
    """A bundle's memory with and without what its model generates; none if it has no memory."""
    if not bundle.memory:
        return []
    memory = Memory(bundle.spec, bundle.memory)
    return [Recall(memory, engine, name) for name in (OURS, NO_ANCHOR)]
