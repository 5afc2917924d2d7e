"""Sensors that fail: what they give, what is told, and by which chance."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from mm_perception.errors import ConfigError
from mm_perception.rl.failures import (
    ANOTHER,
    FROZEN,
    MISSING,
    NOISY,
    STALE,
    Failures,
    RandomSpells,
    SensorFailures,
    Spell,
    VectorSensorFailures,
)
from mm_perception.rl.pendulum import ID

ACTION = np.array([1.0], np.float32)


def play(failures: Failures, steps: int = 12, seed: int = 0):
    """Observations of an environment that fails, of one that does not, and who was present."""
    failing, sound = SensorFailures(gymnasium.make(ID), failures), gymnasium.make(ID)
    shown, true = [failing.reset(seed=seed)], [sound.reset(seed=seed)]
    for _ in range(steps):
        step = failing.step(ACTION)
        shown.append((step[0], step[4]))
        true.append(sound.step(ACTION))
    return [s for s, _ in shown], [t[0] for t in true], [i['present'] for _, i in shown]


def test_missing_is_told_and_ends():
    shown, true, present = play(Failures((Spell(('joints',), MISSING, 3, 6),)))
    told = [each['joints'] for each in present]
    assert told == [not 3 <= k < 6 for k in range(13)]
    for k, (given, real) in enumerate(zip(shown, true)):
        expected = np.zeros(3) if 3 <= k < 6 else real['joints']
        np.testing.assert_array_equal(given['joints'], expected)
        np.testing.assert_array_equal(given['camera'], real['camera'])


@pytest.mark.parametrize(('fault', 'source'), [(FROZEN, lambda k: 3), (STALE, lambda k: k - 2)])
def test_old_data_are_given_as_new(fault: str, source):
    shown, true, present = play(Failures((Spell(('camera', 'joints'), fault, 3),), delay=2))
    for k in range(3, 13):
        for name in ('camera', 'joints'):
            np.testing.assert_array_equal(shown[k][name], true[source(k)][name])
    assert all(all(each.values()) for each in present)


def test_noise_stays_within_the_range_of_the_sensor():
    shown, true, _ = play(Failures((Spell(('microphones',), NOISY, 1),)), 40)
    space = gymnasium.make(ID).observation_space['microphones']
    off = np.array([s['microphones'] - t['microphones'] for s, t in zip(shown, true)])[1:]
    assert all(space.contains(each['microphones']) for each in shown[1:])
    assert 0.1 < (off / (space.high - space.low)).std() < 0.25


def test_data_of_another_episode_are_given():
    others = {n: np.stack([s.sample() for _ in range(5)]) for n, s in spaces().items()}
    shown, _, _ = play(Failures((Spell(('joints',), ANOTHER, 2),), others=others))
    for k in range(2, 13):
        np.testing.assert_array_equal(shown[k]['joints'], others['joints'][k % 5])


def spaces():
    """Spaces of the sensors."""
    return gymnasium.make(ID).observation_space.spaces


def test_spells_take_their_share_of_the_time_and_leave_a_sensor():
    env = SensorFailures(
        gymnasium.make(ID), Failures(spells=RandomSpells(share=0.3, mean_steps=10))
    )
    present = []
    for seed in range(25):
        present.append(list(env.reset(seed=seed)[1]['present'].values()))
        present += [list(env.step(ACTION)[4]['present'].values()) for _ in range(100)]
    there = np.array(present)
    assert 0.63 < there.mean() < 0.78 and there.any(1).all()
    changes = (there[1:] != there[:-1]).any(1).mean()
    assert changes < 0.25  # spells, not single steps


def test_spells_follow_the_seed():
    failures = Failures(spells=RandomSpells(mean_steps=4))
    runs = [play(failures, 40, seed)[2] for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_many_environments_fail_each_in_its_own_way():
    plans = [
        Failures(),
        Failures((Spell(('joints',), FROZEN, 2),)),
        Failures((Spell(('camera',)),)),
    ]
    env = gymnasium.make_vec(ID, 3, vectorization_mode='vector_entry_point')
    many = VectorSensorFailures(env, plans)
    seen, info = many.reset(seed=[5, 5, 5])
    frozen = None
    for step in range(205):
        lost = np.flatnonzero(~info['present']['camera']).tolist()
        assert lost == [2] and not seen['camera'][2].any() and info['present']['joints'].all()
        begun = step == 201  # the next episode, in which nothing is frozen yet
        if 2 < step < 200:
            np.testing.assert_array_equal(seen['joints'][1], frozen)
        elif begun:
            assert not np.array_equal(seen['joints'][1], frozen)
        elif step == 2:
            frozen = seen['joints'][1].copy()
        seen, _, _, _, info = many.step(np.ones((3, 1), np.float32))


@pytest.mark.parametrize(
    ('failures', 'message'),
    [
        (Failures((Spell(('nose',)),)), 'no sensor "nose"; the environment has: camera'),
        (Failures((Spell(('joints',), 'drunk'),)), 'no fault "drunk"; there are: missing'),
        (Failures((Spell(('joints',), ANOTHER),)), 'give what all sensors gave elsewhere'),
    ],
)
def test_plans_that_cannot_be_are_refused(failures: Failures, message: str):
    with pytest.raises(ConfigError, match=message):
        SensorFailures(gymnasium.make(ID), failures)


def test_environments_without_sensors_are_refused():
    with pytest.raises(ConfigError, match='a Dict of Box, one each'):
        SensorFailures(gymnasium.make('Pendulum-v1'), Failures())
