from collections import Counter

import numpy as np
import pytest

from mm_perception.lab.digits.handwriting import StrokeSampler, fit_handwriting
from mm_perception.lab.digits.kinematics import (
    FIT_POINTS,
    PRIMITIVES,
    Plans,
    draw,
    fit_plans,
    join_plans,
    normalise,
)
from mm_perception.lab.digits.pen import load_pen_digits


def plan(chords, turns, medians, spread=0.09, skew=0.25):
    count = len(chords)
    values = {
        'start': np.zeros((1, 2), np.float32),
        'chord': np.zeros((1, PRIMITIVES, 2), np.float32),
        'turn': np.zeros((1, PRIMITIVES), np.float32),
        'median': np.ones((1, PRIMITIVES), np.float32),
        'log_spread': np.full((1, PRIMITIVES), np.log(spread), np.float32),
        'log_skew': np.full((1, PRIMITIVES), np.log(skew), np.float32),
    }
    values['chord'][0, :count], values['turn'][0, :count] = chords, turns
    values['median'][0, :count] = medians
    return Plans(**values, count=np.array([count]))


def test_draw_single_straight_primitive_has_lognormal_speed():
    one = plan([(2.0, 1.0)], [0.0], [0.5])
    points = draw(one, 2001)[0]
    done = points[:, 0] / 2.0
    np.testing.assert_allclose(points[:, 1], done, atol=1e-5)
    assert done[1000] == pytest.approx(0.5, abs=1e-3)
    # The peak of a lognormal lies at t0 + exp(mu - sigma^2).
    scale = 0.09 / 0.25
    peak = 0.5 - scale + scale * np.exp(-(0.25**2))
    assert np.argmax(np.diff(done)) / 2000 == pytest.approx(peak, abs=2e-3)


def test_draw_turning_primitive_follows_a_circular_arc():
    points = draw(plan([(1.0, 0.0)], [np.pi], [0.5], spread=0.05), 200)[0]
    radius = np.linalg.norm(points - [0.5, 0.0], axis=1)
    np.testing.assert_allclose(radius, 0.5, atol=1e-3)
    np.testing.assert_allclose(points[-1], [1.0, 0.0], atol=1e-3)


def test_fit_recovers_a_known_stroke():
    known = plan([(0.4, 0.8), (0.5, -0.9), (-0.6, -0.4)], [0.6, -0.5, 0.9], [0.15, 0.5, 0.85])
    stroke = draw(known, FIT_POINTS)
    stroke = (stroke - (stroke.max(1) + stroke.min(1)) / 2) / np.ptp(stroke, axis=1).max()
    fitted, errors = fit_plans(stroke, progress=False)
    assert errors[0] < 0.01
    assert np.abs(draw(fitted, FIT_POINTS) - stroke).max() < 0.03


def test_fit_of_many_equals_fit_of_each():
    rng = np.random.default_rng(0)
    parts = [
        plan(rng.normal(0, 0.4, (3, 2)), rng.normal(0, 0.5, 3), [0.2, 0.5, 0.8]) for _ in range(3)
    ]
    strokes = draw(join_plans(parts, np.concatenate), FIT_POINTS)
    together, _ = fit_plans(strokes, progress=False, steps=20)
    alone, _ = fit_plans(strokes[1:2], progress=False, steps=20)
    np.testing.assert_allclose(together.chord[1], alone.chord[0], atol=1e-4)


def test_normalise_fills_the_unit_box_and_drops_pauses():
    stroke = np.array([[0, 0]] * 5 + [[0, 10], [0, 20], [0, 30]] + [[5, 40]] * 9, np.float32)
    points = normalise(stroke)
    assert points.shape == (FIT_POINTS, 2)
    assert np.ptp(points, axis=0).max() == pytest.approx(1.0, abs=1e-5)
    assert (np.linalg.norm(np.diff(points, axis=0), axis=1) > 0).all()


@pytest.fixture(scope='module')
def sampler(raw_root):
    return StrokeSampler(fit_handwriting(load_pen_digits(raw_root)['train'], progress=False))


def test_sampler_varies_strokes_but_keeps_their_shape(sampler):
    rows = np.arange(len(sampler.handwriting.labels))
    recorded = draw(sampler.handwriting.plans, 100)
    strokes, seconds = sampler.sample(rows, 100, np.random.default_rng(0))
    assert strokes.shape == recorded.shape and (seconds > 0).all()
    change = np.linalg.norm(strokes - recorded, axis=2)
    assert 0.01 < np.median(change) < 0.15
    assert change[:, [0, -1]].max() < 0.5
    steps = np.linalg.norm(np.diff(strokes, axis=1), axis=2)
    assert np.isfinite(strokes).all() and steps.max() < 0.2


def test_sampler_is_deterministic_and_uses_every_recording(sampler):
    rows = [sampler.sources(3, 12, np.random.default_rng(5)) for _ in range(2)]
    np.testing.assert_array_equal(*rows)
    recordings = np.flatnonzero(sampler.handwriting.labels == 3)
    assert sorted(rows[0]) == sorted(recordings.repeat(3))
    by_writer = sampler.sources(3, 8, np.random.default_rng(5), by_writer=1.0)
    counts = Counter(sampler.handwriting.writers[row] for row in by_writer)
    assert len(counts) == 4 and set(counts.values()) == {2}
    strokes = [sampler.sample(rows[0], 50, np.random.default_rng(5))[0] for _ in range(2)]
    np.testing.assert_array_equal(*strokes)


def test_sampler_motion_has_the_times_of_a_tablet(sampler):
    motion = sampler.motion(0, np.random.default_rng(0))
    assert motion.points.shape == (len(motion.times_s), 2)
    assert motion.times_s[0] == 0 and (np.diff(motion.times_s) > 0).all()
