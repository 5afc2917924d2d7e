"""``evaluate BUNDLE --full``: all metrics of a bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_table import write_tiny_table

from mm_perception.cli import main as frame

NAMES = {'camera', 'pen', 'voice', 'word'}


def test_full_reports_every_metric_of_a_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_table(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert frame.main(['train', '--config', 'config.yaml', '--out', 'tiny', '--jobs', '1']) == 0
    capsys.readouterr()
    arguments = ['evaluate', 'tiny', '--dataset', 'data', '--full', '--json', 'all.json']
    assert frame.main([*arguments, '--device', 'cpu']) == 0
    shown = capsys.readouterr().out
    rows = json.loads(Path('all.json').read_text())['rows']
    targets: dict[str, set[str]] = {}
    for row in rows:
        targets.setdefault(row['metric'], set()).add(row['target'])
    assert targets['accuracy'] == NAMES
    assert targets['mfd'] == targets['mse'] == NAMES - {'word'}
    assert targets['cross_entropy'] == {'word'}
    assert targets['probe_accuracy'] == {'latent'}
    assert targets['calibration_error'] >= {'camera', 'pen', 'voice'}
    assert all(f'| {metric} | ' in shown for metric in targets if metric != 'accuracy')
    assert all(row['test_set'] == 'test' and row['family'] == 'nexus' for row in rows)
