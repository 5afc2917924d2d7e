"""Reconstruction errors on known answers."""

from __future__ import annotations

import numpy as np
import pytest

from mm_perception.data.dataset import Dataset
from mm_perception.evaluation.reconstruction import (
    cross_entropy,
    mean_absolute_error,
    mean_squared_error,
    measure_reconstruction,
)
from mm_perception.spec import ModalitySpec, ModelSpec
from tests.helpers.linear_gaussian import NAMES, NOISE, SPEC, LinearGaussianEngine, sample_world


def test_errors_by_hand() -> None:
    truth, made = np.zeros((2, 2, 2), np.float32), np.full((2, 2, 2), 0.5, np.float32)
    made[1, 0, 0] = -0.5
    np.testing.assert_allclose(mean_squared_error(truth, made), [0.25, 0.25])
    np.testing.assert_allclose(mean_absolute_error(truth, made), [0.5, 0.5])


def test_cross_entropy_is_of_the_true_class() -> None:
    truth = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    made = np.array([[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]])
    np.testing.assert_allclose(cross_entropy(truth, made), [np.log(4), np.log(2), 12 * np.log(10)])


def test_reconstruction_error_of_a_known_posterior() -> None:
    _, dataset = sample_world(3000)
    rows = measure_reconstruction(LinearGaussianEngine(), dataset, SPEC, [('b',), NAMES])
    assert len(rows) == 2 * 3 * 2
    found = {(row.metric, row.target, row.observed): row for row in rows}
    # From b: dimension 0 is unknown, dimension 1 known to a variance of 1/5.
    row = found['mse', 'a', ('b',)]
    expected = (4.0 + 0.25 / 5.0 + 4 * NOISE**2) / 4
    assert row.value == pytest.approx(expected, abs=4 * row.standard_error)
    assert 0.0 < row.standard_error < 0.05 * row.value
    assert found['mse', 'a', NAMES].value < found['mse', 'a', ('b',)].value
    assert found['mae', 'a', NAMES].value < found['mae', 'a', ('b',)].value


def test_reconstruction_from_samples_is_worse_and_fixed_by_the_seed() -> None:
    _, dataset = sample_world(500)
    made = [
        measure_reconstruction(LinearGaussianEngine(), dataset, SPEC, [('b',)], estimator, seed)
        for estimator, seed in (('mean', 0), ('sample', 0), ('sample', 0), ('sample', 1))
    ]
    assert made[1] == made[2] != made[3]
    assert made[1][0].value > 1.5 * made[0][0].value


class Certain:
    """An engine that always gives 0.8 to the first of two classes."""

    name, device = 'certain', 'cpu'

    def encode(self, name, data):
        return data

    def fuse(self, latents, present):
        return latents['word'], np.ones_like(latents['word'])

    def decode(self, name, joint):
        return np.tile(np.float32([0.8, 0.2]), (len(joint), 1))


def test_reconstruction_of_symbols_is_measured_by_cross_entropy() -> None:
    words = np.array([0, 0, 0, 1])
    dataset = Dataset(('word',), {'word': np.eye(2)}, {'word': words}, np.ones((4, 1), bool))
    symbol = ModalitySpec('word', 'symbol', 2, {'labels': ('yes', 'no')}, likelihood='categorical')
    (row,) = measure_reconstruction(Certain(), dataset, ModelSpec((symbol,)), [('word',)])
    assert (row.metric, row.n) == ('cross_entropy', 4)
    assert row.value == pytest.approx(-(3 * np.log(0.8) + np.log(0.2)) / 4)
