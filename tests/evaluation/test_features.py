"""Feature encoders: what they learn, and that they are kept."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mm_perception.data.dataset import Dataset
from mm_perception.lab.tables.features import FeatureEncoder, train_features
from mm_perception.modalities import build_modality
from mm_perception.spec import ModalitySpec, ModelSpec, StageSpec, TrainingSpec
from tests.helpers.small_bundle import small_spec

STAGE = StageSpec(epochs=40, batch_size=64)
LIMITS = {'low': (0.0,) * 6, 'high': (1.0,) * 6}
SPEC = TrainingSpec(
    name='features',
    dataset='',
    model=ModelSpec(
        (
            ModalitySpec('arm', 'vector', 2, LIMITS, {'hidden': (32,)}),
            ModalitySpec('word', 'symbol', 2, {'labels': ('yes', 'no')}),
        )
    ),
    top=StageSpec(epochs=1),
    unimodal={},
)


@pytest.fixture(scope='module')
def dataset() -> Dataset:
    generator = np.random.default_rng(0)
    latents = generator.uniform(0.0, 1.0, (600, 2))
    mixed = latents @ generator.dirichlet(np.ones(2), 6).T
    words = generator.integers(0, 2, 600)
    return Dataset(
        ('arm', 'word'),
        {'arm': mixed.astype(np.float32), 'word': np.eye(2, dtype=np.float32)},
        {'arm': np.arange(600), 'word': words},
        np.ones((600, 2), bool),
    )


@pytest.mark.parametrize('modality', small_spec().modalities, ids=lambda m: m.name)
def test_features_have_the_size_of_the_latent(modality: ModalitySpec) -> None:
    encoder = FeatureEncoder(modality).eval()
    data = torch.rand(3, *build_modality(modality).shape)
    features = encoder(data)
    assert features.shape == (3, modality.latent_dim)
    assert encoder.reconstruct(features).shape == data.shape


def test_features_hold_what_is_needed_to_rebuild_the_data(
    dataset: Dataset, tmp_path: Path
) -> None:
    features = train_features(SPEC, dataset, tmp_path, stage=STAGE, quiet=True)
    assert list(features) == ['arm']  # a symbol has none
    codes = features['arm'](dataset.values['arm'])
    assert codes.shape == (600, 2)
    design = np.concatenate([codes, codes**2, np.ones((600, 1))], axis=1)
    truth = dataset.values['arm']
    fitted = design @ np.linalg.lstsq(design, truth, rcond=None)[0]
    assert np.square(truth - fitted).mean() < 0.1 * truth.var(0).mean()


def test_features_are_kept_and_change_with_what_decides_them(
    dataset: Dataset, tmp_path: Path
) -> None:
    short = replace(STAGE, epochs=2)
    first = train_features(SPEC, dataset, tmp_path, stage=short, quiet=True)
    (file,) = tmp_path.glob('arm.features.*.safetensors')
    written = file.stat().st_mtime_ns
    second = train_features(SPEC, dataset, tmp_path, stage=short, quiet=True)
    assert file.stat().st_mtime_ns == written
    values = dataset.values['arm']
    np.testing.assert_array_equal(first['arm'](values), second['arm'](values))
    changed = replace(dataset, values={**dataset.values, 'arm': values[::-1].copy()})
    train_features(SPEC, changed, tmp_path, stage=short, quiet=True)
    train_features(replace(SPEC, seed=1), dataset, tmp_path, stage=short, quiet=True)
    assert len(list(tmp_path.glob('*.safetensors'))) == 3
    assert math.isfinite(float(second['arm'](values).sum()))
