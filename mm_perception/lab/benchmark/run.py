"""A benchmark from beginning to end, and the machine that it ran on."""

from __future__ import annotations

import importlib
import platform
import time
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from mm_perception.bundle import load_bundle
from mm_perception.errors import MMPerceptionError
from mm_perception.lab.benchmark.measurements import Result
from mm_perception.lab.benchmark.options import ALL, SECTIONS, Options

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
    return {
        'cpu': _processor(),
        'cores': len(psutil.Process().cpu_affinity()),
        'memory_gb': round(psutil.virtual_memory().total * 1e-9, 1),
        'load_average': [round(load, 2) for load in psutil.getloadavg()],
        'system': f'{platform.system()} {platform.machine()}',
    }


def describe_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that are installed."""
    versions = {'python': platform.python_version()}
    for name, package in LIBRARIES.items():
        with suppress(PackageNotFoundError):
            versions[name] = version(package)
    return versions


def _processor() -> str:
    """Name of the processor, which neither psutil nor platform knows on Linux."""
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
        rows, notes = _measure(name, options, tolerant=section == ALL)
        content['rows'] += [replace(row, section=name).plain() for row in rows]
        content['notes'] += [f'{name}: {_without_here(note)}' for note in notes]
        content['seconds'][name] = round(time.monotonic() - begin_s, 1)
    content['machine']['load_average_after'] = describe_machine()['load_average']
    return content


def _without_here(text: str) -> str:
    """Paths from the current folder on: where that is says nothing about the figures."""
    return text.replace(f'{Path.cwd()}/', '')


def _measure(name: str, options: Options, tolerant: bool) -> Result:
    module, function = SECTIONS[name].split('.')
    try:
        part = importlib.import_module(f'mm_perception.lab.benchmark.{module}')
        result: Result = getattr(part, function)(options)
    except (MMPerceptionError, ModuleNotFoundError) as error:
        if not tolerant:
            raise
        return [], [f'not measured: {error}']
    return result
