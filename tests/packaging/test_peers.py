"""The comparison with MultiVae: its script and tables work where MultiVae is not installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / 'checks' / 'peers'


def result(case: str, seed: int, seconds: float, right: float) -> dict[str, Any]:
    return {
        'case': case,
        'title': case.title(),
        'seed': seed,
        'rows': 100,
        'epochs': 2,
        'seconds': seconds,
        'cpu_seconds': seconds,
        'parameters': 1_500_000,
        'latency_ms': {'p50': 1.0, 'p99': 2.0},
        'coherence': {'sound': {'1': right, '2': right, '3': 1.0}},
        'frechet': {'sound': {'1': 3.0, '3': 1.5}},
    }


def test_peers_explain_themselves_without_multivae() -> None:
    pytest.importorskip('torch', reason='torch is not installed')
    command = [sys.executable, str(FOLDER / 'run.py'), '--help']
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert shown.returncode == 0, shown.stderr
    assert '--rows' in shown.stdout


def test_peers_tables_give_ratio_and_spread_over_seeds() -> None:
    spec = importlib.util.spec_from_file_location('peer_tables', FOLDER / 'tables.py')
    assert spec and spec.loader
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    text = tables.markdown(
        {
            'settings': {
                'rows': 100,
                'epochs': 2,
                'batch_size': 10,
                'seeds': 2,
                'threads': 1,
                'test_rows': 50,
            },
            'classifier_accuracy': {'sound': 0.995},
            'results': [
                result('multivae_nexus', 0, 10.0, 0.5),
                result('ours', 0, 2.0, 0.8),
                result('multivae_nexus', 1, 12.0, 0.5),
                result('ours', 1, 4.0, 0.9),
            ],
        }
    )
    line = '| Ours | 3.0 ± 1.0 | 3.0 ± 1.0 | 75 ± 25 | 4.00 ± 1.00 x | 1.50 M |'
    assert line in text
    assert '| Ours | 85.0 ± 5.0 / 100.0 ± 0.0 | 3.00 ± 0.00 / 1.50 ± 0.00 |' in text
