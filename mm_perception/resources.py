"""What the installed package brings: its share folder, and Fast DDS settings for camera images."""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import sys
from pathlib import Path

from mm_perception.errors import ConfigError, DataError, printable

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


def explain_middleware() -> str:
    """Say in one line that the middleware that the environment asks for is absent; or empty."""
    wanted = os.environ.get('RMW_IMPLEMENTATION', '')
    folders = [prefix / 'lib' for prefix in prefixes()]
    folders += map(Path, filter(None, os.environ.get('LD_LIBRARY_PATH', '').split(os.pathsep)))
    files = [file for folder in folders for file in folder.glob('librmw_*_cpp.so')]
    names = {file.name.removeprefix('lib').removesuffix('.so') for file in files}
    found = sorted(name for name in names if '__' not in name and '_shared_' not in name)
    if not wanted or not found or wanted in found:
        return ''
    package = printable(wanted[:80]).replace('_', '-')
    return (
        f'RMW_IMPLEMENTATION={printable(wanted[:80])} is not installed (there is:'
        f' {", ".join(found)}); unset it, or sudo apt-get install ros-$ROS_DISTRO-{package}'
    )


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


def read_file(file: Path, limit: int) -> bytes:
    """
    Read a regular file, or a link to one, that somebody else may have made.

    :param limit: bytes that it may have.
    :raises DataError: if it is missing, too large, a pipe or a device; what to do is the caller's.
    """
    try:
        # Not blocking, so that a pipe in place of the file does not hold anybody up.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise DataError(f'{file}: cannot be read (no such file)') from error
    except OSError as error:
        raise DataError(f'{file}: cannot be read ({error.strerror})') from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f'{file}: not a regular file')
        if status.st_size > limit:
            raise DataError(f'{file}: larger than {limit >> 20} MiB')
        with os.fdopen(descriptor, 'rb', closefd=False) as opened:
            return opened.read(status.st_size)
    finally:
        os.close(descriptor)


_EXCHANGE, _HERE = 2, -100


def replace_folder(new: Path, path: Path) -> None:
    """
    Put a folder in the place of another, or of none, in one step: there is no moment without one.

    Where the file system cannot exchange two, the old one is away for a moment. It is then where
    the new one was.

    :raises OSError: if it cannot be done.
    """
    for file in new.rglob('*'):
        if file.is_file():
            with file.open('rb') as opened:
                os.fsync(opened.fileno())  # else a power cut leaves names without content
    if not path.exists():
        os.replace(new, path)
        return
    exchange = getattr(ctypes.CDLL(None), 'renameat2', None)
    if exchange and not exchange(_HERE, os.fsencode(new), _HERE, os.fsencode(path), _EXCHANGE):
        return
    aside = new.with_name(f'{new.name}.old')
    os.replace(path, aside)
    os.replace(new, path)
    os.replace(aside, new)


def link_all(old: Path, new: Path) -> None:
    """Give a file, or all in a folder, a second name; a copy where that cannot be."""
    if old.is_dir() and not old.is_symlink():
        shutil.copytree(old, new, symlinks=True, copy_function=_link_file)
    else:
        _link_file(old, new)


def _link_file(old: str | Path, new: str | Path) -> None:
    try:
        os.link(old, new, follow_symlinks=False)
    except OSError:
        shutil.copy2(old, new, follow_symlinks=False)


SHARED_MEMORY = 'shm'
NONE = 'none'
REPAIR, OFF = 'MM_PERCEPTION_REPAIR_SHM', '0'
"""Environment variable: whether a node puts right what killed processes left in shared memory."""
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
