"""The plan of the demonstration."""

import itertools

import pytest

from mm_perception.lab.demo.log import MARGIN_S, SINGLE_S, phase_at, plan_phases, schedule_json
from mm_perception.lab.replay.playlist import active_faults, parse_schedule

MAX_AGE_S = {'image': 0.5, 'trajectory': 1.2, 'sound': 2.0, 'symbol': 1.2}


def test_phases_take_away_every_proper_subset_once():
    phases = plan_phases(MAX_AGE_S)
    missing = [phase.missing for phase in phases[1:-1]]
    subsets = [s for k in (1, 2, 3) for s in itertools.combinations(MAX_AGE_S, k)]
    assert sorted(missing) == sorted(subsets)
    assert phases[0].missing == phases[-1].missing == ()


def test_phases_follow_each_other_and_end_in_time():
    phases = plan_phases(MAX_AGE_S)
    for before, after in itertools.pairwise(phases):
        assert after.start_s == pytest.approx(before.end_s)
        assert len(set(before.missing) ^ set(after.missing)) <= 2
    assert phases[-1].end_s < 80


def test_phases_wait_until_a_failure_shows():
    phases = {phase.missing: phase for phase in plan_phases(MAX_AGE_S)}
    assert phases['image',].duration_s == pytest.approx(SINGLE_S + 0.5 + MARGIN_S)
    ordered = plan_phases(MAX_AGE_S)
    for before, after in itertools.pairwise(ordered):
        new = set(after.missing) - set(before.missing)
        assert after.duration_s >= max((MAX_AGE_S[name] for name in new), default=0)


def test_phases_scale_but_for_the_wait():
    phases = {phase.missing: phase for phase in plan_phases(MAX_AGE_S, scale=0.5)}
    assert phases['image',].duration_s == pytest.approx(SINGLE_S / 2 + 0.5 + MARGIN_S)


def test_phases_suit_any_modalities():
    assert [p.missing for p in plan_phases({'a': 1.0, 'b': 1.0})] == [(), ('a',), ('b',), ()]


def test_schedule_is_what_the_replay_node_reads():
    phases = plan_phases(MAX_AGE_S)
    schedule = parse_schedule(schedule_json(phases), list(MAX_AGE_S))
    for phase in phases:
        time_s = phase.start_s + 0.5 * phase.duration_s
        assert active_faults(schedule, time_s) == dict.fromkeys(phase.missing, 'silent')
        assert phase_at(phases, time_s) == phase
    assert phase_at(phases, -1.0) is None


def test_phases_leave_time_to_start_and_report_within_a_minute_or_half():
    ages_s = {'image': 0.5, 'trajectory': 1.2, 'sound': 2.0, 'symbol': 1.2}  # of the bundle mhd
    assert plan_phases(ages_s)[-1].end_s <= 55.0
    quick = plan_phases(ages_s, quick=True)
    assert [len(phase.missing) for phase in quick] == [0, 1, 1, 1, 1, 0]
    assert quick[-1].end_s <= 20.0
