"""Fast DDS settings with which camera images travel between processes."""

from __future__ import annotations

import os
from pathlib import Path

from mm_perception.errors import ConfigError
from mm_perception.resources import share_directory

SHARED_MEMORY = 'shm'
NONE = 'none'
VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')


def transport_environment(profile: str = SHARED_MEMORY) -> dict[str, str]:
    """
    Environment variables that select a transport; to be set before rclpy starts.

    :param profile: ``shm`` (this package's shared-memory profile), ``none``, or the path of a
        Fast DDS profile. A profile that the environment names already is left alone.
    :raises ConfigError: if there is no such file.
    """
    if profile == NONE or (profile == SHARED_MEMORY and any(os.environ.get(v) for v in VARIABLES)):
        return {}
    shipped = share_directory() / 'config' / 'fastdds_shm.xml'
    path = shipped if profile == SHARED_MEMORY else Path(profile).expanduser()
    if not path.is_file():
        raise ConfigError(f'no transport profile "{path}"; give shm, none or a Fast DDS XML file')
    return dict.fromkeys(VARIABLES, str(path.resolve()))
