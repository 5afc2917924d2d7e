"""Fast DDS settings with which camera images travel between processes."""

from __future__ import annotations

import os
from pathlib import Path

from mm_perception.errors import ConfigError
from mm_perception.resources import prefixes, share_directory

SHARED_MEMORY = 'shm'
NONE = 'none'
# Fast DDS 2 (up to Jazzy) reads only the old name; with Fast DDS 3 (from Kilted on) ROS 2 still
# reads it, but warns.
OLD_VARIABLE, VARIABLE = 'FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'


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
