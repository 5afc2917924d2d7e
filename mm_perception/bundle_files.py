"""
Reading the files of a bundle that a stranger may have made.

What a file claims about its own size is checked against its length before anything is allocated
for it, and what is hashed is what is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from mm_perception.errors import BundleError

MAX_HEADER_BYTES = 4 << 20
MAX_TENSORS = 20_000
MAX_DIMENSIONS = 8
ITEM_BYTES = {'F64': 8, 'F32': 4, 'F16': 2, 'I64': 8, 'I32': 4, 'U8': 1, 'BOOL': 1}


def read_object(file: Path, limit: int) -> dict[str, Any]:
    """
    Read a JSON object.

    :param limit: bytes that the file may have.
    :raises BundleError: if it is missing, too large, nested too deeply or no JSON object.
    """
    try:
        found = json.loads(_read(file, limit))
    except RecursionError as error:
        raise BundleError(f'{file}: nested too deeply; not a bundle') from error
    except ValueError as error:
        raise BundleError(f'{file}: cannot be read ({error}); get the bundle again') from error
    if not isinstance(found, dict):
        raise BundleError(f'{file}: no JSON object; not a bundle')
    return found


def read_arrays(file: Path, limit: int, digest: str) -> Mapping[str, np.ndarray]:
    """
    Read a safetensors file.

    :param limit: bytes that the file may have.
    :param digest: SHA-256 that its content must have.
    :raises BundleError: if it is missing, too large, altered, or not what it claims to be.
    """
    content = _read(file, limit)
    if hashlib.sha256(content).hexdigest() != digest:
        raise BundleError(f'{file}: truncated or altered (hash differs); get the bundle again')
    try:
        _check_header(content)
        arrays: Mapping[str, np.ndarray] = load(content)
    except (SafetensorError, RecursionError, ValueError, TypeError, KeyError) as error:
        reason = ' '.join(str(error).split())[:200]
        raise BundleError(f'{file}: not safetensors ({reason}); get the bundle again') from error
    return arrays


def file_hash(file: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with file.open('rb') as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read(file: Path, limit: int) -> bytes:
    """Content of a regular file (or a link to one) that is not larger than the limit."""
    try:
        # Not blocking, so that a pipe in place of the file does not hold the node up.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise BundleError(f'{file}: missing; get the bundle again') from error
    except OSError as error:
        raise BundleError(f'{file}: cannot be read ({error.strerror}); check it') from error
    with os.fdopen(descriptor, 'rb') as opened:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f'{file}: not a regular file; get the bundle again')
        if status.st_size > limit:
            raise BundleError(f'{file}: larger than {limit >> 20} MiB; not a bundle')
        return opened.read(status.st_size)


def _check_header(content: bytes) -> None:
    """
    Hold what a safetensors header claims against the length of the file.

    :raises ValueError: if it claims more than there is, less, or anything unusual.
    """
    length = int.from_bytes(content[:8], 'little')
    size = len(content) - 8 - length
    if length > MAX_HEADER_BYTES or size < 0:
        raise ValueError(f'its header claims {length} bytes')
    header = json.loads(content[8 : 8 + length])
    if not isinstance(header, dict):
        raise ValueError('its header is no object')
    header.pop('__metadata__', None)
    if len(header) > MAX_TENSORS:
        raise ValueError(f'it lists {len(header)} arrays, at most {MAX_TENSORS} are read')
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: _offsets(*item)):
        begin, after = _offsets(name, entry)
        if begin != end or after - begin != _claimed_bytes(name, entry):
            raise ValueError(f'{name[:80]!r} does not lie where its shape says')
        end = after
    if end != size:
        raise ValueError(f'its arrays fill {end} of {size} bytes')


def _offsets(name: str, entry: Any) -> tuple[int, int]:
    found = entry.get('data_offsets') if isinstance(entry, dict) else None
    if not isinstance(found, list) or len(found) != 2 or not all(map(_is_count, found)):
        raise ValueError(f'{name[:80]!r} has no data_offsets')
    return found[0], found[1]


def _claimed_bytes(name: str, entry: Mapping[str, Any]) -> int:
    kind, shape = entry.get('dtype'), entry.get('shape')
    if kind not in ITEM_BYTES:
        raise ValueError(f'{name[:80]!r} is of type {str(kind)[:20]!r}')
    if not isinstance(shape, list) or not all(map(_is_count, shape)):
        raise ValueError(f'{name[:80]!r} has no shape')
    if len(shape) > MAX_DIMENSIONS:
        raise ValueError(f'{name[:80]!r} has {len(shape)} dimensions')
    claimed = ITEM_BYTES[kind]
    for count in shape:
        claimed *= count
    return claimed


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 48
