"""The linear probe and the latent factorisation on known answers."""

from __future__ import annotations

import numpy as np
import pytest

from mm_perception.evaluation.generation import subsets
from mm_perception.evaluation.probe import (
    latent_factorisation,
    measure_probe,
    probe_accuracy,
    sharedness,
)
from tests.helpers.linear_gaussian import NAMES, LinearGaussianEngine, sample_world


def test_probe_finds_a_linear_label_whatever_its_scale() -> None:
    generator = np.random.default_rng(0)
    latents = generator.standard_normal((3000, 5)) * [1.0, 1e3, 1e-3, 1.0, 0.0] + 7.0
    labels = (latents[:, 1] - 7.0 > 0) * 2 + (latents[:, 2] - 7.0 > 0)
    train, test = slice(0, 2000), slice(2000, None)
    assert probe_accuracy(latents[train], labels[train], latents[test], labels[test]) > 0.98


def test_probe_is_at_chance_without_information() -> None:
    generator = np.random.default_rng(0)
    latents, labels = generator.standard_normal((4000, 5)), generator.integers(0, 4, 4000)
    found = probe_accuracy(latents[:2000], labels[:2000], latents[2000:], labels[2000:])
    assert found == pytest.approx(0.25, abs=0.04)


def test_probe_cannot_read_what_is_not_linear() -> None:
    latents = np.random.default_rng(0).standard_normal((4000, 2))
    labels = (latents[:, 0] * latents[:, 1] > 0).astype(int)
    found = probe_accuracy(latents[:2000], labels[:2000], latents[2000:], labels[2000:])
    assert found < 0.7


def test_probe_is_measured_per_subset() -> None:
    latents, train = sample_world(3000)
    more, test = sample_world(1000, seed=1)
    rows = measure_probe(
        LinearGaussianEngine(),
        train,
        (latents[:, 2] > 0).astype(int),
        test,
        (more[:, 2] > 0).astype(int),
        subsets(NAMES),
    )
    found = {row.observed: row.value for row in rows}
    assert list(found) == subsets(NAMES)
    assert found[('a',)] == pytest.approx(0.5, abs=0.06)  # says nothing of this dimension
    # The angle between the latent and its estimate from b: tan = noise / loading.
    assert found[('b',)] == pytest.approx(1.0 - np.arctan(0.5 / 1.5) / np.pi, abs=0.03)
    assert all(row.n == 1000 and row.target == 'latent' for row in rows)


def test_factorisation_names_what_each_dimension_drives() -> None:
    _, dataset = sample_world(200)
    found = latent_factorisation(LinearGaussianEngine(), dataset, rows=50)
    # The variance that a dimension causes is the squared length of its column of loadings.
    expected = np.array([[4.0, 0.0, 0.5], [0.25, 1.0, 0.5], [0.0, 2.25, 0.09]])
    np.testing.assert_allclose(found.influence, expected / expected.sum(0), rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(found.influence.sum(0), 1.0)
    assert found.names == NAMES and 0.0 < found.sharedness < 1.0


def test_factorisation_has_the_kl_of_each_modality_alone() -> None:
    _, dataset = sample_world(20000)
    kl = latent_factorisation(LinearGaussianEngine(), dataset, rows=20000, steps=2).kl
    # Averaged over the data, the KL divergence is the information gained: -log std.
    gains = {'a': (4.0, 0.25, 0.0), 'b': (0.0, 1.0, 2.25), 'c': (0.5, 0.5, 0.09)}
    expected = 0.5 * np.log1p(np.array(list(gains.values())).T / 0.25)
    np.testing.assert_allclose(kl, expected, atol=0.03)


def test_sharedness_goes_from_private_to_shared() -> None:
    assert sharedness(np.eye(3)) == pytest.approx(0.0)
    assert sharedness(np.full((5, 3), 0.2)) == pytest.approx(1.0)
    assert sharedness(np.array([[1.0, 0.0], [0.0, 0.5], [0.0, 0.5]])) == pytest.approx(0.0)
    half = sharedness(np.array([[0.5, 0.5], [0.5, 0.0], [0.0, 0.5]]))
    assert half == pytest.approx(0.5)
