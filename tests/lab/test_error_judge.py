"""The judge of episodes, on logs that are made up."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed')

from mm_perception.lab.demo.curves import OURS, SIDE, draw_errors
from mm_perception.lab.demo.error_judge import ErrorJudge
from mm_perception.lab.demo.log import Log, Phase, Received, Showing, Status, Tick
from mm_perception.lab.demo.pictures import draw_phases
from mm_perception.modalities import build_modality
from mm_perception.ros.codecs import make_header, output_codec
from tests.helpers.made_up_episodes import SPECS, make_episodes

MS, SECOND = 1_000_000, 1_000_000_000
NAMES = ('joints', 'target')
KINDS = {name: build_modality(SPECS[name]) for name in NAMES}
OUT, PRESENT = Phase(('joints',), 1.0, 2.0), Phase((), 3.0, 1.0)


@pytest.fixture
def log():
    """Two episodes, one after the other; in both joint a is as large as the time."""
    showings = [Showing(0, 'a', 0), Showing(1, 'b', 4 * SECOND)]
    return Log(showings=showings, schedule_start_ns=0)


@pytest.fixture
def judge(log):
    return ErrorJudge(make_episodes(), KINDS, log)


def tick(log, at_s, lost_s=1.0, filled=(0.5, 1.0)):
    """A tick in which the joints are out since some time and are filled in so."""
    tick_ns = round(at_s * SECOND)
    age_ms = (at_s - lost_s) * 1e3
    ages_ms = {'joints': age_ms, 'target': 1.0} if lost_s else {'target': 1.0}
    states = {'joints': 'stale', 'target': 'ok'}
    status = Status(tick_ns + MS, tick_ns - MS, states, ages_ms, frozenset({'target'}))
    array = KINDS['joints'].to_model(np.array(filled, np.float32))
    message = output_codec('vector').encode(KINDS['joints'], array, make_header(tick_ns))
    entry = Received(tick_ns + MS, None, message)
    return Tick(status, entry, log.showing_at(tick_ns), {'joints': entry}, {'joints': entry})


def test_errors_are_those_of_the_value_filled_in_and_of_the_last_one(log, judge):
    found = judge.errors('joints', tick(log, 3.0, lost_s=1.0, filled=(2.0, 1.0)))
    assert found.age_s == pytest.approx(2.0)
    assert found.ours == pytest.approx(1.0 / np.sqrt(2), abs=1e-5)  # joint a by 1, joint b by 0
    assert found.hold == pytest.approx(2.0 / np.sqrt(2), abs=1e-5)


def test_the_last_value_may_be_of_the_episode_before(log, judge):
    found = judge.errors('joints', tick(log, 5.0, lost_s=3.0, filled=(1.0, 1.0)))
    assert (found.ours, found.hold) == (
        pytest.approx(0.0, abs=1e-5), pytest.approx(2.0 / np.sqrt(2), abs=1e-5)
    )  # fmt: skip


def test_nothing_is_judged_that_never_came_or_was_not_filled_in(log, judge):
    assert judge.errors('joints', tick(log, 3.0, lost_s=0.0)) is None
    assert judge.errors('target', tick(log, 3.0)) is None
    assert judge.figures('joints', []) == {'error': None, 'hold': None, 'ticks': 0}


def test_figures_are_root_mean_squares_over_ticks(log, judge):
    ticks = [tick(log, at_s, filled=(at_s - 0.5, 1.0)) for at_s in (2.0, 3.0)]
    found = judge.figures('joints', ticks)
    assert found['ticks'] == 2
    assert found['error'] == pytest.approx(0.5 / np.sqrt(2), abs=1e-4)
    assert found['hold'] == pytest.approx(np.sqrt((1 + 4) / 2 / 2), abs=1e-4)
    met = judge.criteria('joints', found)[0]
    assert met.met and met.value == pytest.approx(0.3162, abs=1e-3)
    worse = judge.criteria('joints', {'error': 2.0, 'hold': 1.0})[0]
    assert not worse.met
    assert not judge.criteria('joints', {'error': None, 'hold': None})[0].met


def test_errors_by_age_of_the_last_value(log, judge):
    ticks = {OUT: [tick(log, 1.25), tick(log, 2.5)], PRESENT: [tick(log, 3.5)]}
    joints = judge.overall(ticks)['errors_by_age']['joints']
    assert [entry['ticks'] for entry in joints] == [1, 0, 1, 0, 0]
    assert joints[2]['from_s'] == 1.0 and joints[2]['to_s'] == 2.0
    assert joints[-1]['to_s'] is None
    assert joints[2]['hold'] == pytest.approx(1.5 / np.sqrt(2), abs=1e-4)


def test_live_table_marks_what_is_worse_than_holding(log, judge):
    good, bad = (tick(log, 3.0, filled=(a, 1.0)) for a in (2.9, 7.0))
    for each, colour in ((good, 'green'), (bad, 'red')):
        log.statuses[:], log.filled['joints'][:] = [each.status], [each.filled['joints']]
        ours, hold = judge.live('joints', log, 0)
        assert ours.style == colour and float(hold.plain) == pytest.approx(1.41, abs=0.01)
    assert [text.plain for text in judge.live('target', log, 0)] == ['', '']


def test_pictures_show_the_errors_and_what_would_have_been(log, judge):
    late = tick(log, 2.9, filled=(2.5, 1.0))
    ticks = {OUT: [tick(log, 1.1), tick(log, 2.0), late], PRESENT: []}
    curves = draw_errors(ticks, NAMES, judge)
    drawn = (curves == OURS).all(axis=2)[40:]
    columns = np.flatnonzero(drawn.any(axis=0))
    width = curves.shape[1] - SIDE - 12
    assert columns.min() == pytest.approx(SIDE + width * 1.1 / 4, abs=4)
    assert columns.max() == pytest.approx(SIDE + width * 2.9 / 4, abs=4)
    phases = draw_phases(ticks, KINDS, judge)
    wrong = draw_phases({**ticks, OUT: [tick(log, 2.9, filled=(8.0, 1.0))]}, KINDS, judge)
    assert phases.shape == wrong.shape and (phases != wrong).any()
    assert judge.remark('joints', late) == ('0.28 / 1.3', True)
    np.testing.assert_allclose(judge.truth('joints', late), [2.9 / 8, 1 / 8], atol=1e-6)
