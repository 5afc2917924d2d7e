"""Settings that all tests share."""

from __future__ import annotations

import os
import signal

import pytest

# Several processes share few cores: more threads than cores only wait for each other.
os.environ.setdefault('OMP_NUM_THREADS', '1')

# A shell that runs the tests in the background has SIGINT ignored, and so would every process that
# they start; with a handler it is as usual for those.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none."""
    if item.get_closest_marker('gpu') is not None:
        torch = pytest.importorskip('torch', reason='torch is not installed')
        if not torch.cuda.is_available():
            pytest.skip('needs a CUDA GPU')
