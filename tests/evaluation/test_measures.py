"""Every metric on a real model, engine and dataset, small enough for a moment."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from mm_perception.bundle import Bundle
from mm_perception.data.dataset import Dataset
from mm_perception.engines.build import build_engine
from mm_perception.engines.engine import Engine
from mm_perception.engines.torch_classifiers import run_batched
from mm_perception.engines.torch_engine import load_model
from mm_perception.evaluation.calibration import (
    measure_latent_calibration,
    measure_novelty,
    measure_reconstruction_calibration,
    measure_uncertainty,
)
from mm_perception.evaluation.frechet import measure_frechet
from mm_perception.evaluation.generation import encode_all, joint_latents, presence
from mm_perception.evaluation.likelihood import measure_likelihood, paper_terms
from mm_perception.evaluation.probe import measure_probe
from mm_perception.evaluation.reconstruction import measure_reconstruction
from mm_perception.lab.tables.features import FeatureEncoder
from mm_perception.modalities import build_modality
from mm_perception.model.build import build_model
from tests.helpers.small_bundle import make_bundle

ROWS = 40
BUNDLE = make_bundle()
OBSERVED = [('image',), ('image', 'sound')]


@pytest.fixture(scope='module')
def engine() -> Engine:
    return build_engine(BUNDLE, 'cpu')


@pytest.fixture(scope='module')
def dataset() -> Dataset:
    generator = np.random.default_rng(0)
    labels = np.arange(ROWS) % 10
    values = {
        m.name: generator.random((ROWS, *build_modality(m).shape), np.float32)
        for m in BUNDLE.spec.modalities
    }
    values['symbol'] = np.eye(10, dtype=np.float32)
    index = {name: np.arange(ROWS) for name in BUNDLE.spec.names} | {'symbol': labels}
    return Dataset(BUNDLE.spec.names, values, index, np.ones((ROWS, 4), bool))


@pytest.mark.parametrize('estimator', ['mean', 'sample'])
def test_measures_of_an_engine_are_finite_and_repeat(
    engine: Engine, dataset: Dataset, estimator: str
) -> None:
    labels = dataset.index['symbol']
    features = {
        m.name: partial(run_batched, FeatureEncoder(m).eval())
        for m in BUNDLE.spec.modalities
        if m.name != 'symbol'
    }

    def measure() -> list:
        return [
            *measure_frechet(engine, dataset, labels, features, OBSERVED, estimator),
            *measure_reconstruction(engine, dataset, BUNDLE.spec, OBSERVED, estimator),
            *measure_probe(engine, dataset, labels, dataset, labels, OBSERVED, estimator),
            *measure_latent_calibration(engine, dataset, OBSERVED, estimator),
            *measure_reconstruction_calibration(engine, dataset, OBSERVED),
            *measure_uncertainty(engine, dataset, OBSERVED),
            *measure_novelty(engine, dataset, dataset, OBSERVED),
        ]

    rows = measure()
    assert rows == measure()
    assert all(math.isfinite(row.value) and row.n in (ROWS, 2 * ROWS) for row in rows)
    targets = {(row.target, row.observed) for row in rows if row.metric == 'mfd'}
    assert targets == {
        ('trajectory', ('image',)),
        ('sound', ('image',)),
        ('trajectory', ('image', 'sound')),
    }


def test_likelihood_of_a_model_is_measured(dataset: Dataset) -> None:
    rows = measure_likelihood(load_model(BUNDLE), dataset, paper_terms('image', 'symbol'), 50)
    found = {(row.target, row.observed): row.value for row in rows}
    assert all(math.isfinite(value) for value in found.values())
    # The label adds its own log probability, at most 0, to that of the image.
    assert found['image,symbol', ('image',)] < found['image', ('image',)]


def test_samples_of_the_joint_latent_are_the_models_own(dataset: Dataset) -> None:
    spec = replace(BUNDLE.spec, family='mmvae')
    torch.manual_seed(0)
    weights = {k: v.numpy() for k, v in build_model(spec).state_dict().items()}
    engine = build_engine(Bundle('mixture', spec, weights), 'cpu')
    codes = {name: code[:1].repeat(4000, 0) for name, code in encode_all(engine, dataset).items()}

    def joint(*names: str, estimator: str = 'mean') -> np.ndarray:
        return joint_latents(engine, codes, presence(spec.names, names), estimator, 0)

    # A mixture publishes one of its experts, and is sampled from all alike.
    both = joint('image', 'sound', estimator='sample').mean(0)
    middle = (joint('image')[0] + joint('sound')[0]) / 2
    assert np.abs(joint('image')[0] - joint('sound')[0]).max() > 0.3
    np.testing.assert_allclose(both, middle, atol=0.1)
