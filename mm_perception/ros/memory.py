"""Giving memory back that a model no longer needs."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from contextlib import suppress


def collect_memory() -> None:
    """Find objects that only refer to each other, and give what they held back to the system."""
    gc.collect()
    trim_memory()


def trim_memory_soon(delay_s: float = 1.0) -> None:
    """Give memory back once work that is under way has let go of it."""
    timer = threading.Timer(delay_s, trim_memory)
    timer.daemon = True
    timer.start()


def trim_memory() -> None:
    """Give memory that is free back, which glibc, and torch of a GPU's, keep for later."""
    torch = sys.modules.get('torch')
    if torch is not None and torch.cuda.is_initialized():
        from mm_perception.inference.cuda_graphs import release_memory

        release_memory()
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
