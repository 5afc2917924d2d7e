"""Processes that train side by side."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def wait_for(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 40.0
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def alive(pid: str) -> bool:
    """Whether a process runs; one that ended and was not collected does not."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_processes_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, '-m', 'tests.helpers.sleepers', str(tmp_path)]
    parent = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
        workers = [file.name for file in tmp_path.iterdir()]
        assert all(map(alive, workers))
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not any(map(alive, workers)))
