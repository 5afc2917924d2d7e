"""Mixes, damping and intervals of a memory: what they take from little evidence, and from much."""

from __future__ import annotations

import numpy as np
import pytest

from mm_perception.evaluation.recall import states_of
from mm_perception.fusion.displacement import Layout
from mm_perception.fusion.memory import PARTS
from mm_perception.modalities.base import Array
from mm_perception.training.intervals import correction, learn_spread
from mm_perception.training.mixing import Cell
from mm_perception.training.regressions import Age, Recordings, learn_features
from tests.helpers.moving_world import PERIOD_S, moving_world

HOLD, DAMPED, HEAD = range(3)
WAYS = 1 + len(PARTS)


def fold(seed: int, **scales: float) -> Array:
    """Errors of every way in one fold: of the named ones so large, of others 10."""
    random = np.random.default_rng(seed)
    sizes = np.full(WAYS, 10.0)
    for name, scale in scales.items():
        sizes[['hold', *PARTS].index(name)] = scale
    return (sizes[:, None, None] * random.standard_normal((WAYS, 60, 2))).astype(np.float32)


def moving(count: int) -> list[Array]:
    return [fold(k, hold=1.0, damped=0.5, head=0.2) for k in range(count)]


def still(count: int) -> list[Array]:
    """Folds in which the last value is exact, as by damped velocity."""
    return [fold(k, hold=0.0, damped=0.0, head=0.01) for k in range(count)]


def test_mix_uses_what_is_better_in_enough_folds() -> None:
    weight = Cell(moving(5)).best(None)
    assert weight.sum() == pytest.approx(1.0) and weight[HEAD] > 0.6


def test_mix_of_few_folds_that_moved_is_damped_velocity() -> None:
    weight = Cell([*still(3), *moving(2)]).best(None)
    assert weight[DAMPED] == pytest.approx(1.0)
    assert Cell(still(5)).best(None)[[HOLD, DAMPED]].sum() == pytest.approx(1.0, abs=0.01)


def test_folds_in_which_nothing_moved_do_not_vote() -> None:
    exact = [fold(k, hold=0.0, damped=0.0, head=0.0) for k in range(2)]
    weight = Cell([*exact, *moving(4)]).best(None)
    assert weight[HEAD] > 0.5


def test_quiet_recordings_held_out_do_not_change_a_mix() -> None:
    prior = np.eye(WAYS)[DAMPED]
    quiet = Cell([fold(k, hold=0.001, damped=0.0011) for k in range(5)])
    assert quiet.towards(prior, usual=0.25)[DAMPED] == pytest.approx(1.0, abs=0.01)
    loud = Cell([fold(k, hold=1.0, damped=2.0) for k in range(5)])
    assert loud.towards(prior, usual=0.25)[HOLD] > 0.5


def test_intervals_hold_while_moving_though_most_rows_are_still() -> None:
    random = np.random.default_rng(0)
    moved = np.where(random.random(4000) < 0.2, random.uniform(1, 2, 4000), 0).astype(np.float32)
    left = np.abs(moved[:, None] * random.standard_normal((4000, 2))).astype(np.float32)
    spread = learn_spread(left[:2000], moved[:2000], 1000.0, np.full(2, 1e-3, np.float32))
    holds = left[2000:] <= spread.half(moved[2000:])
    going = moved[2000:] > 0
    assert holds[~going].all() and 0.87 <= holds[going].mean() <= 0.93
    assert spread.half(np.zeros(1, np.float32)).max() == pytest.approx(1e-3, rel=1e-4)
    few = learn_spread(left[:2000], moved[:2000], 5.0, np.full(2, 1e-3, np.float32))
    assert (few.moving > 1.3 * spread.moving).all()


def test_intervals_are_corrected_by_several_new_recordings_only() -> None:
    parts = [np.linspace(0.0, 2.0, 1001)]
    assert correction(parts, 1) == 1.0 and correction([np.zeros(0)], 9) == 1.0
    assert correction(parts, 10) == pytest.approx(1.8**0.9, rel=1e-3)
    assert correction([np.zeros(9)], 10) == pytest.approx(0.1**0.9)


def test_velocity_lasts_unless_recordings_are_sure_of_less() -> None:
    dataset = moving_world(10).only('arm')
    features = {'arm': learn_features(dataset, 'arm')}
    states = states_of(dataset, features, PERIOD_S)
    number = dataset.attributes['recording'][1]
    data = Recordings(dataset, states, np.asarray(number % 5, np.intp))
    layout = Layout({'arm': len(features['arm'].scale)})
    ages = [Age(data, layout, age, data.pairs(age, PERIOD_S)) for age in (0.1, 3.0)]
    near, far = (age.regression('arm', None)[0][-1].damping_s for age in ages)
    assert near == pytest.approx(0.1, rel=0.05) and far < 1.5
