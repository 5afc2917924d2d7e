"""What all metrics share: subsets, batches and samples."""

from __future__ import annotations

import numpy as np
import pytest

from mm_perception.errors import ConfigError
from mm_perception.evaluation.generation import (
    cross_targets,
    decode_all,
    encode_all,
    fuse_all,
    generate,
    joint_latents,
    presence,
)
from mm_perception.modalities.base import Array
from tests.helpers.linear_gaussian import NAMES, LinearGaussianEngine, sample_world

ROWS = 2500


class Noisy(LinearGaussianEngine):
    """An engine with noise in the latents below the joint one."""

    def decode_sample(self, name: str, joint: Array, seed: int) -> Array:
        made = self.decode(name, joint)
        return made + np.random.default_rng(seed).standard_normal(made.shape, np.float32)


def test_cross_targets_are_those_not_observed() -> None:
    assert cross_targets(NAMES, [('a',), ('a', 'c')]) == [
        (('a',), ('b', 'c')),
        (('a', 'c'), ('b',)),
    ]


def test_joint_samples_are_spread_as_the_posterior_and_fixed_by_seed_and_subset() -> None:
    engine, (_, dataset) = Noisy(), sample_world(ROWS)
    codes = encode_all(engine, dataset)
    present = presence(NAMES, ('b',))
    mean, std = fuse_all(engine, codes, present)
    np.testing.assert_array_equal(joint_latents(engine, codes, present, 'mean', 0), mean)
    drawn = joint_latents(engine, codes, present, 'sample', 0)
    assert ((drawn - mean) / std).std() == pytest.approx(1.0, abs=0.03)
    np.testing.assert_array_equal(joint_latents(engine, codes, present, 'sample', 0), drawn)
    assert not np.allclose(joint_latents(engine, codes, present, 'sample', 1), drawn)
    with pytest.raises(ConfigError, match='unknown estimator "samples"; known: mean'):
        joint_latents(engine, codes, present, 'samples', 0)


def test_lower_latents_are_sampled_anew_in_every_batch() -> None:
    engine, joint = Noisy(), np.zeros((ROWS, 3), np.float32)
    means = list(decode_all(engine, 'a', joint, 'mean', 0))
    assert np.concatenate([rows for rows, _ in means]).tolist() == list(range(ROWS))
    assert all(not arrays.any() for _, arrays in means)
    first, second = (arrays for _, arrays in decode_all(engine, 'a', joint, 'sample', 0))
    assert first.std() == pytest.approx(1.0, abs=0.05)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.1


def test_a_calibrated_spread_is_drawn_only_for_ancestral_samples() -> None:
    engine, joint = Noisy(), np.zeros((ROWS, 3), np.float32)
    engine.noise_dims = {'a': 2}
    for estimator, drawn in (('mean', False), ('sample', False), ('ancestral', True)):
        made = [arrays for _, arrays in decode_all(engine, 'a', joint, estimator, 0)]
        assert np.concatenate(made).any() == drawn


def test_generation_does_not_depend_on_what_else_is_asked() -> None:
    engine, (_, dataset) = Noisy(), sample_world(ROWS)

    def made(wanted, asked):
        for one in generate(engine, dataset, wanted, 'sample', 3, 'test'):
            arrays = np.concatenate([part for _, part in one.batches])
            if (one.observed, one.target) == asked:
                return arrays

    few = made([(('b',), ('c',))], (('b',), 'c'))
    np.testing.assert_array_equal(few, made(cross_targets(NAMES, [('a',), ('b',)]), (('b',), 'c')))
