"""A training killed at random moments: it goes on from the epoch before, to the same weights."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

from mm_perception.training.loop import read_checkpoint

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get('KILLS', '2'))


def train(file: Path) -> subprocess.Popen[str]:
    """A process that trains a stage, from its checkpoint if there is one."""
    command = [sys.executable, '-m', 'tests.helpers.training_stage', str(file)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == 'begins\n'
    return process


def test_killed_training_resumes_to_the_same_weights(tmp_path: Path) -> None:
    rng = random.Random(time.time_ns())
    file = tmp_path / 'killed.safetensors'
    epochs = [0]
    for _ in range(KILLS):
        process = train(file)
        time.sleep(rng.uniform(0.0, 1.0))
        process.kill()
        process.wait()
        if file.exists():
            epochs.append(int(read_checkpoint(file)[0]['epoch']))
    assert epochs == sorted(epochs), 'no epoch that was done is lost'
    killed, whole = train(file), train(tmp_path / 'whole.safetensors')
    assert killed.communicate(timeout=120)[0] == whole.communicate(timeout=120)[0]
    assert killed.returncode == whole.returncode == 0
