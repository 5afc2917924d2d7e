"""Where the package's models, configuration and launch files lie."""

from __future__ import annotations

import os
import sys
from pathlib import Path

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
