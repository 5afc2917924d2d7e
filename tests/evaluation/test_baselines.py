"""Baselines against cases whose answers are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mm_perception.data.dataset import Dataset
from mm_perception.evaluation.baselines import build_baselines
from mm_perception.evaluation.baselines.codes import COMPONENTS, fit_code
from mm_perception.evaluation.outages import Method, draw_outage
from tests.helpers.moving_robot import DAMPING, KICK, NOISE, moving_robot

TEST = moving_robot(6, seed=7)


@pytest.fixture(scope='module')
def methods() -> dict[str, Method]:
    found = {method.name: method for method in build_baselines()}
    train = moving_robot(12)
    for method in found.values():
        method.fit(train)
    return found


def error(
    method: Method, target: str, observed: tuple[str, ...], age_s: float, data: Dataset = TEST
) -> float:
    outage = draw_outage(data, target, observed, age_s)
    assert outage is not None
    filled = method.predict(data, target, observed, outage.lost, outage.now)
    return float(np.sqrt(np.mean((filled - data.rows(target, outage.now)) ** 2)))


def test_baselines_have_the_names_of_the_rows(methods: dict[str, Method]) -> None:
    assert set(methods) == {
        'hold', 'mean', 'constant_velocity', 'damped_velocity', 'ridge', 'ridge_memory', 'knn',
        'kalman',
    }  # fmt: skip


def test_hold_and_mean_are_what_they_say(methods: dict[str, Method]) -> None:
    rows = np.array([5, 200])
    held = methods['hold'].predict(TEST, 'camera', ('arm',), rows, rows + 10)
    np.testing.assert_array_equal(held, TEST.rows('camera', rows))
    mean = methods['mean'].predict(TEST, 'arm', ('force',), rows, rows + 10)
    train = moving_robot(12).values['arm']
    np.testing.assert_allclose(mean, np.repeat(train.mean(0)[None], 2, 0), atol=1e-5)


def test_constant_velocity_continues_a_ramp_exactly(methods: dict[str, Method]) -> None:
    ramp = np.arange(len(TEST))[:, None] * np.array([[0.01, -0.02]])
    data = replace(TEST, values={**TEST.values, 'arm': ramp.astype(np.float32)})
    rows = np.array([0, 1, 60, 120])
    filled = methods['constant_velocity'].predict(data, 'arm', ('force',), rows, rows + 20)
    np.testing.assert_allclose(filled[1:3], data.rows('arm', rows[1:3] + 20), atol=1e-3)
    # Before the first row of a recording there is no velocity.
    np.testing.assert_array_equal(filled[[0, 3]], data.rows('arm', rows[[0, 3]]))


def test_damped_velocity_goes_as_far_as_the_law_of_motion(methods: dict[str, Method]) -> None:
    # Of a speed that decays by DAMPING in a tick: velocity * sum of the powers, nearly.
    rows, seconds = np.array([50]), 0.5
    speed = (TEST.rows('arm', rows) - TEST.rows('arm', rows - 1)) / 0.1
    filled = methods['damped_velocity'].predict(TEST, 'arm', ('force',), rows, rows + 5)
    reach = float(((filled - TEST.rows('arm', rows)) / speed).mean())
    assert reach == pytest.approx(0.1 * sum(DAMPING**k for k in range(1, 6)), rel=0.15)
    assert reach < seconds


def test_ridge_reads_what_is_linear_down_to_the_noise(methods: dict[str, Method]) -> None:
    for name in ('ridge', 'kalman'):
        assert error(methods[name], 'force', ('arm', 'camera'), 5.0) < 1.2 * NOISE, name
        assert error(methods[name], 'arm', ('force', 'camera'), 5.0) < 0.01, name
        assert error(methods[name], 'camera', ('arm', 'force'), 5.0) < 0.01, name


def test_memory_helps_where_the_others_tell_half(methods: dict[str, Method]) -> None:
    now, memory = (error(methods[n], 'arm', ('force',), 0.5) for n in ('ridge', 'ridge_memory'))
    assert memory < 0.6 * now
    assert memory < 0.9 * error(methods['hold'], 'arm', ('force',), 0.5)


def test_kalman_is_the_best_linear_predictor_a_tick_ahead(methods: dict[str, Method]) -> None:
    # With the force alone, one direction of the arm is seen and one is not.
    kicks = KICK * np.array([1.0, 1.0])
    unseen = np.linalg.norm(kicks * [0.5, 1.0]) / np.linalg.norm([1.0, 0.5]) / np.sqrt(2)
    found = error(methods['kalman'], 'arm', ('force',), 0.1)
    assert unseen * 0.9 < found < 1.15 * np.hypot(unseen, NOISE)
    for name in ('hold', 'constant_velocity', 'damped_velocity', 'ridge'):
        assert found < error(methods[name], 'arm', ('force',), 0.1), name


def test_neighbours_are_the_nearest_rows(methods: dict[str, Method]) -> None:
    train = moving_robot(12)
    row = np.array([77])
    found = methods['knn'].predict(TEST, 'arm', ('camera',), row - 10, row)
    distance = np.square(train.values['camera'] - TEST.rows('camera', row)).sum((1, 2, 3))
    nearest = train.values['arm'][np.argsort(distance)[:5]]
    np.testing.assert_allclose(found[0], nearest.mean(0), atol=1e-4)


def test_rows_without_a_sensor_teach_nothing() -> None:
    train = moving_robot(12)
    present, values = train.present.copy(), dict(train.values)
    present[:480, 2] = False
    values['camera'] = np.where(present[:, 2, None, None, None], values['camera'], 1e3)
    holed = replace(train, present=present, values=values)
    for method in build_baselines():
        method.fit(holed)
        found = error(method, 'arm', ('camera',), 1.0)
        if method.name in ('ridge', 'ridge_memory', 'kalman'):
            assert found < 0.01, method.name
        assert found < 6.0, f'{method.name} learned what was not there'


def test_too_short_recordings_are_held() -> None:
    short = moving_robot(3, length=12)
    for method in build_baselines():
        method.fit(short)
        filled = method.predict(TEST, 'arm', ('force',), np.array([20]), np.array([70]))
        assert np.isfinite(filled).all(), method.name
        if method.name in ('ridge_memory', 'damped_velocity'):
            np.testing.assert_array_equal(filled, TEST.rows('arm', np.array([20])))


def test_code_of_long_arrays_keeps_what_varies() -> None:
    generator = np.random.default_rng(0)
    hidden, axes = generator.standard_normal((500, 3)), generator.standard_normal((3, 200))
    values = (hidden @ axes + 4.0).astype(np.float32)
    code = fit_code(values)
    assert code.size == 3 <= COMPONENTS
    told = (values - code.mean) @ code.reading
    np.testing.assert_allclose(told @ code.writing + code.mean, values, atol=1e-3)
    assert told.std(0)[0] == pytest.approx(1.0, rel=0.02)


def test_code_of_a_constant_is_nothing() -> None:
    for width in (3, 100):
        code = fit_code(np.full((50, width), 0.25, np.float32))
        told = np.full((1, width), 9.0) @ code.reading
        np.testing.assert_allclose(told @ code.writing + code.mean, np.full((1, width), 0.25))
