"""What is judged over time, with exact times: statistics, stuck sensors, flapping, doubt."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_perception.fusion.assessment import Steadiness, find_stuck, judge
from mm_perception.fusion.consistency import Doubt, Lasting
from mm_perception.fusion.health import BACKWARDS, FUTURE, MALFORMED, Checks, Limits, State
from mm_perception.fusion.streams import ClockWatch, Reading, StreamStatistics, Tracker
from mm_perception.modalities import Stamped
from mm_perception.modalities.base import FROZEN, SILENT, STILL, Trace

MS = 1_000_000
SECOND = 1000 * MS
LIMITS = Limits(enabled=True, max_age_s=1.0, hold=False, future_s=0.5, backwards_s=0.5)
CHECKS = Checks()


def seen(
    *messages: tuple[int, int, bytes], fault: str = FROZEN, alone: bool = False
) -> StreamStatistics:
    """Statistics after messages, each (time of receipt, stamp, data); times in ms."""
    tracker = Tracker()
    for now_ms, stamp_ms, mark in messages:
        tracker.arrive(now_ms * MS)
        tracker.read(Trace(mark, fault, alone), stamp_ms * MS, now_ms * MS, 0.5)
    return tracker.statistics


# Judging a reading


@pytest.mark.parametrize(
    ('now_ms', 'state', 'used'),
    [(0, State.OK, True), (1000, State.OK, True), (1001, State.STALE, False)],
)
def test_judge_a_value_is_stale_right_after_max_age(now_ms, state, used):
    verdict = judge(Reading(Stamped('3', 0)), LIMITS, now_ms * MS)
    assert (verdict.state, verdict.used) == (state, used)


@pytest.mark.parametrize(
    ('now_ms', 'state'), [(-500, State.OK), (-501, State.REJECTED), (-5000, State.REJECTED)]
)
def test_judge_a_stamp_from_the_future_is_rejected(now_ms, state):
    verdict = judge(Reading(Stamped('3', 0)), LIMITS, now_ms * MS)
    assert verdict.state is state
    assert verdict.fault == (FUTURE if state is State.REJECTED else '')


def test_judge_a_refusal_lasts_as_long_as_messages_come():
    statistics = StreamStatistics(received_ns=0)
    refused = Reading(None, 'too small', statistics=statistics)
    verdict = judge(refused, LIMITS, 1000 * MS)
    assert (verdict.state, verdict.fault, verdict.reason) == (
        State.REJECTED,
        MALFORMED,
        'too small',
    )
    assert judge(refused, LIMITS, 1001 * MS).state is State.WAITING
    before = Reading(Stamped('3', 0), 'too small', statistics=statistics)
    assert judge(before, LIMITS, 1001 * MS).state is State.STALE


def test_judge_old_stamps_are_stale_even_before_a_value_is_complete():
    fresh = Reading(None, statistics=seen((10_000, 9_900, b'a')))
    old = Reading(None, statistics=seen((10_000, 2_000, b'a')))
    assert judge(fresh, LIMITS, 10_000 * MS).state is State.WAITING
    verdict = judge(old, LIMITS, 10_000 * MS)
    assert (verdict.state, verdict.used, verdict.fault) == (State.STALE, False, '')
    assert 'stamped 8 s ago' in verdict.reason


def test_judge_names_stamps_that_ran_backwards():
    statistics = seen((10_000, 10_000, b'a'), (10_100, 4_000, b'b'))
    verdict = judge(Reading(Stamped('3', 4_000 * MS), statistics=statistics), LIMITS, 10_100 * MS)
    assert (verdict.state, verdict.fault) == (State.STALE, BACKWARDS)
    assert 'ran backwards by 6 s' in verdict.reason
    caught_up = seen((10_000, 10_000, b'a'), (10_100, 4_000, b'b'), (10_200, 10_200, b'c'))
    assert caught_up.backwards_s == 0.0


@pytest.mark.parametrize(
    ('now_s', 'stamp_s', 'remedy'),
    [
        (1.7e9, 5e3, 'count from a start, not from 1970'),
        (1.7e9, 1.69e9, 'play bags with --clock and set use_sim_time'),
        (1.7e9, 1.7e9 - 3, 'raise its max_age_s'),
        (5e3, 5e3 - 3, 'raise its max_age_s'),
    ],
)
def test_judge_tells_what_to_do_about_old_stamps(now_s, stamp_s, remedy):
    now_ms, stamp_ms = int(now_s * 1000), int(stamp_s * 1000)
    statistics = seen((now_ms, stamp_ms, b'a'))
    for value in (None, Stamped('3', stamp_ms * MS)):
        verdict = judge(Reading(value, statistics=statistics), LIMITS, now_ms * MS)
        assert verdict.state is State.STALE
        assert remedy in verdict.reason
    gone = judge(Reading(Stamped('3', stamp_ms * MS), statistics=statistics), LIMITS,
                 (now_ms + 9000) * MS)  # fmt: skip
    assert remedy not in gone.reason, 'nothing comes any more'


def test_judge_says_what_a_value_waits_for():
    waiting = Reading(None, pending='noisy: at -20 dBFS', pending_fault='noisy')
    verdict = judge(waiting, LIMITS, 0)
    assert (verdict.state, verdict.fault) == (State.WAITING, 'noisy')
    assert verdict.reason.endswith('; noisy: at -20 dBFS')


# Statistics


def test_statistics_stamps_within_the_tolerance_are_no_jump():
    tracker = Tracker()
    trace = Trace(b'a')
    assert tracker.read(trace, 1000 * MS, 0, 0.5) == 0.0
    assert tracker.read(trace, 500 * MS, 0, 0.5) == 0.0
    assert tracker.read(trace, 1000 * MS, 0, 0.5) == 0.0
    assert tracker.read(trace, 499 * MS, 0, 0.5) == pytest.approx(0.501)


def test_statistics_tell_first_data_from_changed_data():
    assert seen((0, 0, b'a')).changed_ns is None
    statistics = seen((0, 0, b'a'), (10, 10, b'b'), (20, 20, b'b'))
    assert (statistics.since_ns, statistics.changed_ns, statistics.received_ns) == (
        10 * MS,
        10 * MS,
        20 * MS,
    )


def test_clock_watch_notices_steps_back_once():
    clock = ClockWatch(0.1)
    assert clock.step_back_s(1000 * MS) == 0.0
    assert clock.step_back_s(900 * MS) == 0.0
    assert clock.step_back_s(700 * MS) == pytest.approx(0.2)
    assert clock.step_back_s(701 * MS) == 0.0
    assert clock.step_back_s(90_000 * MS) == 0.0


# Stuck sensors


def stuck(
    own: StreamStatistics, other: StreamStatistics | None = None, checks: Checks = CHECKS
) -> str:
    """Fault that is found in one of two sensors."""
    fault = find_stuck('own', {'own': own, 'other': other or StreamStatistics()}, checks)
    return fault.name if fault else ''


def repeating(end_ms: int, fault: str = FROZEN, alone: bool = False) -> StreamStatistics:
    """Statistics of a sensor that gives the same data from 0 to some time, at 100 Hz."""
    return seen(*((k, k, b'x') for k in range(0, end_ms + 1, 10)), fault=fault, alone=alone)


MOVING = seen(*((k, k, bytes([k % 251])) for k in range(0, 3000, 40)))


def test_stuck_frozen_takes_equal_data_while_another_changes():
    assert stuck(repeating(690), MOVING) == ''
    assert stuck(repeating(700), MOVING) == FROZEN
    assert stuck(repeating(2000)) == '', 'everything rests'
    assert stuck(repeating(2000), repeating(2000)) == '', 'everything rests'


def test_stuck_frozen_does_not_take_a_lag_for_a_change():
    late = seen((0, 0, b'a'), (300, 300, b'b'), (600, 600, b'b'), (2000, 2000, b'b'))
    assert stuck(repeating(2000), late) == ''
    later = seen((0, 0, b'a'), (400, 400, b'b'))
    assert stuck(repeating(2000), later) == FROZEN


def test_stuck_frozen_is_over_with_the_next_other_frame():
    statistics = seen(*((k, k, b'x') for k in range(0, 1000, 10)), (1000, 1000, b'y'))
    assert stuck(statistics, MOVING) == ''


@pytest.mark.parametrize('fault', [SILENT, STILL])
def test_stuck_silence_and_rest_need_no_other_sensor(fault):
    assert stuck(repeating(690, fault, alone=True)) == ''
    assert stuck(repeating(700, fault, alone=True)) == fault


def test_stuck_a_kind_that_may_repeat_is_never_stuck():
    assert stuck(repeating(60_000, ''), MOVING) == ''


def test_stuck_checks_can_be_switched_off():
    off = Checks(frozen_s=0.0, silent_s=0.0)
    assert stuck(repeating(60_000), MOVING, off) == ''
    assert stuck(repeating(60_000, SILENT, alone=True), MOVING, off) == ''


# Flapping


def dropouts(count: int, period_s: float, checks: Checks = CHECKS) -> tuple[Steadiness, float]:
    """A modality that was well and then missing so often; the time of its return."""
    steadiness, now_s = Steadiness(), 0.0
    for _ in range(count):
        steadiness.holds_out(True, now_s, checks)
        steadiness.holds_out(False, now_s + period_s / 2, checks)
        now_s += period_s
    return steadiness, now_s


def test_flapping_few_dropouts_cost_nothing():
    steadiness, now_s = dropouts(CHECKS.flaps - 1, 0.5)
    assert not steadiness.holds_out(True, now_s, CHECKS)


def test_flapping_many_dropouts_hold_out_until_steady():
    steadiness, now_s = dropouts(CHECKS.flaps, 0.5)
    assert steadiness.holds_out(True, now_s, CHECKS)
    assert steadiness.holds_out(True, now_s + 1.9, CHECKS)
    assert not steadiness.holds_out(True, now_s + 2.0, CHECKS)
    assert not steadiness.holds_out(True, now_s + 2.1, CHECKS)
    assert not steadiness.holds_out(False, now_s + 2.2, CHECKS), 'out anyway'
    assert not steadiness.holds_out(True, now_s + 2.3, CHECKS), 'one more dropout is forgiven'


def test_flapping_a_relapse_begins_the_wait_again():
    steadiness, now_s = dropouts(CHECKS.flaps, 0.5)
    steadiness.holds_out(True, now_s, CHECKS)
    steadiness.holds_out(False, now_s + 1.0, CHECKS)
    assert steadiness.holds_out(True, now_s + 1.1, CHECKS)
    assert steadiness.holds_out(True, now_s + 3.0, CHECKS)
    assert not steadiness.holds_out(True, now_s + 3.2, CHECKS)


def test_flapping_slow_dropouts_are_none():
    steadiness, now_s = dropouts(20, CHECKS.flap_s / (CHECKS.flaps - 1) + 0.1)
    assert not steadiness.holds_out(True, now_s, CHECKS)


def test_flapping_can_be_switched_off():
    steadiness, now_s = dropouts(50, 0.2, Checks(flaps=0))
    assert not steadiness.holds_out(True, now_s, Checks(flaps=0))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0.01, 1.0)), max_size=80))
def test_flapping_never_outlasts_a_steady_time(ticks):
    steadiness, now_s = Steadiness(), 0.0
    falls: list[float] = []
    was = False
    for well, step_s in ticks:
        now_s += step_s
        if was and not well:
            falls.append(now_s)
        was = well
        held = steadiness.holds_out(well, now_s, CHECKS)
        assert not (held and not well)
        if held:
            assert len(falls) >= CHECKS.flaps, 'held out without a cause'
    begin_s = now_s + 0.01
    steadiness.holds_out(True, begin_s, CHECKS)
    assert not steadiness.holds_out(True, begin_s + CHECKS.steady_s + 0.01, CHECKS)


# Doubt


def test_doubt_blames_after_a_while_and_believes_again_at_once():
    doubt, value = Doubt(), object()
    assert not doubt.blames(value, 3.0, True, 0.0, 0.5)
    assert not doubt.blames(value, 3.0, True, 0.49, 0.5)
    assert doubt.blames(value, 3.0, True, 0.5, 0.5)
    assert not doubt.blames(object(), 0.2, False, 0.6, 0.5)


def test_doubt_does_not_blame_what_agreed_when_it_was_new():
    doubt, value = Doubt(), object()
    assert not doubt.blames(value, 0.3, False, 0.0, 0.5)
    for k in range(100):
        assert not doubt.blames(value, 5.0, True, 0.1 * k, 0.5), 'the others went on'
    wrong = object()
    assert not doubt.blames(wrong, 5.0, True, 10.0, 0.5)
    assert doubt.blames(wrong, 5.0, True, 10.5, 0.5)


def test_doubt_lasts_while_the_others_disagree_too():
    doubt = Doubt()
    doubt.blames(object(), 5.0, True, 0.0, 0.0)
    assert doubt.blames(object(), 2.0, False, 1.0, 0.0)
    assert not doubt.blames(object(), 1.0, False, 2.0, 0.0)


def test_doubt_goes_on_through_new_data_that_never_agrees():
    doubt = Doubt()
    verdicts = [doubt.blames(object(), 5.0, True, 0.1 * k, 0.45) for k in range(7)]
    assert verdicts == [False] * 5 + [True] * 2


def test_doubt_only_what_is_still_said_when_the_patience_is_over_counts():
    silent = Doubt()
    for k in range(100):  # the others fell silent 0.3 s after the contradiction began
        assert not silent.blames(object(), 5.0, True, 0.1 * k, 0.5, min(0.1 * k, 0.3))
    living = Doubt()
    blamed = [living.blames(object(), 5.0, True, 0.1 * k, 0.45, 0.1 * k - 0.2) for k in range(9)]
    assert blamed == [False] * 7 + [True] * 2, 'as soon as the others said so again'


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.floats(0.0, 4.0), st.booleans()), min_size=1, max_size=60)
)
def test_doubt_needs_contradiction_for_all_of_the_time(ticks):
    doubt, value = Doubt(), object()
    for k, (renewed, surprise, contradicted) in enumerate(ticks):
        value = object() if renewed else value
        blamed = doubt.blames(value, surprise, contradicted, 0.1 * k, 0.5)
        agreed = surprise <= 1.0 and not contradicted
        assert not (blamed and agreed), 'believed again at once'
        if blamed:
            recent = ticks[max(0, k - 5) : k + 1]
            assert not any(s <= 1.0 and not c for _, s, c in recent), 'agreed within the time'


def test_lasting_needs_an_unbroken_time():
    lasting = Lasting()
    assert not lasting.lasts(True, 0.0, 0.5)
    assert not lasting.lasts(False, 0.4, 0.5)
    assert not lasting.lasts(True, 0.5, 0.5)
    assert lasting.lasts(True, 1.0, 0.5)


# Any history


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2000), st.integers(-8000, 8000), st.sampled_from([b'a', b'b'])),
        max_size=40,
    ),
    st.integers(0, 5000),
)
def test_judge_any_history_ends_in_one_state(messages, wait_ms):
    tracker, now_ms, value = Tracker(), 10_000, None
    for step_ms, lag_ms, mark in messages:
        now_ms += step_ms
        tracker.arrive(now_ms * MS)
        if lag_ms >= -500:
            stamp_ms = now_ms - lag_ms
            tracker.read(Trace(mark, FROZEN), stamp_ms * MS, now_ms * MS, 0.5)
            value = Stamped(mark, stamp_ms * MS)
    now_ms += wait_ms
    reading = Reading(value, statistics=tracker.statistics)
    verdict = judge(reading, LIMITS, now_ms * MS)
    fresh = value is not None and now_ms * MS - value.stamp_ns <= SECOND
    assert verdict.used == fresh
    assert verdict.used == (verdict.state is State.OK)
    assert bool(verdict.reason) == (verdict.state is not State.OK)
    held = judge(reading, replace(LIMITS, hold=True), now_ms * MS)
    assert held.used == (value is not None)
