"""Schedules of failures: which sensor, from when, how long, how."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

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
