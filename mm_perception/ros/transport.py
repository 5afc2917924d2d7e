"""Fast DDS settings with which camera images travel between processes."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from mm_perception.errors import ConfigError
from mm_perception.resources import prefixes, share_directory

SHARED_MEMORY = 'shm'
NONE = 'none'
# Fast DDS 2 (up to Jazzy) reads only the old name; with Fast DDS 3 (from Kilted on) ROS 2 still
# reads it, but warns.
OLD_VARIABLE, VARIABLE = 'FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'

SEGMENTS = Path('/dev/shm')
_LOCK = '_el'
_JUST_MADE_S = 10.0


def profile_variables() -> tuple[str, ...]:
    """Environment variables that the installed Fast DDS reads; the one to set comes first."""
    for prefix in prefixes():
        if (prefix / 'share' / 'fastrtps').is_dir():
            return (OLD_VARIABLE,)
        if (prefix / 'share' / 'fastdds').is_dir():
            break
    return VARIABLE, OLD_VARIABLE


def transport_environment(profile: str = SHARED_MEMORY) -> dict[str, str]:
    """
    Environment variables that select a transport; to be set before rclpy starts.

    :param profile: ``shm`` (this package's shared-memory profile), ``none``, or the path of a
        Fast DDS profile. A profile that the environment names already is left alone.
    :raises ConfigError: if there is no such file.
    """
    variables = profile_variables()
    if profile == NONE or (profile == SHARED_MEMORY and any(map(os.environ.get, variables))):
        return {}
    shipped = share_directory() / 'config' / 'fastdds_shm.xml'
    path = shipped if profile == SHARED_MEMORY else Path(profile).expanduser()
    if not path.is_file():
        raise ConfigError(f'no transport profile "{path}"; give shm, none or a Fast DDS XML file')
    return {variables[0]: str(path.resolve())}


def remove_orphans(folder: Path = SEGMENTS) -> int:
    """
    Remove the shared-memory segments of Fast DDS whose process was killed.

    A process that is killed leaves its segment, with our profile 33 MB, until the machine
    restarts. Its owner holds a lock on the file beside it, as ``fastdds shm clean`` knows too;
    what belongs to another user stays.

    :param folder: where the segments lie.
    :returns: how many segments were removed.
    """
    removed = 0
    for lock in (*folder.glob(f'fastrtps_*{_LOCK}'), *folder.glob(f'fastdds_*{_LOCK}')):
        if '_port' in lock.name:  # few, and used again
            continue
        with suppress(OSError), lock.open('rb') as held:  # OSError: in use, not ours, or gone
            if time.time() - lock.stat().st_mtime < _JUST_MADE_S:  # maybe not locked yet
                continue
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.with_name(lock.name.removesuffix(_LOCK)).unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
            removed += 1
    return removed
