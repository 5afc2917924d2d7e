"""On what was measured: processor, memory, load and versions. Never a name of a machine."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

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
