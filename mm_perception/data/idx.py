"""The reader of gzipped idx files, the format of MNIST and Fashion-MNIST."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from mm_perception.errors import DataError

UNSIGNED_BYTE = 8


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """
    Read an idx file of unsigned bytes.

    :param dimensions: how many axes it must have: 3 for images, 1 for labels.
    :returns: ``uint8``, of the shape that the file states.
    :raises DataError: if it is missing, broken, cut off, or of another format.
    """
    try:
        with gzip.open(path) as file:
            content = file.read()
    except FileNotFoundError as error:
        raise DataError(f'{path}: no such file; give its folder with --data') from error
    except EOFError as error:
        raise DataError(f'{path}: cut off; copy the file again') from error
    except (OSError, zlib.error) as error:
        raise DataError(f'{path}: no readable gzip file ({error}); copy it again') from error
    start = 4 + 4 * dimensions
    magic = bytes((0, 0, UNSIGNED_BYTE, dimensions))
    if content[:4] != magic or len(content) < start:
        raise DataError(
            f'{path}: starts with {content[:4].hex() or "nothing"}, expected {magic.hex()}'
            f' (idx of bytes with {dimensions} axes); give the original file'
        )
    shape = struct.unpack(f'>{dimensions}I', content[4:start])
    if len(content) - start != math.prod(shape):
        sizes = ' x '.join(map(str, shape))
        raise DataError(
            f'{path}: states {sizes} bytes, holds {len(content) - start}; copy the file again'
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
