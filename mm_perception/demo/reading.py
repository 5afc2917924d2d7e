"""Independent classifiers that say what generated values show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mm_perception.bundle import Bundle
from mm_perception.demo.log import Log, Received
from mm_perception.demo.observer import read_output
from mm_perception.errors import InvalidInput
from mm_perception.evaluation.classifiers import load_classifiers
from mm_perception.modalities import Modality

UNREADABLE = '-'


class Reader:
    """
    Reads messages as labels.

    :param bundle: carries the classifiers.
    :param modalities: of the bundle.
    """

    def __init__(self, bundle: Bundle, modalities: Mapping[str, Modality[Any]]) -> None:
        self._classifiers = load_classifiers(bundle)
        self._labels = bundle.labels
        self._modalities = modalities
        self._done: dict[str, int] = {}

    def read_generated(self, log: Log) -> None:
        """Read everything that was generated and has not been read."""
        for name in self._modalities:
            entries = log.generated[name]
            end = len(entries)
            self.read(name, entries[self._done.get(name, 0) : end])
            self._done[name] = end

    def read(self, name: str, entries: Iterable[Received]) -> None:
        """Read messages of one modality."""
        arrays, readable = [], []
        for entry in entries:
            if not entry.shows:
                try:
                    arrays.append(read_output(self._modalities[name], entry.message))
                    readable.append(entry)
                except InvalidInput:
                    entry.shows = UNREADABLE
        if readable:
            indices = self._classifiers.read(name, np.stack(arrays))
            for entry, index in zip(readable, indices, strict=True):
                entry.shows = self._labels[index]
