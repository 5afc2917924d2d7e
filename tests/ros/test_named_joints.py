"""Joints by name: in any order, among others, and spread over messages of one topic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from mm_perception.errors import ConfigError
from mm_perception.fusion.assessment import judge
from mm_perception.fusion.health import Limits, State
from mm_perception.fusion.streams import Stream, Taken
from mm_perception.modalities import Modality, build_modality
from mm_perception.ros.codecs import input_codec, make_header, message_name
from mm_perception.spec import ModalitySpec

SECOND = 1_000_000_000
LIMITS = Limits()
NAMES = ('a', 'b', 'c')
VALUES = {'a': 0.1, 'b': 0.2, 'c': 0.3}


def vector(names: tuple[str, ...] = NAMES) -> Modality[Any]:
    options = {'low': (-1.0,) * 3, 'high': (1.0,) * 3, 'names': names}
    return build_modality(ModalitySpec('joints', 'vector', 4, options))


def pen(names: tuple[str, ...] = (), **options: Any) -> Modality[Any]:
    return build_modality(ModalitySpec('pen', 'trajectory', 4, {'names': names, **options}))


def state(*names: str, now_s: float = 1.0, **values: float) -> JointState:
    known = VALUES | values
    return JointState(
        header=make_header(int(now_s * SECOND)),
        name=list(names),
        position=[known.get(name, 9.0) for name in names],
    )


def motion(*names: str, rows: np.ndarray) -> JointTrajectory:
    points = [JointTrajectoryPoint(positions=row.tolist()) for row in rows]
    return JointTrajectory(header=make_header(SECOND), joint_names=list(names), points=points)


def take(stream: Stream, message: Any) -> Taken:
    """Deliver a message at the time of its stamp."""
    kind, now_ns = stream.modality.spec.kind, int(message.header.stamp.sec * SECOND)
    now_ns += message.header.stamp.nanosec
    codec = input_codec(kind, message_name(type(message)))
    try:
        raw, stamp_ns = codec.decode(message, now_ns, stream.modality)
    except Exception as error:  # noqa: BLE001 - as the node does
        return stream.refuse(error, now_ns)
    return stream.take(raw, stamp_ns, now_ns, LIMITS)


def value(stream: Stream) -> Any:
    """Newest raw value; None before the first."""
    stamped = stream.snapshot().value
    return None if stamped is None else stamped.raw


@given(st.permutations([*NAMES, 'x', 'y']))
@settings(max_examples=30, deadline=None)
def test_vector_is_ordered_by_name_among_others(names):
    stream = Stream(vector())
    take(stream, state(*names))
    np.testing.assert_allclose(value(stream), [0.1, 0.2, 0.3], atol=1e-6)


def test_vector_without_names_keeps_the_order_seen_first():
    stream = Stream(vector(()))
    take(stream, state('c', 'a', 'b'))
    np.testing.assert_allclose(value(stream), [0.3, 0.1, 0.2], atol=1e-6)
    take(stream, state('a', 'b', 'c', now_s=1.1, a=0.5))
    np.testing.assert_allclose(value(stream), [0.3, 0.5, 0.2], atol=1e-6)
    stream.clear()
    take(stream, state('a', 'b', 'c', now_s=1.2))
    np.testing.assert_allclose(value(stream), [0.1, 0.2, 0.3], atol=1e-6)


def test_vector_without_names_needs_the_right_number():
    refused = take(Stream(vector(())), state('a', 'b', 'c', 'd')).refused
    assert '4 elements; expected 3, got a, b, c, d' in refused and 'preprocessing.names' in refused
    stream = Stream(vector(()))
    take(stream, JointState(position=[0.1, 0.2, 0.3]))
    np.testing.assert_allclose(value(stream), [0.1, 0.2, 0.3], atol=1e-6)
    assert '2 joint positions' in take(stream, JointState(position=[0.1, 0.2])).refused


def test_vector_names_and_positions_belong_together():
    assert (
        '2 names but 1 positions'
        in take(Stream(vector()), JointState(name=['a', 'b'], position=[1.0])).refused
    )
    assert 'no names of joints' in take(Stream(vector()), JointState(position=[1.0])).refused
    nan = take(Stream(vector()), state(*NAMES, b=float('nan')))
    assert 'NaN' in nan.refused
    assert not take(Stream(vector()), state(*NAMES, 'x', x=float('nan'))).refused, 'not ours'


def test_joints_are_gathered_over_messages_each_with_its_age():
    stream = Stream(vector())
    take(stream, state('a', 'b', now_s=1.00))
    assert value(stream) is None
    assert judge(stream.snapshot(), LIMITS, SECOND).state is State.WAITING
    assert 'no message has named c yet' in judge(stream.snapshot(), LIMITS, SECOND).reason
    take(stream, state('c', 'other', now_s=1.01))
    np.testing.assert_allclose(value(stream), [0.1, 0.2, 0.3], atol=1e-6)
    take(stream, state('b', 'a', now_s=1.02, a=0.7))
    np.testing.assert_allclose(value(stream), [0.7, 0.2, 0.3], atol=1e-6)
    stamped = stream.snapshot().value
    assert stamped is not None
    assert stamped.stamp_ns == 1_010_000_000, 'as old as its oldest joint'


def test_a_message_that_names_none_of_ours_is_not_ours():
    stream = Stream(vector())
    for k in range(5):
        take(stream, state(*NAMES, now_s=1 + k))
        taken = take(stream, state('left', 'right', now_s=1.5 + k))
        assert not (taken.refused or taken.news)
        np.testing.assert_allclose(value(stream), [0.1, 0.2, 0.3], atol=1e-6)
    assert (stream.received, stream.refused) == (10, 0)
    only = Stream(vector())
    take(only, state('left', 'right'))
    reason = judge(only.snapshot(), LIMITS, SECOND).reason
    assert 'messages name left, right, but not a, b, c' in reason
    assert 'preprocessing.names' in reason


def test_a_gripper_that_stops_makes_the_joints_old_and_is_named():
    stream = Stream(vector())
    for k in range(30):
        take(stream, state('a', 'b', now_s=1 + 0.1 * k))
        if k < 10:
            take(stream, state('c', now_s=1 + 0.1 * k))
    verdict = judge(stream.snapshot(), LIMITS, int(3.9 * SECOND))
    assert verdict.state is State.STALE
    assert verdict.age_s == pytest.approx(2.0, abs=0.01)
    assert 'c is what came last' in verdict.reason


def test_joints_that_nobody_names_are_refused_after_a_while():
    stream = Stream(vector())
    assert not take(stream, state('a', 'b', now_s=1.0)).refused
    assert not take(stream, state('a', 'b', now_s=1.9)).refused
    assert 'no position of joint c' in take(stream, state('a', 'b', now_s=2.1)).refused
    assert not take(stream, state('c', now_s=2.2)).refused
    assert value(stream) is not None


ROWS = np.array([[0.0, 0.0, 5.0], [1.0, 0.0, 5.0], [1.0, 2.0, 5.0]])


@pytest.mark.parametrize('names', [('q1', 'q2'), ('q2', 'q1')])
def test_trajectory_is_ordered_by_name_among_others(names):
    stream, columns = Stream(pen(names)), {'q1': 0, 'q2': 1, 'x': 2}
    for order in (('q1', 'q2', 'x'), ('x', 'q2', 'q1'), ('q2', 'q1')):
        assert not take(stream, motion(*order, rows=ROWS[:, [columns[n] for n in order]])).refused
        np.testing.assert_array_equal(value(stream).points, ROWS[:, [columns[n] for n in names]])
    assert (
        'no position of joint q1 in the message'
        in take(stream, motion('q2', 'x', rows=ROWS[:, 1:])).refused
    )
    assert (
        'no names of joints'
        in take(
            Stream(pen(names)), JointTrajectory(points=motion(rows=ROWS[:, :2]).points)
        ).refused
    )


def test_trajectory_without_names_keeps_the_order_seen_first_and_knows_x_from_y():
    stream = Stream(pen())
    take(stream, motion('q2', 'q1', rows=ROWS[:, :2]))
    take(stream, motion('q1', 'q2', rows=ROWS[:, [1, 0]]))
    np.testing.assert_array_equal(value(stream).points, ROWS[:, :2])
    axes = Stream(pen())
    take(axes, motion('y', 'x', rows=ROWS[:, [1, 0]]))
    np.testing.assert_array_equal(value(axes).points, ROWS[:, :2])


def test_points_of_a_stream_are_gathered_by_name():
    stream = Stream(pen(('a', 'c'), window='sliding', seconds=10.0, spacing='time'))
    for k in range(20):
        take(stream, state('c', 'b', now_s=1 + 0.1 * k, c=0.1 * k))
        take(stream, state('x', 'a', now_s=1.05 + 0.1 * k, a=-0.1 * k))
    points = value(stream).points
    np.testing.assert_allclose(points[-1], [-1.9, 1.9], atol=1e-6)
    assert (np.diff(value(stream).times_s) >= 0).all()


def test_names_must_be_as_many_as_the_elements():
    with pytest.raises(ConfigError, match='joints: names are 2; give 3'):
        vector(('a', 'b'))
    with pytest.raises(ConfigError, match='pen: names are 2; give 2 different'):
        pen(('a', 'a'))


@pytest.mark.parametrize(
    ('wanted', 'expected'), [((), [1.0, 2.0, 3.0]), (('c', 'a'), [3.0, 1.0])], ids=['all', 'named']
)
def test_joints_whose_range_is_unknown_are_read_for_it(
    wanted: tuple[str, ...], expected: list[float]
) -> None:
    unknown = build_modality(ModalitySpec('joints', 'vector', 4, {'names': wanted}))
    stream = Stream(unknown)
    assert not take(stream, state('a', 'b', 'c', a=1.0, b=2.0, c=3.0)).refused
    value = stream.snapshot().value
    assert value is not None
    np.testing.assert_array_equal(value.raw, np.float32(expected))
