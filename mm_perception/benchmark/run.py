"""Runs sections of the benchmark, and keeps what came of them as plain data."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any

from mm_perception.benchmark.machine import describe_machine, describe_versions
from mm_perception.benchmark.options import Measured, Options
from mm_perception.bundle import load_bundle
from mm_perception.errors import MMPerceptionError

SECTIONS = {
    'engine': 'engines.measure_engines',
    'scaling': 'engines.measure_scaling',
    'peers': 'engines.measure_peers',
    'training': 'training.measure_training',
    'node': 'node.measure_node',
}
"""Each with its function; what it needs is imported when it runs."""
ALL = 'all'


def run_benchmark(section: str, options: Options) -> dict[str, Any]:
    """
    Measure one section or all.

    :param section: key of :data:`SECTIONS`, or ``all``: then what cannot be measured here becomes
        a note.
    :returns: what goes into the JSON file.
    :raises MMPerceptionError: if the one section cannot be measured.
    """
    bundle = load_bundle(options.bundle)
    names = list(SECTIONS) if section == ALL else [section]
    content: dict[str, Any] = {
        'rows': [],
        'notes': [],
        'machine': describe_machine(),
        'versions': describe_versions(),
        'settings': {
            'bundle': bundle.frame_id,
            'repeats': options.repeats,
            'calls': options.calls,
            'seconds': options.seconds,
        },
        'seconds': {},
    }
    for name in names:
        begin_s = time.monotonic()
        measured = _measure(name, options, tolerant=section == ALL)
        content['rows'] += [row.plain() for row in measured.rows]
        content['notes'] += [f'{name}: {_without_here(note)}' for note in measured.notes]
        content['seconds'][name] = round(time.monotonic() - begin_s, 1)
    content['machine']['load_average_after'] = describe_machine()['load_average']
    return content


def _without_here(text: str) -> str:
    """Paths from the current folder on: where that is says nothing about the figures."""
    return text.replace(f'{Path.cwd()}/', '')


def _measure(name: str, options: Options, tolerant: bool) -> Measured:
    module, function = SECTIONS[name].split('.')
    try:
        measure = getattr(importlib.import_module(f'mm_perception.benchmark.{module}'), function)
        measured: Measured = measure(options)
    except (MMPerceptionError, ModuleNotFoundError) as error:
        if not tolerant:
            raise
        return Measured((), (f'not measured: {error}',))
    return measured
