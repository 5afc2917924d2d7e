"""``make gpu-check``, tried on the CPU: every step gives its rows; what fails is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('torch', reason='torch is not installed')

from checks import gpu

ROOT = Path(__file__).parents[2]


def test_gpu_check_on_the_cpu_measures_every_step(tmp_path: Path) -> None:
    files = {kind: tmp_path / f'gpu.{kind}' for kind in ('json', 'markdown')}
    command = [sys.executable, '-m', 'checks.gpu', '--device', 'cpu', '--quick']
    command += [word for kind, file in files.items() for word in (f'--{kind}', str(file))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=290, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads(files['json'].read_text())
    assert [step['step'] for step in content['steps']] == list(gpu.STEPS)
    assert {step['status'] for step in content['steps']} == {'ok'}
    rows = content['rows']
    ticks = {(r['case'], r['batch']) for r in rows if r['step'] == 'engine'}
    assert ticks >= {(case, batch) for case in ('eager', 'onnx-cpu') for batch in (1, 4)}
    trained = {row['case']: row['value'] for row in rows if row['step'] == 'training'}
    assert set(trained) == {'symbol', 'top'} and min(trained.values()) > 0.0
    compared = [row for row in rows if row['step'] == 'parity']
    assert {row['precision'] for row in compared} == {'float32', 'bfloat16', 'float16', 'int8'}
    assert all('value' in row for row in compared)
    text = files['markdown'].read_text()
    assert all(f'## {step.title}' in text for step in gpu.STEPS.values())
    assert '| batch | eager float32, ms | onnx-cpu float32, ms |' in text


def take(seconds: float) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return gpu.run_apart('machine', gpu.Job('cuda', True), seconds)


def test_gpu_check_keeps_the_rows_of_a_step_that_fails() -> None:
    torch = pytest.importorskip('torch')
    if torch.cuda.is_available():
        pytest.skip('there is a CUDA GPU')
    step, rows = take(60.0)
    assert step['status'] == 'failed'
    assert step['message'] == 'device cuda: torch finds no CUDA GPU'
    assert {'case': 'gpu', 'skipped': 'torch finds no CUDA GPU'} in rows


def test_gpu_check_ends_a_step_at_its_limit() -> None:
    step, _ = take(0.1)  # less than importing torch takes
    assert step['status'] == 'timed out' and step['seconds'] < 10.0


def test_gpu_check_shows_the_gain_of_graphs() -> None:
    rows = [
        {'case': case, 'precision': 'float32', 'batch': batch, 'value': ms * batch, 'unit': 'ms'}
        for batch in (1, 2)
        for case, ms in (('eager', 3.0), ('graph', 1.5))
    ]
    text = gpu.markdown('cuda', [], [{'step': 'engine', **row} for row in rows])
    assert 'eager / graph float32 |' in text
    assert '| 2 | 6 | 3 | 2.00 |' in text
