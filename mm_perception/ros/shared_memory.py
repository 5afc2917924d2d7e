"""What killed processes leave in the shared memory of Fast DDS, and how it is put right."""

from __future__ import annotations

import fcntl
import os
import re
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mm_perception.resources import OFF, REPAIR, prefixes

SEGMENTS = Path('/dev/shm')
_LOCK = '_el'
_MULTIARCH = ('lib/x86_64-linux-gnu', 'lib/aarch64-linux-gnu')
_JUST_MADE_S = 10.0
# Beginning of the struct PortNode of Fast DDS's SharedMemGlobal.hpp from its port_id on: port,
# listeners, check and wait (a third of it) in ms, capacity, waiting, flags.
_PORT = struct.Struct('<7I')
_PORT_NAME = b'port_node_abi5'
_PORT_BEGINS_WITHIN = 1024
_IS_OK, _FLAGS = 1, 7
_MAX_PORT_BYTES = 16 << 20
_LIBRARY = re.compile(r'libfast(?:rtps|dds)\.so\.(\d+\.\d+)\.\d+')
TESTED = ('2.14', '3.2')
"""Versions of Fast DDS whose ports the tests have read and marked: Jazzy's and Kilted's."""


def clean_up(folder: Path = SEGMENTS) -> int:
    """
    Put right what killed processes of this user left; to be called before rclpy starts.

    A segment, 33 MB with our profile, would lie there until the machine restarts: it is removed,
    as ``fastdds shm clean`` does. A port is marked as broken, so that who writes to it opens it
    anew. Fast DDS finds out by itself, after a second or two, where the reader was killed while it
    waited for a message or worked on one: else a process that takes over the port, such as the
    killed node respawned, receives nothing from writers that knew the port before. That is Fast
    DDS's issue 5469; the repair that was proposed there (pull requests 4728, closed, and 4737,
    open in 2026) does the same from within.

    An owner that lives holds a lock on the file beside it; what belongs to others stays, and so do
    links, pipes and what is too large for a port. Ports stay as they are beside any version of
    Fast DDS that is not ``TESTED``; with ``REPAIR`` set to ``OFF`` in the environment all does.

    :param folder: where the segments lie.
    :returns: how many segments and ports were put right.
    """
    count = 0
    if os.environ.get(REPAIR) == OFF:
        return count
    for lock in (*folder.glob(f'fastrtps_*{_LOCK}'), *folder.glob(f'fastdds_*{_LOCK}')):
        segment = lock.with_name(lock.name.removesuffix(_LOCK))
        with suppress(OSError), _held(lock):  # OSError: in use, not ours, or gone
            if '_port' in lock.name:
                count += _layout_is_known() and _mark_as_broken(segment)
            elif time.time() - lock.stat().st_mtime > _JUST_MADE_S:  # else maybe not locked yet
                segment.unlink(missing_ok=True)
                lock.unlink(missing_ok=True)
                count += 1
    return count


@contextmanager
def _held(lock: Path) -> Iterator[None]:
    with _opened(lock, os.O_RDONLY) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    """
    Open a file of our own in a folder in which anybody may put anything.

    :raises OSError: if it is a link, a pipe, or not ours.
    """
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid():
            raise PermissionError(f'{path}: not a file of this user')
        yield descriptor
    finally:
        os.close(descriptor)


def _layout_is_known() -> bool:
    folders = [p / name for p in prefixes() for name in ('lib', *_MULTIARCH)]
    files = [file.name for folder in folders for file in folder.glob('libfast*.so.*')]
    versions = {found[1] for found in map(_LIBRARY.fullmatch, files) if found}
    return bool(versions) and versions <= set(TESTED)


def _mark_as_broken(port: Path) -> bool:
    """Clear the flag ``is_port_ok``; False where it is cleared already or not to be found."""
    with _opened(port, os.O_RDWR) as descriptor:
        if os.fstat(descriptor).st_size > _MAX_PORT_BYTES:
            return False
        content = os.pread(descriptor, _MAX_PORT_BYTES, 0)
        at = _flags_of(content, port.name.rpartition('_port')[2])
        if at is None or not content[at] & _IS_OK:
            return False
        os.pwrite(descriptor, bytes([content[at] & ~_IS_OK]), at)
    return True


def _flags_of(content: bytes, number: str) -> int | None:
    if _PORT_NAME not in content:
        return None  # a layout that this was not written for
    for at in range(0, min(_PORT_BEGINS_WITHIN, len(content) - _PORT.size), 4):
        port, _, check_ms, wait_ms, capacity, _, flags = _PORT.unpack_from(content, at)
        if str(port) == number and 0 < check_ms // 3 == wait_ms and capacity and flags <= _FLAGS:
            return at + _PORT.size - 4
    return None
