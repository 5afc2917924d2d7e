"""Recordings of an environment: rows, times, what was missing, and where."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest

from mm_perception.config import load_training
from mm_perception.data.dataset import load_dataset, save_dataset
from mm_perception.errors import ConfigError, DataError
from mm_perception.modalities import build_modality
from mm_perception.resources import share_directory
from mm_perception.rl.failures import Failures, SensorFailures, Spell
from mm_perception.rl.pendulum import ID, draw
from mm_perception.rl.record import build_states, record

SPEC = load_training(share_directory() / 'config' / 'pendulum.yaml').model


def test_episodes_become_recordings(tmp_path: Path):
    env = SensorFailures(gymnasium.make(ID), Failures((Spell(('joints',), begin=3, end=5),)))
    dataset = record(env, lambda seen: np.array([seen['joints'][2]]), SPEC, 2, 20.0, seed=6)
    save_dataset(tmp_path, 'train', dataset)
    dataset = load_dataset(tmp_path, 'train')
    recordings = dataset.recordings()
    assert [len(each.rows) for each in recordings] == [200, 200]
    np.testing.assert_allclose(recordings[1].time_s[:3], [0.0, 0.05, 0.1])
    joints = dataset.present[:200, SPEC.names.index('joints')]
    assert np.flatnonzero(~joints).tolist() == [3, 4] and dataset.present[:, 0].all()
    first, _ = gymnasium.make(ID).reset(seed=7)
    for modality in SPEC.modalities:
        expected = build_modality(modality).to_model(first[modality.name])
        found = dataset.rows(modality.name, np.array([200]))[0]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_actions_by_chance_follow_the_seed():
    runs = [record(gymnasium.make(ID), None, SPEC, 1, 20.0, seed=s) for s in (1, 1, 2)]
    values = [run.values['joints'] for run in runs]
    assert np.array_equal(values[0], values[1]) and not np.array_equal(values[0], values[2])


def test_states_of_the_pendulum_cover_all_angles_and_velocities(tmp_path: Path):
    about = build_states(tmp_path / 'data', 'pendulum', 400, 3, draw)
    assert {k: v['rows'] for k, v in about['splits'].items()} == {
        'train': 400, 'validation': 40, 'test': 40,
    }  # fmt: skip
    joints = load_dataset(tmp_path / 'data', 'train').values['joints']
    assert joints.min() < 0.02 and joints.max() > 0.98 and abs(joints.mean() - 0.5) < 0.05
    again = build_states(tmp_path / 'again', 'pendulum', 400, 3, draw)
    assert about['splits']['train']['sha256'] == again['splits']['train']['sha256']


def test_recordings_that_cannot_be_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match='give 1 or more'):
        record(gymnasium.make(ID), None, SPEC, 0, 20.0)
    with pytest.raises(ConfigError, match='a Dict of Box'):
        record(gymnasium.make('Pendulum-v1'), None, SPEC, 1, 20.0)
    with pytest.raises(DataError, match='needs 100 states or more'):
        build_states(tmp_path / 'data', 'pendulum', 5, 0, draw)
