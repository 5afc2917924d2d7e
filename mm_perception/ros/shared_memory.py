"""What killed processes leave in the shared memory of Fast DDS, and how it is put right."""

from __future__ import annotations

import fcntl
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SEGMENTS = Path('/dev/shm')
_LOCK = '_el'
_JUST_MADE_S = 10.0
# Beginning of the struct PortNode of Fast DDS's SharedMemGlobal.hpp from its port_id on, the same
# from 2.6 to 3.x: port, listeners, check and wait (a third of it) in ms, capacity, waiting, flags.
_PORT = struct.Struct('<7I')
_PORT_NAME = b'port_node_abi5'
_PORT_BEGINS_WITHIN = 1024
_IS_OK, _FLAGS = 1, 7


def clean_up(folder: Path = SEGMENTS) -> int:
    """
    Put right what killed processes of this user left; to be called before rclpy starts.

    A segment, 33 MB with our profile, would lie there until the machine restarts: it is removed,
    as ``fastdds shm clean`` does. A port is marked as broken, so that who writes to it opens it
    anew. Fast DDS finds out by itself, after a second or two, where the reader was killed while it
    waited for a message or worked on one: else a process that takes over the port, such as the
    killed node respawned, receives nothing from writers that knew the port before (Fast DDS issue
    5469, pull request 4728).

    An owner that lives holds a lock on the file beside it; what belongs to others stays.

    :param folder: where the segments lie.
    :returns: how many segments and ports were put right.
    """
    count = 0
    for lock in (*folder.glob(f'fastrtps_*{_LOCK}'), *folder.glob(f'fastdds_*{_LOCK}')):
        segment = lock.with_name(lock.name.removesuffix(_LOCK))
        with suppress(OSError), _held(lock):  # OSError: in use, not ours, or gone
            if '_port' in lock.name:
                count += _mark_as_broken(segment)
            elif time.time() - lock.stat().st_mtime > _JUST_MADE_S:  # else maybe not locked yet
                segment.unlink(missing_ok=True)
                lock.unlink(missing_ok=True)
                count += 1
    return count


@contextmanager
def _held(lock: Path) -> Iterator[None]:
    with lock.open('rb') as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _mark_as_broken(port: Path) -> bool:
    """Clear the flag ``is_port_ok``; False where it is cleared already or not to be found."""
    content = port.read_bytes()
    at = _flags_of(content, port.name.rpartition('_port')[2])
    if at is None or not content[at] & _IS_OK:
        return False
    with port.open('r+b') as file:
        file.seek(at)
        file.write(bytes([content[at] & ~_IS_OK]))
    return True


def _flags_of(content: bytes, number: str) -> int | None:
    if _PORT_NAME not in content:
        return None  # a layout that this was not written for
    for at in range(0, min(_PORT_BEGINS_WITHIN, len(content) - _PORT.size), 4):
        port, _, check_ms, wait_ms, capacity, _, flags = _PORT.unpack_from(content, at)
        if str(port) == number and 0 < check_ms // 3 == wait_ms and capacity and flags <= _FLAGS:
            return at + _PORT.size - 4
    return None
