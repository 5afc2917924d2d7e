"""A benchmark from beginning to end, and the machine that it ran on."""

from __future__ import annotations

import importlib
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mm_perception.bundle import load_bundle
from mm_perception.errors import MMPerceptionError
from mm_perception.lab.benchmark.options import ALL, SECTIONS, Options
from mm_perception.lab.benchmark.rows import Measured

LIBRARIES = {
    'mm_perception': 'mm_perception',
    'numpy': 'numpy',
    'onnxruntime': 'onnxruntime',
    'onnxruntime-gpu': 'onnxruntime-gpu',
    'torch': 'torch',
    'rclpy': 'ros-rclpy',
}


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory and load."""
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return {
        'cpu': _processor(),
        'cores': len(os.sched_getaffinity(0)),
        'memory_gb': round(memory * 1e-9, 1),
        'load_average': [round(load, 2) for load in os.getloadavg()],
        'system': f'{platform.system()} {platform.machine()}',
    }


def describe_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that are installed."""
    versions = {'python': platform.python_version()}
    for name, package in LIBRARIES.items():
        try:
            versions[name] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _processor() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        lines = []
    names = (line.split(':', 1)[1].strip() for line in lines if line.startswith('model name'))
    return next(names, platform.processor() or 'unknown')


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
        measure = getattr(
            importlib.import_module(f'mm_perception.lab.benchmark.{module}'), function
        )
        measured: Measured = measure(options)
    except (MMPerceptionError, ModuleNotFoundError) as error:
        if not tolerant:
            raise
        return Measured((), (f'not measured: {error}',))
    return measured
