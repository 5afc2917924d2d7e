"""The latent as an observation: the same as the front door's, of one environment or many."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import mm_perception
from mm_perception.errors import ConfigError
from mm_perception.fusion.health import PRIOR
from mm_perception.rl.failures import (
    FROZEN,
    Failures,
    RandomSpells,
    SensorFailures,
    Spell,
    VectorSensorFailures,
)
from mm_perception.rl.observation import (
    QUICK_CHECKS,
    FusedObservation,
    VectorFusedObservation,
)
from mm_perception.rl.pendulum import ID
from mm_perception.rl.policy import PARTS

ALL = ('camera', 'microphones', 'joints')
ACTION = np.array([1.5], np.float32)
LATENT = 5


def fused(folder: Path, *spells: Spell, **options) -> FusedObservation:
    """A pendulum seen through the bundle."""
    failures = Failures(spells)
    return FusedObservation(SensorFailures(gymnasium.make(ID), failures), str(folder), **options)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('checks', [None, QUICK_CHECKS])
def test_observation_passes_the_checks_of_gymnasium(folder: Path, checks):
    env = SensorFailures(gymnasium.make(ID), Failures(spells=RandomSpells()))
    check_env(FusedObservation(env, str(folder), checks=checks), skip_render_check=True)


@pytest.mark.filterwarnings('ignore')
def test_observation_passes_the_check_of_stable_baselines(folder: Path):
    checker = pytest.importorskip('stable_baselines3.common.env_checker')
    checker.check_env(fused(folder))


@pytest.mark.parametrize('checks', [None, QUICK_CHECKS])
def test_observation_is_what_the_front_door_fuses(folder: Path, checks):
    env = fused(folder, Spell(('microphones',)), parts=PARTS, checks=checks)
    seen, info = env.reset(seed=1)
    raw, _ = gymnasium.make(ID).reset(seed=1)
    perception = mm_perception.load(str(folder))
    for name in ('camera', 'joints'):
        perception.update(name, raw[name], 10**18)
    result = perception.infer((), now_ns=10**18)
    expected = [*result.latent, *result.std, 1, 0, 1, 0, 10, 0]
    np.testing.assert_allclose(seen, expected, rtol=1e-5, atol=1e-6)
    assert info['present'] == {'camera': True, 'joints': True, 'microphones': False}


def test_observation_uses_a_value_for_as_long_as_the_bundle_says(folder: Path):
    """0.125 s: two more steps at 20 Hz."""
    env = fused(folder, Spell(('joints',), begin=1), parts=('mask', 'age'))
    seen = [env.reset(seed=0)[0], *(env.step(ACTION)[0] for _ in range(4))]
    assert [bool(each[2]) for each in seen] == [True, True, True, False, False]
    np.testing.assert_allclose([each[5] for each in seen], [0, 0.05, 0.1, 0.15, 0.2], atol=1e-6)


def test_nothing_present_holds_the_last_latent_or_gives_the_prior(folder: Path):
    for options, prior in (({}, False), ({'nothing': PRIOR}, True)):
        for checks in (None, QUICK_CHECKS):
            env = fused(folder, Spell(ALL, begin=1), checks=checks, **options)
            env.reset(seed=0)
            seen = [env.step(ACTION)[0] for _ in range(5)]
            assert not seen[-1][-3:].any() and np.isfinite(seen[-1]).all()
            expected = np.repeat((0.0, 1.0), LATENT) if prior else seen[1][: 2 * LATENT]
            np.testing.assert_allclose(seen[-1][: 2 * LATENT], expected, atol=1e-6)


def test_nothing_present_from_the_start_is_an_observation(folder: Path):
    seen, _ = fused(folder, Spell(ALL)).reset(seed=0)
    np.testing.assert_array_equal(seen, [*np.repeat((0.0, 1.0), LATENT), 0, 0, 0])


def test_a_new_episode_knows_nothing_of_the_last(folder: Path):
    for checks in (None, QUICK_CHECKS):
        env = fused(folder, Spell(('camera',)), checks=checks)
        first, _ = env.reset(seed=4)
        for _ in range(3):
            env.step(ACTION)
        again, _ = env.reset(seed=4)
        np.testing.assert_array_equal(first, again)


def test_values_that_are_no_numbers_are_missing(folder: Path):
    class Broken(gymnasium.ObservationWrapper):
        def observation(self, observation):
            return {**observation, 'joints': np.full(3, np.nan, np.float32)}

    env = FusedObservation(Broken(gymnasium.make(ID)), str(folder))
    assert env.reset(seed=0)[0][-3:].tolist() == [1, 1, 0]


def test_health_checks_take_out_a_frozen_sensor(folder: Path):
    spell = Spell(('joints', 'camera'), FROZEN, 3)
    seen = {}
    for checks in (None, QUICK_CHECKS):
        env = fused(folder, spell, parts=('mask',), checks=checks)
        env.reset(seed=0)
        seen[checks] = np.array([env.step(ACTION)[0] for _ in range(12)])
    assert seen[None].all()
    camera = seen[QUICK_CHECKS][:, 0]
    assert camera[:3].all() and not camera[-5:].any()


@pytest.mark.parametrize('checks', [None, QUICK_CHECKS])
def test_many_environments_are_each_as_one(folder: Path, checks):
    spells = (Spell(('joints',), begin=2, end=9),), (Spell(('camera', 'microphones'), begin=4),)
    ones = [fused(folder, *each, checks=checks) for each in spells]
    plain = gymnasium.make_vec(ID, 2, vectorization_mode='sync')
    many = VectorFusedObservation(
        VectorSensorFailures(plain, [Failures(each) for each in spells]),
        str(folder),
        checks=checks,
    )
    batch, _ = many.reset(seed=[7, 8])
    each = [one.reset(seed=7 + k)[0] for k, one in enumerate(ones)]
    for step in range(204):
        np.testing.assert_allclose(batch, each, rtol=1e-3, atol=1e-4)
        batch = many.step(np.tile(ACTION, (2, 1)))[0]
        # The environments of gymnasium begin the next episode by their own seeds.
        each = [one.reset()[0] if step == 200 else one.step(ACTION)[0] for one in ones]


def test_environments_that_reset_within_a_step_are_refused(folder: Path):
    env = SyncVectorEnv([lambda: gymnasium.make(ID)], autoreset_mode=AutoresetMode.SAME_STEP)
    with pytest.raises(ConfigError, match=r'use AutoresetMode\.NEXT_STEP'):
        VectorFusedObservation(env, str(folder))


def test_bundles_that_do_not_fit_the_environment_are_refused(folder: Path):
    class Blind(gymnasium.ObservationWrapper):
        def __init__(self, env):
            super().__init__(env)
            spaces = {k: v for k, v in env.observation_space.items() if k != 'camera'}
            self.observation_space = gymnasium.spaces.Dict(spaces)

        def observation(self, observation):
            return observation

    with pytest.raises(ConfigError, match='no sensor "camera", which is to be read; it has: jo'):
        FusedObservation(Blind(gymnasium.make(ID)), str(folder))
    with pytest.raises(ConfigError, match='trajectory: environments give image and vector only'):
        FusedObservation(gymnasium.make(ID), 'mhd')
    with pytest.raises(ConfigError, match='give some of mean, std, mask, age, in this order'):
        fused(folder, parts=('mask', 'mean'))


def test_many_values_are_made_ready_as_each_is(folder: Path):
    perception = mm_perception.load(str(folder))
    space = gymnasium.make(ID).observation_space
    for name, modality in perception.modalities.items():
        raws = np.stack([space[name].sample() for _ in range(4)])
        each = np.stack([modality.to_model(raw) for raw in raws])
        np.testing.assert_array_equal(modality.to_models(raws), each)
        np.testing.assert_array_equal(modality.to_models(list(raws)), each)
    other = replace(perception.bundle.spec.modalities[0], preprocessing={'invert': True})
    modality = mm_perception.fusion.perception.build_modality(other)
    raws = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 3)).astype(np.uint8)
    each = np.stack([modality.to_model(raw) for raw in raws])
    np.testing.assert_array_equal(modality.to_models(raws), each)
