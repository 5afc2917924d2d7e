"""Corrupted data and strange latents: what they are, and a whole training with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mm_perception.config import load_training
from mm_perception.data.dataset import save_dataset
from mm_perception.engines.build import build_engine
from mm_perception.errors import ConfigError
from mm_perception.fusion.confidence import read_confidence
from mm_perception.model.distributions import DiagonalGaussian
from mm_perception.spec import StageSpec
from mm_perception.training import confidence, consistency
from mm_perception.training.run import Run, train
from mm_perception.training.strangeness import (
    VARIANTS,
    Strangers,
    corrupted,
    with_strange_rows,
)
from tests.helpers.toy_training import configuration, recordings, robot

COUNT, SIZE = 3000, 4


def test_corrupted_data_are_other_data_in_the_range_of_the_true_ones() -> None:
    torch.manual_seed(0)
    data = torch.rand(400, 1, 8, 8) * 0.5 + 0.2
    bad = corrupted(data)
    assert bad.shape == data.shape and bad.isfinite().all()
    assert data.min() <= bad.min() and bad.max() <= data.max()
    changed = (bad != data).flatten(1).any(1).float().mean()
    assert 0.8 < changed < 1.0  # some stay as they are


def strangers(share: float, contradictory: float) -> dict[str, DiagonalGaussian]:
    """Clean latents are their position, corrupted ones minus one."""
    place = torch.arange(COUNT, dtype=torch.float32)[:, None].expand(-1, SIZE)
    clean = DiagonalGaussian(place, torch.zeros(COUNT, SIZE))
    bad = DiagonalGaussian(
        torch.full((VARIANTS, COUNT, SIZE), -1.0), torch.zeros(VARIANTS, COUNT, SIZE)
    )
    every = {'sensor': clean, 'word': clean}
    return Strangers(share, every, {'sensor': bad}, contradictory)(
        dict.fromkeys(every, torch.arange(COUNT))
    )


def test_as_many_latents_are_strange_as_asked_for_and_labels_are_never_corrupted() -> None:
    torch.manual_seed(0)
    place = torch.arange(COUNT)[:, None]
    found = strangers(0.4, 0.25)
    clean = {n: (p.mean == place).all(1).float().mean().item() for n, p in found.items()}
    assert clean['sensor'] == pytest.approx(0.6, abs=0.03)
    assert clean['word'] == pytest.approx(0.9, abs=0.03)  # the others are of other rows
    assert torch.isin(found['word'].mean, place.float()).all()
    corrupt = (found['sensor'].mean == -1.0).all(1).float().mean().item()
    assert corrupt == pytest.approx(0.4 * (1.0 - 0.25 - 0.15), abs=0.03)
    honest = strangers(1.0, 0.0)
    assert (honest['word'].mean == place).all()
    assert not (strangers(0.0, 0.5)['sensor'].mean != place).any()


def test_strange_rows_stand_beside_the_true_ones() -> None:
    torch.manual_seed(0)
    data = recordings(0, missing=0.3)
    both = with_strange_rows(data, robot(), 200, seed=1)
    assert len(both) == len(data) + 200
    for name in data.names:
        rows = np.arange(len(data))
        np.testing.assert_array_equal(both.rows(name, rows), data.rows(name, rows))
        assert both.values[name].dtype == data.values[name].dtype
    assert len(both.values['word']) == len(data.values['word'])
    new = both.index['camera'][len(data) :] >= len(data.values['camera'])
    assert 60 < new.sum() < 140
    assert len(with_strange_rows(data, robot(), 10**6, seed=1)) == 2 * len(data)


def test_training_with_strange_sensors_makes_a_bundle_that_is_sure_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the command's own path: weighed fusion, corrected std, confidence."""
    monkeypatch.setattr(consistency, 'STEPS', 200)
    monkeypatch.setattr(confidence, 'LEAST_WRONG', 1)
    for seed, split in enumerate(('train', 'validation', 'test')):
        save_dataset(tmp_path / 'data', split, recordings(seed))
    model = replace(robot(), joint_encoder='weighed', calibrated=True)
    stage = StageSpec(epochs=8, batch_size=64)
    spec = configuration(tmp_path, model=model, strange=0.3, classifiers=stage, calibration=stage)
    run = Run(spec, tmp_path / 'work', quiet=True)
    bundle = train(run, tmp_path / 'robot', 'a test')
    assert bundle.health is not None
    assert read_confidence(bundle.spec, bundle.health) is not None
    engine = build_engine(bundle, 'cpu')
    picture = recordings(3).rows('camera', np.arange(100))
    noise = np.random.default_rng(0).random(picture.shape, np.float32)
    present = np.repeat([[True, False, False]], 100, axis=0)
    stds = []
    for data in (picture, noise):
        codes = {
            m.name: np.zeros((100, engine.code_dims[m.name]), np.float32) for m in model.modalities
        }
        codes['camera'] = engine.encode('camera', data)
        stds.append(engine.fuse(codes, present)[1])
    assert np.log(stds[1]).mean() > np.log(stds[0]).mean()


@pytest.mark.parametrize('line', ['strange: 1.5', 'strange: -0.1', 'strange: 0.3\njoint: true'])
def test_a_share_that_cannot_be_is_one_line(line: str, tmp_path: Path) -> None:
    file = tmp_path / 'robot.yaml'
    file.write_text(
        f'name: robot\ndataset: data\n{line}\n'
        'model:\n  modalities:\n  - {name: a, kind: vector}\n'
    )
    with pytest.raises(ConfigError, match='is no share from 0 to 1'):
        load_training(file)
