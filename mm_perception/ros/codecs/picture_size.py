"""Size of a compressed picture, read before any memory is spent on it."""

from __future__ import annotations

import struct

PNG_START = b'\x89PNG\r\n\x1a\n'
JPEG_START = b'\xff\xd8'
WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}
FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def picture_size(data: bytes | memoryview) -> tuple[int, int] | None:
    """
    Width and height that the head of a JPEG or PNG promises.

    :param data: the whole file.
    :returns: pixels; None if it is neither, or if a part of it, or what follows a PNG, claims to
        be longer than the whole: decoders allocate what is claimed.
    """
    data = memoryview(data)
    try:
        if data[:8] == PNG_START:
            return _png_size(data)
        return _jpeg_size(data) if data[:2] == JPEG_START else None
    except (struct.error, IndexError):
        return None


def _png_size(data: memoryview) -> tuple[int, int] | None:
    position, size = len(PNG_START), None
    while position < len(data):
        length, kind = struct.unpack('>I4s', data[position : position + 8])
        if size is None:
            if (length, kind) != (13, b'IHDR'):
                return None
            size = struct.unpack('>II', data[16:24])
        position += 12 + length
        if kind == b'IEND':
            return size if position == len(data) else None
    return None


def _jpeg_size(data: memoryview) -> tuple[int, int] | None:
    position = len(JPEG_START)
    while data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker in WITHOUT_LENGTH:
            position += 2
        elif marker in FRAMES:
            height, width = struct.unpack('>HH', data[position + 5 : position + 9])
            return width, height
        else:
            (length,) = struct.unpack('>H', data[position + 2 : position + 4])
            position += 2 + length
    return None
