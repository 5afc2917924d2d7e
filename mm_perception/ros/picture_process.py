"""Pictures from anywhere: what of them reaches the decoder, and the process that it is in."""

from __future__ import annotations

import mmap
import os
import re
import select
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mm_perception.errors import InvalidInput
from mm_perception.ros.picture_worker import (
    DEADLINE_S,
    DECODED,
    DIED,
    MAX_BYTES,
    MAX_PIXEL_BYTES,
    REPLY,
    REQUEST,
    SHARED_BYTES,
)

PNG_START = b'\x89PNG\r\n\x1a\n'
JPEG_START = b'\xff\xd8'
MAX_CHUNKS = 10_000
MAX_SCANS = 32
"""Of a progressive JPEG; encoders write some ten. Each costs as much as the whole picture."""
MAX_SEGMENTS = 1_000
_NEEDED = {b'IHDR', b'PLTE', b'tRNS', b'IDAT', b'IEND'}
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = {0x01, *range(0xD0, 0xD8)}
_START_OF_SCAN, _END = 0xDA, 0xD9
# In a scan 0xff00 is a value and 0xffd0 to 0xffd7 are its own marks.
_MARKER = re.compile(rb'\xff[\x01-\xcf\xd8-\xfe]')
_KEPT_BYTES = 16 << 20
_START_S = 20.0
_DTYPES = {1: np.uint8, 2: np.uint16}


def essential_picture(data: NDArray[Any]) -> tuple[bytes, tuple[int, int] | None]:
    """
    What of a JPEG or PNG makes its pixels, and the size that it promises.

    :param data: the whole file, ``uint8[n]``.
    :returns: of a PNG without text, profiles and animation; width and height, or None if it is
        neither, or if a part of it, or what follows a PNG, claims to be longer than the whole:
        decoders allocate what is claimed.
    :raises InvalidInput: if it has so many parts that reading it would take seconds.
    """
    content = data.tobytes()
    if content.startswith(PNG_START):
        return _essential_png(content)
    if content.startswith(JPEG_START):
        return content, _jpeg_size(content)
    return content, None


def _essential_png(data: bytes) -> tuple[bytes, tuple[int, int] | None]:
    kept: list[bytes] = [PNG_START]
    size: tuple[int, int] | None = None
    try:
        for position, length, kind in _chunks(data):
            if (kind == b'IHDR') != (size is None):
                break
            if size is None:
                size = struct.unpack('>II', data[16:24])
            end = position + 12 + length
            if kind in _NEEDED:
                kept.append(data[position:end])
            if kind == b'IEND':
                return b''.join(kept), size if end == len(data) else None
    except struct.error:
        pass
    return data, None


def _chunks(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    position = len(PNG_START)
    for _ in range(MAX_CHUNKS):
        if position >= len(data):
            return
        length, kind = struct.unpack('>I4s', data[position : position + 8])
        if kind == b'IHDR' and length != 13:
            return
        yield position, length, kind
        position += 12 + length
    raise InvalidInput(f'PNG of more than {MAX_CHUNKS} chunks')


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    position, scans = len(JPEG_START), 0
    size: tuple[int, int] | None = None
    try:
        for _ in range(MAX_SEGMENTS):
            found = _MARKER.search(data, position)
            if found is None:
                return size  # cut off: the decoder makes of it what it can
            position, marker = found.start(), data[found.start() + 1]
            if marker == _END:
                return size
            if marker in _ALONE:
                position += 2
                continue
            (length,) = struct.unpack('>H', data[position + 2 : position + 4])
            if marker in _FRAMES and size is None:
                height, width = struct.unpack('>HH', data[position + 5 : position + 9])
                size = width, height
            scans += marker == _START_OF_SCAN
            if scans > MAX_SCANS:
                raise InvalidInput(f'JPEG of more than {MAX_SCANS} scans')
            position += 2 + length
    except (struct.error, IndexError):
        return size if scans else None
    raise InvalidInput(f'JPEG of more than {MAX_SEGMENTS} segments')


class PictureProcess:
    """A process that decodes one picture after the other; used by one thread at a time."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._lost, self._number = False, 0
        shared = os.memfd_create('pictures')
        self._open.callback(os.close, shared)
        os.ftruncate(shared, SHARED_BYTES)
        self._shared = shared
        self._memory = mmap.mmap(shared, SHARED_BYTES)
        theirs_in, self._requests = os.pipe()
        self._replies, theirs_out = os.pipe()
        self._open.callback(os.close, self._requests)
        self._open.callback(os.close, self._replies)
        environment = {
            **os.environ,
            'PYTHONPATH': os.pathsep.join(filter(None, sys.path)),
            'OPENBLAS_NUM_THREADS': '1',
            # glibc keeps what a picture took for the next one: a VGA JPEG takes 1.2 ms less.
            'MALLOC_MMAP_THRESHOLD_': str(_KEPT_BYTES),
            'MALLOC_TRIM_THRESHOLD_': str(4 * _KEPT_BYTES),
        }
        passed = (shared, theirs_in, theirs_out)
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'mm_perception.ros.picture_worker', *map(str, passed)],
            pass_fds=passed,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._patience_s = _START_S  # until it has answered once

    def decode(self, picture: bytes | NDArray[Any]) -> NDArray[Any] | None:
        """
        Decode a PNG or JPEG.

        :param picture: the file.
        :returns: ``uint8`` or ``uint16``, ``[H, W]`` or ``[H, W, channels]`` in OpenCV's order;
            None if it cannot be decoded.
        :raises InvalidInput: if the decoder died of it, or took too long.
        """
        length = len(picture)
        if length > MAX_BYTES:
            raise InvalidInput(
                f'compressed image of {length} bytes; at most {MAX_BYTES >> 20} MiB'
            )
        self._memory[:length] = bytes(picture)
        try:
            self._number = self._number % 0xFFFF + 1
            os.write(self._requests, REQUEST.pack(self._number, length))
            state, *shape, channels, itemsize = self._reply()
        except OSError as error:
            self._lost = True
            raise InvalidInput(
                'the process that decodes pictures is gone; it starts anew'
            ) from error
        self._patience_s = 5 * DEADLINE_S
        if state == DIED:
            raise InvalidInput(f'the decoder died of this picture (signal {shape[0]})')
        return self._pixels(shape, channels, itemsize) if state == DECODED else None

    @property
    def lost(self) -> bool:
        """Whether it is of no use any more."""
        return self._lost

    def close(self) -> None:
        """End the process."""
        self._lost = True
        self._open.close()
        self._process.kill()
        self._process.wait()

    def __del__(self) -> None:
        """End the process with the thread that used it."""
        with suppress(Exception):
            self.close()

    def _reply(self) -> tuple[int, ...]:
        poll = select.poll()
        poll.register(self._replies, select.POLLIN)
        while True:
            if not poll.poll(self._patience_s * 1e3):
                self.close()
                raise InvalidInput(f'compressed image not decoded within {self._patience_s:.0f} s')
            answer = os.read(self._replies, REPLY.size)
            if len(answer) < REPLY.size:
                raise BrokenPipeError('no answer')
            number, *reply = REPLY.unpack(answer)
            if number in (0, self._number):  # else to a request before, whose reader had died
                return tuple(reply)

    def _pixels(self, shape: list[int], channels: int, itemsize: int) -> NDArray[Any]:
        """Copy what was decoded; the process that says how large it is is not believed either."""
        count = shape[0] * shape[1] * channels
        if itemsize not in _DTYPES or not 0 < count * itemsize <= MAX_PIXEL_BYTES:
            raise InvalidInput('compressed image of a strange kind')
        flat = np.frombuffer(self._memory, _DTYPES[itemsize], count, MAX_BYTES).copy()
        if flat.nbytes > _KEPT_BYTES:  # gives the memory back
            os.ftruncate(self._shared, MAX_BYTES)
            os.ftruncate(self._shared, SHARED_BYTES)
        return flat.reshape(*shape, channels) if channels > 1 else flat.reshape(shape)


_of_thread = threading.local()


def decode_apart(picture: bytes | NDArray[Any]) -> NDArray[Any] | None:
    """Decode a picture in the process of this thread, as :meth:`PictureProcess.decode`."""
    process: PictureProcess | None = getattr(_of_thread, 'process', None)
    if process is None or process.lost:
        process = _of_thread.process = PictureProcess()
    return process.decode(picture)
