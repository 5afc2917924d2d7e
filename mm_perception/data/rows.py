"""Gathers what an importer reads into the rows of a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mm_perception.data.dataset import RECORDING, Dataset
from mm_perception.modalities import Modality


@dataclass
class Account:
    """
    What became of one modality's messages.

    :param messages: or frames that were read, and how many of these were ``refused``.
    :param values: different ones that rows show.
    :param rows: that have it.
    :param reason: why it was not used last, empty if it always was.
    """

    messages: int = 0
    refused: int = 0
    values: int = 0
    rows: int = 0
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
        return dataset
