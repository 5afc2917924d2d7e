"""Some minutes of `make soak`: sensors fail and recover at random, and nothing goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from checks.soak import FAULTS, TOGETHER, plan

ROOT = Path(__file__).parents[2]
SECONDS = int(os.environ.get('SOAK_SECONDS', '60'))
MAX_AGE_S = {'image': 0.5, 'trajectory': 1.2, 'sound': 2.0, 'symbol': 1.2}


def test_soak_plan_breaks_every_sensor_but_never_all() -> None:
    planned = plan(1800.0, 7, MAX_AGE_S)
    assert {(p.sensor, p.fault) for p in planned} == {(s, f) for s in FAULTS for f in FAULTS[s]}
    for fault in planned:
        broken = [p for p in planned if p.start_s <= fault.start_s < p.end_s + p.back_s]
        assert len(broken) <= TOGETHER
        assert len({p.sensor for p in broken}) == len(broken)
    assert plan(1800.0, 5, MAX_AGE_S) == plan(1800.0, 5, MAX_AGE_S)


@pytest.mark.timeout(SECONDS + 180)
def test_soak_node_survives_random_failures(tmp_path: Path) -> None:
    report = tmp_path / 'soak.json'
    command = [sys.executable, '-m', 'checks.soak', '--seconds', str(SECONDS)]
    done = subprocess.run(
        [*command, '--json', str(report)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert json.loads(report.read_text())['faults'] >= SECONDS / 15
