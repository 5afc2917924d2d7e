"""Digits: classifiers read what was generated, and right is what the sensors show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.text import Text

from mm_perception.bundle import Bundle
from mm_perception.engines.classifiers import load_classifiers
from mm_perception.errors import InvalidInput
from mm_perception.lab.demo.judge import Criterion, Figures, Judge, TicksOf
from mm_perception.lab.demo.log import Log, Received, Showing, Tick
from mm_perception.lab.demo.observer import read_received
from mm_perception.modalities import Modality

UNREADABLE = '-'
COHERENCE = {'sound': 0.90}
COHERENCE_OTHERS = 0.95
RECENT_NS = 400_000_000
MOMENTS = 3


class LabelReader:
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
                    arrays.append(read_received(self._modalities[name], entry))
                    readable.append(entry)
                except InvalidInput:
                    entry.shows = UNREADABLE
        if readable:
            indices = self._classifiers.read(name, np.stack(arrays))
            for entry, index in zip(readable, indices, strict=True):
                entry.shows = self._labels[index]


class LabelJudge(Judge):
    """
    Counts how often what was generated shows the true digit.

    :param bundle: carries the classifiers.
    :param modalities: of the bundle.
    :raises BundleError: if it carries none.
    """

    kind = 'labels'
    columns = ('sensor shows', 'model fills in')
    legend = ''
    knows_truth = False

    def __init__(self, bundle: Bundle, modalities: Mapping[str, Modality[Any]]) -> None:
        self._reader = LabelReader(bundle, modalities)

    def read(self, log: Log) -> None:
        """Let the classifiers read."""
        self._reader.read_generated(log)

    def on_show(self, showing: Showing) -> str:
        """The digit."""
        return f'digit {showing.label}'

    def live(self, name: str, log: Log, now_ns: int) -> tuple[Text, Text]:
        """What the newest message is read as, right or wrong: of the sensor, or generated."""
        used = name in log.statuses[-1].used
        entries = log.filled[name] if used else log.generated[name]
        text = self._shown(name, entries, log.showing_at(now_ns))
        return (text, Text('')) if used else (Text(''), text)

    def _shown(self, name: str, entries: list[Received], showing: Showing | None) -> Text:
        if not entries:
            return Text('')
        newest = entries[-1]
        self._reader.read(name, [newest])
        if showing is None or newest.receipt_ns - showing.start_ns < RECENT_NS:
            return Text(newest.shows, 'dim')
        right = newest.shows == showing.label
        return Text(f'{newest.shows} {"right" if right else "wrong"}', 'green' if right else 'red')

    def figures(self, name: str, ticks: Sequence[Tick]) -> dict[str, Any]:
        """See :func:`label_figures`."""
        return label_figures(name, ticks)

    def criteria(self, name: str, figures: Figures) -> list[Criterion]:
        """See :func:`label_criteria`."""
        return label_criteria(name, figures)

    def sentence(self, name: str, figures: Figures) -> str:
        """The share that was right."""
        share = figures['coherence']
        return f'{name} {"  - " if share is None else f"{share:4.0%}"} right'

    def remark(self, name: str, tick: Tick) -> tuple[str, bool]:
        """What it was read as, if that is wrong."""
        shows = tick.generated[name].shows
        right = shows == tick.label
        return '' if right else f'reads {shows}', right

    def truth(self, name: str, tick: Tick) -> np.ndarray | None:
        """Unknown: there are many ways to write a digit."""
        return None

    def moments(self, ticks: Sequence[Tick]) -> list[Tick]:
        """The last one of some of the digits that were on show."""
        last = {tick.label: tick for tick in ticks}
        return list(last.values())[-MOMENTS:]

    def overall(self, ticks: TicksOf) -> dict[str, Any]:
        """Nothing: each phase has digits of its own."""
        return {}


def label_figures(name: str, ticks: Sequence[Tick]) -> dict[str, Any]:
    """Share of the ticks in which what was generated shows the digit that the sensors show."""
    right = [tick for tick in ticks if tick.label and tick.generated[name].shows == tick.label]
    return {
        'coherence': round(len(right) / len(ticks), 4) if ticks else None,
        'digits': len({tick.showing.index for tick in ticks if tick.showing}),
    }


def label_criteria(name: str, figures: Figures) -> list[Criterion]:
    """The share that has to be right."""
    least = COHERENCE.get(name, COHERENCE_OTHERS)
    return [Criterion(f'coherence of {name}', figures['coherence'], least)]
