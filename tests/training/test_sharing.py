"""What one modality tells of the others: words that its autoencoder takes for noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mm_perception.config import load_training
from mm_perception.data.dataset import Dataset, save_dataset
from mm_perception.engines.build import build_engine
from mm_perception.errors import ConfigError
from mm_perception.fusion.consistency import feature_count, features_of
from mm_perception.model.build import build_model
from mm_perception.model.nexus import Nexus
from mm_perception.spec import ModalitySpec, ModelSpec, StageSpec
from mm_perception.training import consistency
from mm_perception.training.kept import find_kept
from mm_perception.training.run import Run, train
from tests.helpers.toy_training import configuration, robot

ROWS, ELEMENTS = 1200, 24
STAGE = StageSpec(epochs=12, batch_size=64, warm_up_epochs=3)


def hidden_word(seed: int) -> Dataset:
    """A word, and a sensor in which it is weaker than two waves that mean nothing."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, ROWS)
    place = np.linspace(0.0, 2.0 * np.pi, ELEMENTS)
    waves = np.stack([np.sin(place), np.cos(place)])
    sensor = 0.5 + generator.uniform(-0.2, 0.2, (ROWS, 2)) @ waves
    sensor[:, ::2] += 0.03 * (labels[:, None] - 1)
    sensor += 0.015 * generator.standard_normal(sensor.shape)
    return Dataset(
        names=('sensor', 'word'),
        values={'sensor': sensor.astype(np.float32), 'word': np.eye(3, dtype=np.float32)},
        index={'sensor': np.arange(ROWS), 'word': labels},
        present=np.ones((ROWS, 2), bool),
    )


def model(shared_dim: int) -> ModelSpec:
    dense = {'type': 'dense', 'hidden': (32, 32)}
    sensor = ModalitySpec(
        'sensor',
        'vector',
        2,
        preprocessing={'low': (0.0,) * ELEMENTS, 'high': (1.0,) * ELEMENTS},
        network=dense,
        shared_dim=shared_dim,
        likelihood='optimal_sigma',
    )
    word = robot().modality('word')
    return replace(robot(), modalities=(sensor, word), joint_encoder='weighed', calibrated=True)


def told(folder: Path, shared_dim: int) -> float:
    """Share of the words that a whole bundle tells from the sensor alone, on test rows."""
    spec = configuration(
        folder,
        model=model(shared_dim),
        strange=0.3,
        unimodal={'sensor': STAGE, 'word': configuration(folder).unimodal['word']},
        shared={'sensor': STAGE} if shared_dim else {},
        top=STAGE,
        classifiers=STAGE,
        calibration=STAGE,
    )
    bundle = train(Run(spec, folder / f'work{shared_dim}', quiet=True), folder / 'bundle', 'test')
    engine, test = build_engine(bundle, 'cpu'), hidden_word(9)
    code = engine.encode('sensor', test.rows('sensor', np.arange(ROWS)))
    none = np.zeros((ROWS, engine.code_dims['word']), np.float32)
    present = np.repeat([[True, False]], ROWS, axis=0)
    joint, _ = engine.fuse({'sensor': code, 'word': none}, present)
    assert feature_count(engine, bundle.spec, 'sensor') == 4 + 2 + shared_dim
    assert features_of(engine, bundle.spec, 'sensor', code, joint).shape[1] == 6 + shared_dim
    kept = find_kept(bundle.spec, bundle)
    assert not any('shared' in name for name in kept.weights['sensor'])
    read = engine.decode('word', joint).argmax(axis=1)
    return float((read == test.index['word']).mean())


def test_what_the_autoencoder_loses_is_told_by_what_is_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consistency, 'STEPS', 200)
    for seed, split in enumerate(('train', 'validation', 'test')):
        save_dataset(tmp_path / 'data', split, hidden_word(seed))
    assert told(tmp_path, 0) < 0.7
    assert told(tmp_path, 6) > 0.85


def test_what_is_shared_stands_behind_the_latent_and_changes_no_posterior() -> None:
    torch.manual_seed(0)
    made = build_model(replace(model(6), calibrated=False)).eval()
    assert isinstance(made, Nexus)
    vae, data = made.unimodal['sensor'], torch.rand(5, ELEMENTS)
    encoding, posterior = vae.encode(data), vae.posterior(data)
    torch.testing.assert_close(encoding.mean, posterior.mean)
    code = made.encode('sensor', data)
    torch.testing.assert_close(code[:, :2], made.top.scale['sensor'](posterior.mean))
    torch.testing.assert_close(code[:, 2:8], encoding[2])
    assert code.shape[1] == made.code_dims['sensor'] == 2 + 6 + made.top.joint.message_dim


@pytest.mark.parametrize('family', ['mvae_flat', 'mhvae'])
def test_models_of_one_step_take_nothing_shared(family: str, tmp_path: Path) -> None:
    save_dataset(tmp_path / 'data', 'train', hidden_word(0))
    one_step = replace(model(6), family=family, joint_encoder='', calibrated=False)
    spec = configuration(tmp_path, model=one_step, unimodal={})
    with pytest.raises(ConfigError, match=r'sensor\.shared_dim: only where levels train apart'):
        train(Run(spec, tmp_path / 'work', quiet=True), tmp_path / 'bundle', 'test')


def test_a_stage_of_what_shares_nothing_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / 'robot.yaml'
    file.write_text(
        'name: robot\ndataset: data\nshared:\n  a: {epochs: 3}\n'
        'model:\n  modalities:\n  - {name: a, kind: vector}\n'
    )
    with pytest.raises(ConfigError, match=r'shared\.a: .* none of that name with a shared_dim'):
        load_training(file)
