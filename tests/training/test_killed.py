"""Training, saving and importing killed at random moments, a few times each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ('kind', 'kills'), [('training', '3'), ('saving', '8'), ('importing', '6')]
)
def test_killed_work_loses_nothing_but_the_step_under_way(
    kind: str, kills: str, tmp_path: Path
) -> None:
    if kind == 'importing':
        pytest.importorskip('rosbags', reason='rosbags is not installed')
    report = tmp_path / 'kills.json'
    words = [sys.executable, '-m', 'checks.kills', '--kind', kind, '--json', str(report)]
    words += ['--kills', os.environ.get('KILLS', kills)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert json.loads(report.read_text())[kind]['kills'] > 0
