"""Calibration of stds and ranking of uncertainties on known answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from mm_perception.evaluation.calibration import (
    auroc,
    calibration,
    coverage,
    measure_latent_calibration,
    measure_novelty,
    measure_reconstruction_calibration,
    measure_uncertainty,
    uncertainty,
)
from mm_perception.evaluation.generation import Row, subsets
from tests.helpers.linear_gaussian import LOADINGS, NAMES, LinearGaussianEngine, sample_world


def figures(rows: list[Row]) -> dict[tuple[str, str, tuple[str, ...]], float]:
    return {(row.metric, row.target, row.observed): row.value for row in rows}


OBSERVED = [('a',), ('b',), ('a', 'b')]


def test_calibration_of_a_true_normal_is_right() -> None:
    found = calibration(np.random.default_rng(0).standard_normal((500, 200)))
    assert found['calibration_error'] < 0.005
    assert found['z_variance'] == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(('scale', 'covered'), [(2.0, 0.589), (0.5, 0.999)])
def test_calibration_sees_too_small_and_too_large_stds(scale: float, covered: float) -> None:
    z = scale * np.random.default_rng(0).standard_normal(100_000)
    found, levels = calibration(z), np.arange(0.05, 1.0, 0.05)
    assert found['coverage_90'] == pytest.approx(covered, abs=0.005)
    truth = 2.0 * ndtr(ndtri(0.5 + levels / 2.0) / scale) - 1.0
    assert found['calibration_error'] == pytest.approx(abs(truth - levels).mean(), abs=0.005)
    assert found['z_variance'] == pytest.approx(scale**2, rel=0.02)


def test_coverage_counts_by_hand() -> None:
    # Central intervals of 50 % and 95 % end at 0.674 and 1.960.
    found = coverage(np.array([[0.0, -0.6], [1.9, -3.0]]), np.array([0.5, 0.95]))
    np.testing.assert_allclose(found, [0.5, 0.75])


def test_auroc_equals_brute_force_with_ties() -> None:
    generator = np.random.default_rng(0)
    positive, negative = generator.integers(2, 9, 40), generator.integers(0, 7, 70)
    above = (positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean()
    assert auroc(positive, negative) == pytest.approx(above)
    assert auroc(positive, negative) + auroc(negative, positive) == pytest.approx(1.0)


def test_auroc_ends() -> None:
    low, high = np.arange(5.0), np.arange(5.0, 9.0)
    assert (auroc(high, low), auroc(low, high), auroc(low, low)) == (1.0, 0.0, 0.5)


def test_uncertainty_is_the_mean_log_std() -> None:
    np.testing.assert_allclose(uncertainty(np.exp([[1.0, 3.0], [0.0, -2.0]])), [2.0, -1.0])


@pytest.mark.parametrize(('scale', 'z_variance'), [(1.0, 1.0), (0.5, 4.0)])
def test_latents_of_an_exact_posterior_are_calibrated(scale: float, z_variance: float) -> None:
    _, dataset = sample_world(4000)
    engine = LinearGaussianEngine()
    honest = figures(measure_latent_calibration(engine, dataset, subsets(NAMES)[:-1]))
    for subset in subsets(NAMES)[:-1]:
        assert honest['calibration_error', 'latent', subset] < 0.02
        assert honest['coverage_90', 'latent', subset] == pytest.approx(0.9, abs=0.02)
    mean = measure_latent_calibration(
        LinearGaussianEngine(scale), dataset, [('c',)], estimator='mean'
    )
    # The mean given all varies by what c alone leaves open, less what all leave open.
    gain_c, gain_all = np.array([2.0, 2.0, 0.36]), np.array([18.0, 7.0, 9.36])
    expected = (1.0 - (1.0 + gain_c) / (1.0 + gain_all)).mean() * z_variance
    assert figures(mean)['z_variance', 'latent', ('c',)] == pytest.approx(expected, rel=0.05)


def test_reconstructions_are_spread_as_the_posterior_says() -> None:
    _, dataset = sample_world(2000)
    rows = measure_reconstruction_calibration(
        LinearGaussianEngine(), dataset, [('b',)], rows=2000, samples=64
    )
    found = figures(rows)
    # From b nothing is known of dimension 0: a varies by loading 2, plus the data's noise.
    spread = np.square(LOADINGS['a']) @ [1.0, 0.2, 0.1]
    expected = np.sqrt((spread + 0.25).sum() / spread.sum())
    assert found['error_per_std', 'a', ('b',)] == pytest.approx(expected, rel=0.05)
    assert found['z_variance', 'a', ('b',)] > 1.0
    assert {row.n for row in rows} == {2000}


def test_uncertainty_grows_when_sensors_fall_away() -> None:
    _, dataset = sample_world(50)
    found = figures(measure_uncertainty(LinearGaussianEngine(), dataset, subsets(NAMES)))
    growth = [found['uncertainty_growth', 'latent', s] for s in subsets(NAMES) if len(s) > 1]
    assert growth == [1.0] * 4
    assert found['uncertainty', 'latent', NAMES] < found['uncertainty', 'latent', ('a',)]


def test_uncertainty_counts_data_once() -> None:
    _, dataset = sample_world(50)
    repeated = dataset.subset(np.arange(100) % 50)
    few = replace(repeated, index={**repeated.index, 'a': np.arange(100) % 5})
    found = {r.observed: r.n for r in measure_uncertainty(LinearGaussianEngine(), few, OBSERVED)}
    assert found == {('a',): 5, ('b',): 50, ('a', 'b'): 50}


class Familiar(LinearGaussianEngine):
    """An engine that is less sure of data that are large."""

    def fuse(self, latents, present):
        mean, std = super().fuse(latents, present)
        return mean, std * (1.0 + np.abs(latents['a']).mean(1, keepdims=True))


def test_novelty_is_seen_in_the_std_and_counts_data_once() -> None:
    _, known = sample_world(100)
    _, unknown = sample_world(60, seed=1)
    far = replace(unknown, values={n: 50.0 * v for n, v in unknown.values.items()})
    engine = Familiar()
    repeated = far.subset(np.arange(120) % 60)
    row = measure_novelty(engine, known, repeated, [('a',)])[0]
    assert (row.metric, row.n) == ('auroc', 160)
    assert row.value > 0.95
    same = measure_novelty(engine, known, known, [('a',)])[0]
    assert same.value == pytest.approx(0.5)


def test_reconstruction_calibration_is_fixed_by_the_seed() -> None:
    _, dataset = sample_world(100)
    rows = measure_reconstruction_calibration(LinearGaussianEngine(), dataset, [('a',)])
    metrics = {'calibration_error', 'coverage_90', 'z_variance', 'error_per_std'}
    assert {row.metric for row in rows} == metrics
    assert rows == measure_reconstruction_calibration(LinearGaussianEngine(), dataset, [('a',)])
