"""Processes killed while they save: what was there before, or what comes after, is whole."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

from mm_perception.bundle import load_bundle
from mm_perception.data.dataset import load_dataset

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get('KILLS', '6'))


def test_killed_while_it_saves_a_bundle_or_a_dataset_leaves_a_whole_one(tmp_path: Path) -> None:
    rng = random.Random(time.time_ns())
    (tmp_path / 'small' / 'recordings').mkdir(parents=True)
    (tmp_path / 'small' / 'recordings' / 'own').write_text('kept')
    hashes = set()
    for _ in range(KILLS):
        saving = subprocess.Popen(
            [sys.executable, '-m', 'tests.helpers.saving_for_ever', str(tmp_path)],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert saving.stdout is not None and saving.stdout.readline(), 'the first is saved'
        for _ in range(10):
            time.sleep(rng.uniform(0.0, 0.05))
            assert load_bundle(tmp_path / 'small').graphs, 'whole while it is saved again'
        saving.kill()
        saving.wait()
        hashes.add(load_bundle(tmp_path / 'small').hash)
        assert len(load_dataset(tmp_path / 'data', 'train').present) > 0
        assert (tmp_path / 'small' / 'recordings' / 'own').read_text() == 'kept'
    assert len(hashes) == 2 or KILLS < 6, 'killed between and within'
