"""``evaluate BUNDLE --full``: all metrics of a bundle."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mm_perception.cli import main as frame
from mm_perception.data.dataset import load_dataset, save_dataset
from tests.helpers.tiny_table import write_tiny_table

NAMES = {'camera', 'pen', 'voice', 'word'}


def test_full_reports_every_metric_of_a_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_table(tmp_path)
    test = load_dataset(tmp_path / 'data', 'test')
    stranger = replace(test, values={**test.values, 'voice': 9.0 * test.values['voice']})
    save_dataset(tmp_path / 'data', 'test_stranger', stranger.subset(np.arange(20)))
    monkeypatch.chdir(tmp_path)
    assert frame.main(['train', '--config', 'config.yaml', '--out', 'tiny', '--jobs', '1']) == 0
    capsys.readouterr()
    arguments = ['evaluate', 'tiny', '--dataset', 'data', '--full', '--json', 'all.json']
    assert frame.main([*arguments]) == 0
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
    assert targets['uncertainty'] == targets['uncertainty_growth'] == {'latent'}
    printed = targets.keys() - {'accuracy', 'auroc'}
    assert all(f'| {metric} | ' in shown for metric in printed)
    assert all(row['family'] == 'nexus' for row in rows)
    assert {row['test_set'] for row in rows} == {'test', 'test_stranger'}
    novelty = {tuple(r['observed']): r for r in rows if r['metric'] == 'auroc'}
    assert {row['test_set'] for row in novelty.values()} == {'test_stranger'}
    assert novelty['voice',]['n'] == 60 + 20 and novelty['word',]['n'] == 3 + 3
    assert 0.3 < novelty['camera',]['value'] < 0.7  # these were seen before
    assert len(novelty) == 15 and '| voice | ' in shown and '| word | 0.500 | 6 |' in shown
    assert '## Other metrics on `test_stranger` (20 samples)' in shown
