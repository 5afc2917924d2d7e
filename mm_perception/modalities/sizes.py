"""
Bounds of what a model may ask for, so that a file from elsewhere cannot take the machine's memory.

They lie far above what any sensor needs; a bundle is held to them before anything is built of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from mm_perception.config import to_plain
from mm_perception.errors import ConfigError
from mm_perception.modalities.stacking import build_modality
from mm_perception.spec import ModelSpec

MAX_MODALITIES = 64
MAX_LAYERS = 64
MAX_LIST = 4096
MAX_NUMBER = 1 << 20
MAX_VALUE = 1e30
"""Of a range in the sensor's unit, such as ticks of an encoder or pascals."""
MAX_ELEMENTS = 1 << 22
"""Of one modality's array: 16 MiB, a picture of 2048 x 2048."""


def check_sizes(spec: ModelSpec) -> None:
    """
    Check that a spec asks for nothing that is absurdly large.

    Memory for the networks is bounded by the file of the weights, whose shapes they must have.

    :raises ConfigError: naming the path of what is too large, and the limit.
    """
    _check(len(spec.modalities), MAX_MODALITIES, 'modalities')
    for path, value in _walk(to_plain(spec), 'spec'):
        if isinstance(value, list):
            layers = '.network.' in path or path.endswith('_hidden')
            _check(len(value), MAX_LAYERS if layers else MAX_LIST, path)
        elif isinstance(value, int | float):
            measured = '.preprocessing.low[' in path or '.preprocessing.high[' in path
            _check(abs(value), MAX_VALUE if measured else MAX_NUMBER, path)
    for modality in spec.modalities:
        shape = build_modality(modality).shape
        if min(shape) < 1:
            raise ConfigError(f'{modality.name}: its array has shape {shape}; give positive sizes')
        _check(math.prod(shape), MAX_ELEMENTS, f'{modality.name}: elements')


def _check(value: float, limit: float, path: str) -> None:
    if math.isnan(value):
        raise ConfigError(f'{path}: not a number')
    if value > limit:
        raise ConfigError(f'{path}: {str(value)[:40]} is more than {limit}')


def _walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, value
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _walk(item, f'{path}.{key}')
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _walk(item, f'{path}[{i}]')
