"""What the installed package brings: its share folder, and Fast DDS settings for camera images."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mm_perception.errors import ConfigError

PACKAGE = 'mm_perception'


def share_directory() -> Path:
    """
    Find the folder with ``models/``, ``config/`` and ``launch/``.

    A checkout's root comes first, then every prefix that ROS knows of, then Python's own.
    """
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / 'package.xml').is_file():
        return checkout
    for prefix in prefixes():
        share = prefix / 'share' / PACKAGE
        if (share / 'package.xml').is_file():
            return share
    return Path(sys.prefix) / 'share' / PACKAGE


def prefixes() -> list[Path]:
    """Where ROS packages are installed: every prefix that ROS knows of, then Python's own."""
    known = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    return [Path(prefix) for prefix in [*known, sys.prefix] if prefix]


def is_installed(package: str) -> bool:
    """Whether ROS finds a package of that name."""
    marker = Path('share/ament_index/resource_index/packages') / package
    return any((prefix / marker).is_file() for prefix in prefixes())


def parameter_file(given: str = '') -> Path:
    """
    Parameter file of the node; launch itself would start it without one that is missing.

    :param given: a path; empty: the package's own.
    :raises ConfigError: if there is no such file.
    """
    path = Path(given).expanduser() if given else share_directory() / 'config' / 'cmi.yaml'
    if not path.is_file():
        raise ConfigError(f'params_file: no file "{path}"; give a YAML file of parameters')
    return path


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
