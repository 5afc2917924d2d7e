"""Settings that all tests share."""

from __future__ import annotations

import os

# Several processes share few cores: more threads than cores only wait for each other.
os.environ.setdefault('OMP_NUM_THREADS', '1')
