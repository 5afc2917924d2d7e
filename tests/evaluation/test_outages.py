"""The protocol of outages: which rows are asked for, and that no method looks ahead."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mm_perception.data.dataset import Dataset
from mm_perception.evaluation.baselines import build_baselines
from mm_perception.evaluation.bundle_judgement import ModelAlone
from mm_perception.evaluation.outages import (
    AGES_S,
    QUERIES,
    Method,
    draw_outage,
    outage_subsets,
    pairs,
    tick_s,
)
from tests.helpers.linear_gaussian import NAMES, LinearGaussianEngine, sample_world
from tests.helpers.moving_robot import LENGTH, TICK_S, moving_robot


def test_pairs_are_an_age_apart_within_a_recording() -> None:
    dataset = moving_robot(2)
    assert tick_s(dataset) == pytest.approx(TICK_S)
    lost, now = pairs(dataset, 0.5)
    assert len(lost) == 2 * (LENGTH - 5)
    assert (now - lost == 5).all() and (now // LENGTH == lost // LENGTH).all()
    assert not len(pairs(dataset, 0.02)[0]), 'the rate is too low for that age'


def test_pairs_have_no_gap_in_time_and_the_modalities_they_need() -> None:
    dataset = moving_robot(1)
    assert dataset.time_s is not None
    late = dataset.time_s + np.where(np.arange(LENGTH) >= 50, 3.0, 0.0)
    lost, now = pairs(replace(dataset, time_s=late), 0.5)
    assert not ((lost < 50) & (now >= 50)).any() and len(lost) == LENGTH - 10
    present = dataset.present.copy()
    present[30, 0] = present[60, 1] = False
    dataset = replace(dataset, present=present)
    lost, now = pairs(dataset, 0.5, kept=('arm',), lost=('force',))
    assert not ((lost <= 30) & (now >= 30)).any()
    assert 60 not in lost and 60 not in now and 59 in lost


def test_outage_is_spread_over_the_recordings_or_left_out() -> None:
    outage = draw_outage(moving_robot(12), 'arm', ('force',), 1.0)
    assert outage is not None and len(outage.now) == QUERIES
    assert set(outage.lost // LENGTH) == set(range(12))
    assert draw_outage(moving_robot(1, length=15), 'arm', ('force',), 1.0) is None


def test_subsets_lose_one_or_two_or_all_but_one() -> None:
    found = outage_subsets(('a', 'b', 'c', 'd', 'e'))
    mine = [observed for target, observed in found if target == 'b']
    assert len(mine) == 1 + 4 + 4 and mine[0] == ('a', 'c', 'd', 'e')
    assert {len(observed) for observed in mine} == {4, 3, 1}
    assert outage_subsets(('a', 'b')) == [('a', ('b',)), ('b', ('a',))]


def with_noise(dataset: Dataset, name: str, rows: np.ndarray) -> Dataset:
    values = dataset.values[name].copy()
    values[rows] = np.random.default_rng(9).standard_normal(values[rows].shape)
    return replace(dataset, values={**dataset.values, name: values})


def forbidden(dataset: Dataset, target: str, observed: tuple[str, ...], row: int) -> Dataset:
    """The dataset with everything changed that may not be used for a query of a second."""
    rows = np.arange(len(dataset))
    for name in dataset.names:
        last = row if name in observed else row - 10
        dataset = with_noise(dataset, name, rows[rows > last])
    return dataset


@pytest.mark.parametrize('method', build_baselines(), ids=lambda method: method.name)
@pytest.mark.parametrize('observed', [('force', 'camera'), ('camera',)])
def test_baseline_uses_no_row_that_is_forbidden(method: Method, observed: tuple[str, ...]) -> None:
    method.fit(moving_robot(5))
    dataset, row = moving_robot(2, seed=3), 150
    query = ('arm', observed, np.array([row - 10]), np.array([row]))
    known = method.predict(dataset, *query)
    blind = method.predict(forbidden(dataset, 'arm', observed, row), *query)
    np.testing.assert_array_equal(known, blind)
    assert known.shape == (1, 2) and known.dtype == np.float32


def test_model_alone_uses_no_row_that_is_forbidden() -> None:
    method, dataset = ModelAlone(LinearGaussianEngine()), sample_world(40)[1]
    query = ('a', ('b', 'c'), np.array([20]), np.array([30]))
    known = method.predict(dataset, *query)
    np.testing.assert_array_equal(
        known, method.predict(forbidden(dataset, 'a', ('b', 'c'), 30), *query)
    )
    assert known.shape == (1, 4) and dataset.names == NAMES


def test_methods_answer_queries_of_several_ages_as_one_by_one() -> None:
    train, dataset = moving_robot(5), moving_robot(2, seed=3)
    now = np.array([100, 100, 101, 220])
    lost = now - np.array([1, 5, 20, 50])
    for method in build_baselines():
        method.fit(train)
        together = method.predict(dataset, 'arm', ('camera',), lost, now)
        alone = [
            method.predict(dataset, 'arm', ('camera',), lost[k : k + 1], now[k : k + 1])[0]
            for k in range(len(now))
        ]
        np.testing.assert_allclose(together, alone, atol=1e-5, err_msg=method.name)
    assert set(np.round((now - lost) * TICK_S, 3)) <= set(AGES_S)
