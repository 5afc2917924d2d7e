"""Frechet distances on known answers."""

from __future__ import annotations

import numpy as np
import pytest

from mm_perception.errors import DataError
from mm_perception.evaluation.frechet import (
    frechet_distance,
    measure_frechet,
    modality_frechet_distance,
)
from mm_perception.evaluation.generation import subsets
from tests.helpers.linear_gaussian import LOADINGS, NAMES, LinearGaussianEngine, sample_world

SIZE = 6


def covariance(seed: int, rank: int = SIZE) -> np.ndarray:
    factor = np.random.default_rng(seed).standard_normal((SIZE, rank))
    return factor @ factor.T


def test_frechet_distance_of_diagonal_gaussians_is_the_closed_form() -> None:
    generator = np.random.default_rng(0)
    mean_a, mean_b = generator.standard_normal((2, SIZE))
    std_a, std_b = generator.uniform(0.1, 3.0, (2, SIZE))
    expected = np.square(mean_a - mean_b).sum() + np.square(std_a - std_b).sum()
    found = frechet_distance(mean_a, np.diag(std_a**2), mean_b, np.diag(std_b**2))
    assert found == pytest.approx(expected, rel=1e-12)


def test_frechet_distance_agrees_with_the_root_of_the_product() -> None:
    a, b = covariance(1), covariance(2)
    roots = np.sqrt(np.linalg.eigvals(a @ b).real)
    expected = np.trace(a) + np.trace(b) - 2.0 * roots.sum()
    assert frechet_distance(np.zeros(SIZE), a, np.zeros(SIZE), b) == pytest.approx(expected)


@pytest.mark.parametrize('rank', [SIZE, 2])
def test_frechet_distance_is_zero_for_equals_and_symmetric(rank: int) -> None:
    a, b = covariance(1, rank), covariance(2, rank)
    zero, one = np.zeros(SIZE), np.ones(SIZE)
    assert frechet_distance(one, a, one, a) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(zero, a, one, b) == pytest.approx(frechet_distance(one, b, zero, a))


def test_frechet_distance_of_a_translation_is_its_squared_length() -> None:
    shift = np.arange(SIZE, dtype=float)
    found = frechet_distance(np.zeros(SIZE), covariance(3, 1), shift, covariance(3, 1))
    assert found == pytest.approx(np.square(shift).sum())


def test_frechet_distance_to_a_single_point_is_the_whole_spread() -> None:
    a = covariance(4)
    found = frechet_distance(np.zeros(SIZE), a, np.zeros(SIZE), np.zeros((SIZE, SIZE)))
    assert found == pytest.approx(np.trace(a))


def test_modality_frechet_distance_averages_classes_and_differs_from_overall() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], 400)
    real = generator.standard_normal((800, 2)) + 10.0 * labels[:, None]
    moved = real + np.where(labels[:, None] == 0, 3.0, 0.0)
    per_class, _ = modality_frechet_distance(real, moved, labels, labels)
    assert per_class == {0: pytest.approx(18.0), 1: pytest.approx(0.0, abs=1e-9)}
    per_class, overall = modality_frechet_distance(real, real, labels, 1 - labels)
    assert overall == pytest.approx(0.0, abs=1e-9)
    assert sum(per_class.values()) / 2 == pytest.approx(200.0, rel=0.05)


def test_modality_frechet_distance_names_a_class_that_is_too_small() -> None:
    features = np.zeros((3, 2))
    with pytest.raises(DataError, match='class 1 has fewer than two'):
        modality_frechet_distance(features, features, np.array([0, 0, 1]), np.array([0, 0, 1]))


def test_frechet_is_measured_per_subset_and_target() -> None:
    latents, dataset = sample_world(1000)
    labels = (latents[:, 0] > 0).astype(int)
    features = {'b': lambda arrays: arrays}  # the data themselves
    observed = subsets(NAMES)[:-1]
    rows = measure_frechet(LinearGaussianEngine(), dataset, labels, features, observed)
    assert {(r.metric, r.target, r.observed) for r in rows} == {
        (metric, 'b', subset)
        for metric in ('mfd', 'mfd_overall')
        for subset in (('a',), ('c',), ('a', 'c'))
    }
    truth = dataset.values['b']
    by_metric = {r.metric: r for r in rows if r.observed == ('a',)}
    from_a = by_metric['mfd_overall']
    known = (
        dataset.values['a'] @ LOADINGS['a'] / 0.25 / (1.0 + np.square(LOADINGS['a']).sum(0) / 0.25)
    )
    made = known @ LOADINGS['b'].T
    expected = frechet_distance(
        truth.mean(0), np.cov(truth, rowvar=False), made.mean(0), np.cov(made, rowvar=False)
    )
    assert from_a.value == pytest.approx(expected, rel=1e-3)
    per_class, _ = modality_frechet_distance(truth, made, labels, labels)
    assert by_metric['mfd'].value == pytest.approx(sum(per_class.values()) / 2, rel=1e-3)
    sampled = measure_frechet(
        LinearGaussianEngine(), dataset, labels, features, [('a',)], 'sample'
    )
    assert sampled[1].value < 0.2 * from_a.value  # samples spread as the data do
