"""What is replayed when: the order of recordings, and the schedule of failures."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mm_perception.errors import ConfigError

SILENT, FROZEN = 'silent', 'frozen'
FAULTS = (SILENT, FROZEN, 'black', 'nan', 'noise')
KEYS = {'sensors', 'start_s', 'duration_s', 'fault', 'phase'}


@dataclass(frozen=True)
class Outage:
    """
    Sensors that fail together for a while.

    :param sensors: names of modalities; empty for a phase in which all work.
    :param start_s: from the start of the schedule.
    :param fault: one of FAULTS.
    :param phase: a name for observers.
    """

    sensors: tuple[str, ...]
    start_s: float
    duration_s: float
    fault: str = SILENT
    phase: str = ''

    def covers(self, elapsed_s: float) -> bool:
        """Whether it lasts at that time."""
        return self.start_s <= elapsed_s < self.start_s + self.duration_s


def parse_schedule(text: str, known: Collection[str]) -> tuple[Outage, ...]:
    """
    Read a schedule.

    :param text: JSON, a list of objects with ``sensor`` or ``sensors``, ``start_s``,
        ``duration_s``, and optionally ``fault`` and ``phase``; empty for no failures.
    :param known: names of the sensors that exist.
    :raises ConfigError: if it is anything else; says which entry.
    """
    if not text.strip():
        return ()
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise ConfigError(f'schedule: not JSON ({error})') from error
    if not isinstance(entries, list):
        raise ConfigError('schedule: expected a list of objects')
    return tuple(_outage(f'schedule[{k}]', entry, known) for k, entry in enumerate(entries))


def active_faults(schedule: Collection[Outage], elapsed_s: float) -> dict[str, str]:
    """Sensor to fault, at a time; of outages that overlap the later in the list decides."""
    return {
        sensor: outage.fault
        for outage in schedule
        if outage.covers(elapsed_s)
        for sensor in outage.sensors
    }


def phase_name(schedule: Collection[Outage], elapsed_s: float) -> str:
    """Name of the phase at a time, empty if it has none."""
    names = [o.phase for o in schedule if o.phase and o.covers(elapsed_s)]
    return names[-1] if names else ''


def _outage(where: str, entry: Any, known: Collection[str]) -> Outage:
    if not isinstance(entry, Mapping):
        raise ConfigError(f'{where}: expected an object, got {entry!r}')
    values = dict(entry)
    if 'sensor' in values:
        values['sensors'] = values.pop('sensor')
    for key in values:
        if key not in KEYS:
            raise ConfigError(f'{where}.{key}: unknown; known: {", ".join(sorted(KEYS))}')
    fault = values.get('fault', SILENT)
    if fault not in FAULTS:
        raise ConfigError(f'{where}.fault: {fault!r} is not one of {", ".join(FAULTS)}')
    start_s, duration_s = (_seconds(where, values, key) for key in ('start_s', 'duration_s'))
    sensors = _sensors(where, values.get('sensors', ()), known)
    return Outage(sensors, start_s, duration_s, fault, str(values.get('phase', '')))


def _sensors(where: str, named: Any, known: Collection[str]) -> tuple[str, ...]:
    named = [named] if isinstance(named, str) else named
    if not isinstance(named, list | tuple):
        raise ConfigError(f'{where}.sensors: expected a list of names, got {named!r}')
    for name in named:
        if name not in known:
            raise ConfigError(f'{where}.sensors: {name!r} is not one of {", ".join(known)}')
    return tuple(named)


def _seconds(where: str, values: Mapping[str, Any], key: str) -> float:
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise ConfigError(f'{where}.{key}: expected seconds (0 or more), got {value!r}')
    return float(value)


STEP_S = 0.1  # durations are whole multiples, so that frames at 30 Hz go on evenly


class Playable(Protocol):
    """What can be on show: a digit, or an episode of a robot."""

    @property
    def label(self) -> str:
        """What it shows."""

    @property
    def source(self) -> str:
        """Where it is from."""

    @property
    def needed_s(self) -> float:
        """How long it has to be on show, at least."""


@dataclass(frozen=True)
class Shown:
    """
    A recording while all sensors show it.

    :param recording: one that the sensors know to read.
    :param index: counts what has been shown.
    :param start_ns: on the node's clock.
    """

    recording: Any
    index: int
    start_ns: int
    duration_s: float

    @property
    def end_ns(self) -> int:
        """When the next one begins."""
        return self.start_ns + round(self.duration_s * 1e9)


def shuffled(recordings: Sequence[Playable], seed: int) -> Iterator[Playable]:
    """Go through the recordings for ever: every label once, in random order, then again."""
    rng = np.random.default_rng(seed)
    by_label: dict[str, list[Playable]] = defaultdict(list)
    for recording in recordings:
        by_label[recording.label].append(recording)
    queues: dict[str, list[Playable]] = defaultdict(list)
    while True:
        for label in rng.permutation(sorted(by_label)):
            if not queues[label]:
                order = rng.permutation(len(by_label[label]))
                queues[label] = [by_label[label][k] for k in order]
            yield queues[label].pop()


class Playlist:
    """
    Shows one recording after the other.

    :param recordings: to choose from, at least one.
    :param period_s: how long each is shown; longer if it needs that.
    :param seed: of the order.
    :param start_ns: when the first one begins.
    """

    def __init__(
        self, recordings: Sequence[Playable], period_s: float, seed: int, start_ns: int
    ) -> None:
        self._order = shuffled(recordings, seed)
        self._period_s = period_s
        self.shown = self._show(0, start_ns)

    def until(self, now_ns: int) -> Iterator[Shown]:
        """
        Go on until the recording that is on show at a time.

        :returns: what was on show since the last call, each from where the one before ended.
        """
        yield self.shown
        while now_ns >= self.shown.end_ns:
            self.shown = self._show(self.shown.index + 1, self.shown.end_ns)
            yield self.shown

    def _show(self, index: int, start_ns: int) -> Shown:
        recording = next(self._order)
        needed_s = max(self._period_s, recording.needed_s)
        return Shown(recording, index, start_ns, math.ceil(needed_s / STEP_S - 1e-6) * STEP_S)
