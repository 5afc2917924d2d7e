"""Gathers what an importer reads into the rows of a dataset."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mm_perception.data.dataset import RECORDING, Dataset
from mm_perception.modalities import Modality

Wanted = Callable[[int, NDArray[Any], float], NDArray[np.bool_]]
"""Number of a recording, times in it and its length (s) to which of the times are wanted."""
MANY = 10
"""Recordings from which on whole ones are held out."""
MOST_GAP = 0.03
"""Part of a recording that a gap between two splits may take."""


@dataclass
class Account:
    """
    What became of one modality's messages.

    :param messages: or frames that were read, and how many of these were ``refused``.
    :param values: different ones that rows show.
    :param rows: that have it.
    :param clipped: values of which something lies at the end of its range, or beyond.
    :param jumps: how often its stamps ran backwards.
    :param gap_s: longest time between two messages.
    :param faults: at how many ticks it was kept out, by what was wrong with it.
    :param reason: why it was not used last, empty if it always was.
    """

    messages: int = 0
    refused: int = 0
    values: int = 0
    rows: int = 0
    clipped: int = 0
    jumps: int = 0
    gap_s: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)
    reason: str = ''

    def refuse(self, reason: str) -> None:
        """Count one that cannot be used."""
        self.refused += 1
        self.reason = reason


@dataclass
class Rows:
    """Values, and the rows that show them: recording by recording, in the order of time."""

    names: tuple[str, ...]
    values: dict[str, list[NDArray[Any]]] = field(default_factory=dict)
    shown: list[dict[str, int]] = field(default_factory=list)
    recording: list[int] = field(default_factory=list)
    time_s: list[float] = field(default_factory=list)

    def add(self, observed: Mapping[str, NDArray[Any]], recording: int, time_s: float) -> bool:
        """
        Add a row, if anything is observed; the same array is the same value.

        :param observed: arrays of the modalities that are there.
        :param time_s: on the recording's clock.
        """
        for name, array in observed.items():
            known = self.values.setdefault(name, [])
            if not known or known[-1] is not array:
                known.append(array)
        if observed:
            self.shown.append({name: len(self.values[name]) - 1 for name in observed})
            self.recording.append(recording)
            self.time_s.append(time_s)
        return bool(observed)

    def dataset(
        self,
        kinds: Mapping[str, Modality[Any]],
        recordings: Sequence[str],
        accounts: Mapping[str, Account],
    ) -> Dataset:
        """
        All rows, with the values that any of them shows.

        :param recordings: names of those that the rows' numbers mean.
        :param accounts: get their count of values and of rows.
        """
        nothing = {name: [np.zeros(kinds[name].shape, np.float32)] for name in self.names}
        values = {name: np.stack(v) for name, v in (nothing | self.values).items()}
        index = {n: np.array([row.get(n, 0) for row in self.shown]) for n in self.names}
        present = np.array([[name in row for name in self.names] for row in self.shown])
        attributes = {RECORDING: (recordings, np.array(self.recording))}
        time_s = np.array(self.time_s)
        dataset = Dataset(self.names, values, index, present, attributes, time_s).shown()
        for name, rows in zip(self.names, present.sum(axis=0).tolist(), strict=True):
            accounts[name].rows = rows
            accounts[name].values = len(dataset.values[name]) if rows else 0
            if rows and kinds[name].clips:
                ends = (dataset.values[name] <= 0.0) | (dataset.values[name] >= 1.0)
                accounts[name].clipped = int(ends.reshape(len(ends), -1).any(axis=1).sum())
        return dataset


@dataclass(frozen=True)
class Division:
    """
    How recordings are divided among splits.

    From :data:`MANY` recordings on, whole ones are given to the splits in turn. Fewer are each
    cut into blocks of time, in the order of the splits.

    :param shares: of the recordings, or of the time, per split; their sum is 1.
    :param count: of recordings.
    :param gap_s: left out at the beginning of every block but the first, so that no split shows
        what another has just seen; at most :data:`MOST_GAP` of a recording.
    """

    shares: Mapping[str, float]
    count: int
    gap_s: float

    def holds(
        self, split: str, number: int, time_s: NDArray[Any], length_s: float
    ) -> NDArray[np.bool_]:
        """
        Which times of a recording belong to a split.

        :param number: of the recording.
        :param time_s: since its beginning, ``float64[T]``.
        :param length_s: of the recording.
        """
        names = list(self.shares)
        place = names.index(split)
        if len(names) > 1 and self.count >= MANY:
            return np.full(len(time_s), self._takers()[number] == place)
        ends_s = np.cumsum(list(self.shares.values())) * length_s
        gap_s = min(self.gap_s, MOST_GAP * length_s)
        begin_s = ends_s[place - 1] + gap_s if place else -math.inf
        end_s = math.inf if place == len(names) - 1 else ends_s[place]
        return np.asarray((time_s >= begin_s) & (time_s < end_s))

    def divide(self, dataset: Dataset) -> dict[str, Dataset]:
        """Rows of each split."""
        _, number = dataset.attributes[RECORDING]
        found = {}
        for split in self.shares:
            rows = [
                r.rows[self.holds(split, number[r.rows[0]], r.time_s, r.time_s[-1])]
                for r in dataset.recordings()
            ]
            found[split] = dataset.subset(np.concatenate(rows)).shown()
        return found

    def _takers(self) -> list[int]:
        """Place of the split that takes each recording: the one that lacks most."""
        shares = np.array(list(self.shares.values()))
        given, takers = np.zeros(len(shares)), []
        for k in range(self.count):
            takers.append(int((shares * (k + 1) - given).argmax()))
            given[takers[-1]] += 1
        return takers
