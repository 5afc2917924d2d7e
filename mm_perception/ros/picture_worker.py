"""
Decodes pictures that come from anywhere, in a process that may die of them.

A program: :mod:`mm_perception.ros.picture_process` starts it and says how they talk. It forks once
it is ready. The child decodes; when that dies the next is there within milliseconds.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import signal
import struct
import sys

import cv2
import numpy as np

REQUEST = struct.Struct('<2I')
"""Its number, and the length of the picture, which lies at the beginning of the shared memory."""
REPLY = struct.Struct('<6I')
"""
Number of the request, state, height, width, channels, bytes per number; the pixels follow the room
for the picture. Who dies answers to no number: the next one may still find the request.
"""
DECODED, REFUSED, DIED = range(3)
MAX_BYTES = 32 << 20
MAX_PIXEL_BYTES = 320_000_000
SHARED_BYTES = MAX_BYTES + MAX_PIXEL_BYTES
DEADLINE_S = 1.0
_MAX_MEMORY_BYTES = 3 << 30
_NO_NEW_PRIVILEGES = 38


def main(shared: int, requests: int, replies: int) -> None:
    """
    Decode what is asked for, until nobody can ask any more.

    :param shared: file of the shared memory.
    :param requests: pipe to read from.
    :param replies: pipe to write to.
    """
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the node's
    while True:
        child = os.fork()
        if child == 0:
            _serve(shared, requests, replies)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
            return
        os.write(replies, REPLY.pack(0, DIED, abs(os.waitstatus_to_exitcode(status)), 0, 0, 0))


def _serve(shared: int, requests: int, replies: int) -> None:
    _limit()
    memory = mmap.mmap(shared, SHARED_BYTES)
    while True:
        request = os.read(requests, REQUEST.size)
        if len(request) < REQUEST.size:
            os._exit(0)
        number, length = REQUEST.unpack(request)
        # Unhandled, its signal ends this process in the midst of the decoder. It counts time of
        # the processor: on a busy machine a good picture takes longer by the clock.
        signal.setitimer(signal.ITIMER_PROF, DEADLINE_S)
        answer = REPLY.pack(number, *_decode(memory, length))
        signal.setitimer(signal.ITIMER_PROF, 0)
        try:
            os.write(replies, answer)
        except BrokenPipeError:  # nobody waits any more
            os._exit(0)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)


def _decode(memory: mmap.mmap, length: int) -> tuple[int, ...]:
    # A copy: who wrote the picture cannot change it under the decoder's feet.
    data = np.frombuffer(memory, np.uint8, length).copy()
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None or pixels.nbytes > MAX_PIXEL_BYTES:
        return REFUSED, 0, 0, 0, 0
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    room = np.frombuffer(memory, pixels.dtype, pixels.size, MAX_BYTES).reshape(pixels.shape)
    np.copyto(room, pixels)
    return DECODED, *pixels.shape[:2], channels, pixels.itemsize


if __name__ == '__main__':
    main(*map(int, sys.argv[1:4]))
