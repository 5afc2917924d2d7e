"""Digits told from raw recordings under strange conditions."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mm_perception.cli.main import main
from mm_perception.evaluation.confidence import AUROC
from mm_perception.lab.digits import condition_table
from mm_perception.lab.digits.condition_table import (
    BEST_SINGLE,
    LABEL,
    PRODUCT,
    Row,
    condition_tables,
    hear,
)
from mm_perception.lab.digits.conditions import CONDITIONS
from mm_perception.modalities import Waveform, build_modality
from mm_perception.spec import ModalitySpec

RATE_HZ = 8000


def test_speech_is_heard_through_the_window_as_a_microphone_gives_it() -> None:
    time_s = np.arange(int(0.4 * RATE_HZ)) / RATE_HZ
    tone = 0.3 * np.sin(2 * np.pi * 500 * time_s) * np.sin(np.pi * time_s / 0.4)
    speech = Waveform(tone.astype(np.float32), RATE_HZ)
    modality = build_modality(ModalitySpec('sound', 'sound', 4))
    found = hear(modality, speech)
    assert found is not None
    direct = modality.to_model(speech)
    assert np.corrcoef(modality.to_model(found).ravel(), direct.ravel())[0, 1] > 0.95
    assert hear(modality, speech, lambda s: Waveform(0 * s.samples, RATE_HZ)) is None


def test_tables_show_the_subset_that_falls_most_behind() -> None:
    rows = [Row('image', 'image', 'noise', 40.0, LABEL, 0.5, 10)]
    for names, fused, best, product in (('image+sound', 0.9, 0.95, 0.9),
                                        ('image+symbol', 0.8, 0.8, 0.99)):  # fmt: skip
        for metric, value in ((LABEL, fused), (BEST_SINGLE, best), (PRODUCT, product)):
            rows.append(Row(names, 'image', 'noise', 40.0, metric, value, 10))
    rows.append(Row('image', 'image', 'noise', 40.0, AUROC, 0.875, 10))
    lines = condition_tables(rows)
    assert '| image | noise | 40 | 50.0 | 0.875 |' in lines
    behind = '| image | noise | 40 | image+sound | 90.0 | 95.0 | image+symbol | 80.0 | 99.0 |'
    assert behind in lines


@pytest.fixture
def few_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {('image', 'grey_paper'), ('sound', 'offset'), ('trajectory', 'jitter')}
    few = [(c, c.levels[0]) for c in CONDITIONS if (c.modality, c.name) in chosen]
    monkeypatch.setattr(condition_table, 'levels', lambda: few)


def test_evaluate_conditions_writes_a_row_for_every_subset(
    real_root, few_conditions, tmp_path, capsys
) -> None:
    file = tmp_path / 'conditions.json'
    options = ['--conditions', '--data', str(real_root), '--per-label', '2', '--json', str(file)]
    assert main(['evaluate', 'mhd', *options]) == 0
    rows = json.loads(file.read_text())['rows']
    assert all(set(row) == set(Row.__annotations__) for row in rows)
    assert all(0 <= row['value'] <= 1 and row['n'] == 20 for row in rows)
    # 15 subsets of usual data, and 8 with each of 3 conditions and of 2 foreign sources.
    assert len([row for row in rows if row['metric'] == LABEL]) == 15 + 8 * 5
    alone = {(r['modality'], r['condition']): r['value'] for r in rows if r['metric'] == LABEL}
    usual = {n for n, condition in alone if condition == 'usual' and '+' not in n}
    assert usual == {'image', 'trajectory', 'sound', 'symbol'}
    assert all(alone[name, 'usual'] >= 0.8 for name in usual)
    assert ('image', 'mnist') in alone and ('sound', 'unheard_speaker') in alone
    assert 'grey_paper | 200' in capsys.readouterr().out


def test_evaluate_conditions_of_another_bundle_is_one_line(real_root, capsys) -> None:
    assert main(['evaluate', 'arm', '--conditions', '--data', str(real_root)]) == 2
    message = capsys.readouterr().err.strip()
    assert 'image, trajectory, sound, symbol' in message and '\n' not in message
