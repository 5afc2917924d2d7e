"""Giving memory back that a model no longer needs."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress


def collect_memory() -> None:
    """Find objects that only refer to each other, and give what they held back to the system."""
    gc.collect()
    trim_memory()


def trim_memory() -> None:
    """
    Give memory that is free back to the system.

    glibc keeps it, and apart for each thread: a model loaded again in another thread would
    take as much once more.
    """
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
