"""The demonstration of a policy whose sensors die, over topics."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed')
pytest.importorskip('gymnasium', reason='gymnasium is not installed')

from mm_perception.lab.demo.acting import ActingOptions, draw_pole, plan_episodes
from mm_perception.resources import share_directory

SHIPPED = share_directory() / 'models' / 'pendulum'
SENSORS = ('camera', 'microphones', 'joints')


def demo(folder: Path, *options: str) -> tuple[dict[str, Any], str]:
    """Run it; the summary and what the terminal showed."""
    command = [sys.executable, '-m', 'mm_perception.cli.main', 'demo', '--out', str(folder)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert 'Traceback' not in done.stderr
    return json.loads((folder / 'summary.json').read_text()), done.stdout


def test_acting_episodes_lose_every_sensor_and_every_pair() -> None:
    planned = plan_episodes(SENSORS, ActingOptions())
    assert [len(phase.missing) for phase in planned] == [0, 1, 1, 1, 2, 2, 2]
    assert planned[-1].end_s == 70.0
    assert len(plan_episodes(SENSORS, ActingOptions(quick=True))) == 4


@pytest.mark.parametrize(
    ('angle', 'row', 'column'),
    [(0.0, 0, 9), (np.pi, 8, 9), (np.pi / 2, 4, 1), (-np.pi / 2, 4, 17)],
)
def test_acting_pole_is_drawn_as_it_stands(angle: float, row: int, column: int) -> None:
    assert draw_pole(angle)[row][column] == '@'


@pytest.mark.skipif(not SHIPPED.is_dir(), reason='models/pendulum is not here')
def test_acting_demo_of_the_shipped_pendulum_keeps_its_return_in_real_time(tmp_path: Path) -> None:
    options = '--quick', '--seconds-scale', '0.5', '--gif', str(tmp_path / 'a.gif')
    summary, shown = demo(tmp_path / 'out', '--robot', 'pendulum', *options)
    assert summary['mode'] == 'real_time'
    assert [episode['missing'] for episode in summary['episodes']] == [[], *([s] for s in SENSORS)]
    differences = [episode['live_difference'] for episode in summary['episodes']]
    assert np.median(differences) <= 0.03, summary['episodes']  # a busy test machine
    assert 0.0 < summary['latency_ms']['p50'] < 25.0
    assert 'watch it: http://127.0.0.1:' in shown
    assert 'without camera' in shown
    page = (tmp_path / 'out' / 'index.html').read_text()
    assert page.count('<tr>') == 2 + len(summary['targets']) + len(summary['episodes'])
    assert cv2.imread(str(tmp_path / 'out' / 'angles.png')).shape[1] == 900
    assert (tmp_path / 'a.gif').stat().st_size > 10_000
