"""The linear probe on known answers."""

from __future__ import annotations

import numpy as np
import pytest

from mm_perception.evaluation.generation import subsets
from mm_perception.evaluation.probe import measure_probe, probe_hits
from tests.helpers.linear_gaussian import NAMES, LinearGaussianEngine, sample_world


def test_probe_finds_a_linear_label_whatever_its_scale() -> None:
    generator = np.random.default_rng(0)
    latents = generator.standard_normal((3000, 5)) * [1.0, 1e3, 1e-3, 1.0, 0.0] + 7.0
    labels = (latents[:, 1] - 7.0 > 0) * 2 + (latents[:, 2] - 7.0 > 0)
    train, test = slice(0, 2000), slice(2000, None)
    found = probe_hits(latents[train], labels[train], latents[test], labels[test])
    assert found.mean() > 0.98


def test_probe_is_at_chance_without_information() -> None:
    generator = np.random.default_rng(0)
    latents, labels = generator.standard_normal((4000, 5)), generator.integers(0, 4, 4000)
    found = probe_hits(latents[:2000], labels[:2000], latents[2000:], labels[2000:])
    assert found.mean() == pytest.approx(0.25, abs=0.04)


def test_probe_cannot_read_what_is_not_linear() -> None:
    latents = np.random.default_rng(0).standard_normal((4000, 2))
    labels = (latents[:, 0] * latents[:, 1] > 0).astype(int)
    found = probe_hits(latents[:2000], labels[:2000], latents[2000:], labels[2000:])
    assert found.mean() < 0.7


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
