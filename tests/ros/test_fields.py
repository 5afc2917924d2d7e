"""Fields of any message by path: what they read, how they are written back, what is refused."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped, Quaternion, TransformStamped
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import serialize_message
from sensor_msgs.msg import BatteryState, Imu, JointState, LaserScan, MultiDOFJointState, Range
from std_msgs.msg import Bool, Float64MultiArray

from mm_perception.errors import ConfigError, InvalidInput
from mm_perception.fusion.gathering import complete
from mm_perception.fusion.health import Limits
from mm_perception.fusion.streams import Stream
from mm_perception.modalities import Modality, build_modality
from mm_perception.ros.codecs import Draft, codec_for, make_header
from mm_perception.ros.codecs.paths import compile_path
from mm_perception.ros.codecs.rotations import six_of_quaternion, write_six
from mm_perception.spec import ModalitySpec, ModelSpec

JOINTS = 'sensor_msgs/msg/JointState'
SCAN = 'sensor_msgs/msg/LaserScan'


def modality(message: str, *fields: str, kind: str = 'vector', **options: Any) -> Modality[Any]:
    return build_modality(
        ModalitySpec('it', kind, preprocessing={'fields': fields, **options}, message=message)
    )


def read(message_type: str, message: Any, *fields: str, **options: Any) -> Any:
    """Raw value of one message."""
    it = modality(message_type, *fields, **options)
    return complete(codec_for(it).decode(message, 7, it)[0])


REFUSED = {
    ('nav', 'x'): '"nav" is no message type; write package/msg/Type',
    ('os/path/Type', 'x'): '"os/path/Type" is no message type',
    ('none_such/msg/Type', 'x'): 'no package none_such with messages; install or source it',
    ('numpy/msg/Type', 'x'): 'no package numpy with messages',
    ('sensor_msgs/msg/Odometer', 'x'): 'sensor_msgs has no message Odometer; it has BatteryState',
    ('', 'x'): 'preprocessing.fields needs the type of the message',
    (JOINTS, 'speed[a]'): 'JointState has no field speed; numbers in sensor_msgs/msg/JointState:'
    ' position[...], velocity[...], effort[...]',
    (JOINTS, 'position[a'): '"position[a" is no path: cannot be read at "position[a"',
    (JOINTS, 'position.a'): 'position is a sequence: say which, such as [0]',
    (JOINTS, 'position[]'): 'position[] picks nothing',
    (JOINTS, 'name'): 'name holds string',
    (JOINTS, 'header'): 'a header is no measurement',
    (JOINTS, 'grad(position[a])'): 'grad is not one of angle, angle_deg, yaw',
    (JOINTS, 'position[a]', 'velocity'): 'a sequence of any length cannot stand beside elements',
    (SCAN, 'ranges[left]'): 'no names lie beside ranges to find left by; pick by number',
    (SCAN, 'range_min[0]'): 'range_min is one float, of which nothing can be picked',
    (SCAN, 'range_min.x'): 'range_min is float and has no x',
    ('sensor_msgs/msg/Imu', 'orientation_covariance[9]'): 'has at most 9 elements',
    ('sensor_msgs/msg/Imu', 'yaw(angular_velocity)'): 'yaw is of geometry_msgs/Quaternion',
    ('sensor_msgs/msg/BatteryState', 'location'): 'location is string',
}


@pytest.mark.parametrize('case', REFUSED, ids=str)
def test_wrong_fields_are_refused_in_one_line(case: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as error:
        codec_for(modality(case[0], *case[1:]))
    assert str(error.value).startswith('it: ') and REFUSED[case] in str(error.value)
    assert '\n' not in str(error.value)


def test_type_without_fields_and_wrong_symbols_are_refused() -> None:
    with pytest.raises(ConfigError, match='or name its fields in preprocessing'):
        codec_for(modality('sensor_msgs/msg/Illuminance'))
    battery = 'sensor_msgs/msg/BatteryState'
    symbols = {'kind': 'symbol', 'labels': ('on', 'off')}
    with pytest.raises(ConfigError, match='a symbol has one field'):
        codec_for(modality(battery, 'voltage', 'current', **symbols))
    with pytest.raises(ConfigError, match="'NONE' is neither a number nor a constant of Battery"):
        codec_for(modality(battery, 'power_supply_status', values={'NONE': 'on'}, **symbols))
    with pytest.raises(ConfigError, match="values give 'oops', which is not in labels"):
        modality(battery, 'power_supply_status', values={1: 'oops'}, **symbols)
    with pytest.raises(ConfigError, match='fields give 3 numbers; dimensions is 2'):
        codec_for(modality('geometry_msgs/msg/PointStamped', 'point', kind='trajectory'))


def test_numbers_are_read_where_they_are() -> None:
    joints = JointState(name=['b', 'a'], position=[1.0, 2.0], velocity=[3.0, 4.0])
    assert list(read(JOINTS, joints, 'velocity[a]', 'position[b]')) == [4.0, 1.0]
    angles = read(JOINTS, joints, 'angle(position[a])')
    np.testing.assert_allclose(angles, [math.cos(2.0), math.sin(2.0)], atol=1e-6)
    array = Float64MultiArray(data=[0.0, 1.0, 2.0, 3.0, 4.0])
    name = 'std_msgs/msg/Float64MultiArray'
    assert list(read(name, array, 'data[3]', 'data[1:3]')) == [3.0, 1.0, 2.0]
    assert list(read('std_msgs/Float64MultiArray', array, 'data[::2]')) == [0.0, 2.0, 4.0]
    many = MultiDOFJointState()
    many.transforms = [TransformStamped().transform for _ in range(2)]
    many.transforms[1].translation.x = 5.0
    name = 'sensor_msgs/msg/MultiDOFJointState'
    assert list(read(name, many, 'transforms[1].translation')) == [5.0, 0.0, 0.0]
    with pytest.raises(InvalidInput, match=r'transforms has 2 elements, no transforms\[2\]'):
        read(name, many, 'transforms[2].translation.x')
    with pytest.raises(InvalidInput, match='data has 5 elements; 3 of them are wanted'):
        read('std_msgs/msg/Float64MultiArray', array, 'data[4:7]')


def test_what_is_out_of_sight_is_as_far_as_the_sensor_sees() -> None:
    scan = LaserScan(range_min=0.5, range_max=9.0, ranges=[math.inf, 2.0, math.nan, -math.inf])
    assert list(read(SCAN, scan, 'ranges')) == [9.0, 2.0, 9.0, 0.5]
    sonar = Range(min_range=0.5, max_range=9.0, range=math.inf)
    with pytest.raises(InvalidInput, match='orientation has the norm nan'):
        read('sensor_msgs/msg/Imu', Imu(orientation=Quaternion(w=1.0, x=math.nan)), 'orientation')
    assert list(read('sensor_msgs/msg/Range', sonar, 'range')) == [9.0]


def test_symbols_come_from_numbers_booleans_and_constants() -> None:
    options = {'kind': 'symbol', 'labels': ('open', 'shut')}
    values = {True: 'open', 'false': 'shut'}
    assert read('std_msgs/msg/Bool', Bool(data=True), 'data', values=values, **options) == 'open'
    assert read('std_msgs/msg/Bool', Bool(data=False), values=values, **options) == 'shut'
    values = {'POWER_SUPPLY_STATUS_FULL': 'open', 3: 'shut'}
    field, name = 'power_supply_status', 'sensor_msgs/msg/BatteryState'
    full = BatteryState(power_supply_status=BatteryState.POWER_SUPPLY_STATUS_FULL)
    assert read(name, full, field, values=values, **options) == 'open'
    with pytest.raises(InvalidInput, match=r'power_supply_status is 1; known: 4 \(open\), 3'):
        read(name, BatteryState(power_supply_status=1), field, values=values, **options)
    assert read('std_msgs/msg/Bool', Bool(data=True), 'data', kind='symbol', labels=('true',)) == (
        'true'
    )


def test_joints_by_name_are_gathered_over_messages() -> None:
    it = modality(JOINTS, 'velocity[a]', 'velocity[b]', low=(-9, -9), high=(9, 9))
    stream, codec = Stream(it), codec_for(it)
    assert codec.shared
    for k, (name, velocity) in enumerate((('a', 1.0), ('wheel', 5.0), ('b', 2.0))):
        message = JointState(header=make_header(10**18 + k), name=[name], velocity=[velocity])
        raw, stamp_ns = codec.decode(message, 0, it)
        stream.take(raw, stamp_ns, 10**18 + k, Limits())
    value = stream.snapshot().value
    assert value is not None and list(value.raw) == [1.0, 2.0]


unit = st.floats(-1.0, 1.0)


@given(st.tuples(unit, unit, unit, unit).filter(lambda q: np.linalg.norm(q) > 0.1))
@settings(max_examples=100, deadline=None)
def test_rotation_comes_back_and_does_not_jump(q: tuple[float, ...]) -> None:
    x, y, z, w = np.asarray(q) / np.linalg.norm(q)
    first = Quaternion(x=x, y=y, z=z, w=w)
    other = Quaternion(x=-x, y=-y, z=-z, w=-w)
    np.testing.assert_allclose(six_of_quaternion(first), six_of_quaternion(other), atol=1e-12)
    made = copy.deepcopy(first)
    write_six(made, 1.7 * np.array(six_of_quaternion(first)))
    for name in 'xyzw':
        assert getattr(made, name) == pytest.approx(getattr(first, name), abs=1e-7)


@given(st.lists(st.floats(-2.0, 2.0), min_size=6, max_size=6))
@settings(max_examples=100, deadline=None)
def test_any_six_numbers_make_a_rotation(six: list[float]) -> None:
    made = PoseStamped()
    compile_path('pose.orientation', PoseStamped).write(made, np.array(six))
    turn = made.pose.orientation
    assert np.linalg.norm([turn.x, turn.y, turn.z, turn.w]) == pytest.approx(1.0)


def test_angles_are_written_near_to_where_they_were() -> None:
    it = modality(JOINTS, 'angle(position[a])', low=(-1, -1), high=(1, 1))
    like = JointState(name=['b', 'a'], position=[1.0, 12.0])
    array = it.to_model(np.array([math.cos(12.4), math.sin(12.4)], np.float32))
    write = codec_for(it).write
    assert write is not None
    made = write(Draft(it, array, make_header(1), like))
    assert made.position == pytest.approx([1.0, 12.4], abs=1e-5)
    unseen = write(Draft(it, array, make_header(1)))
    assert (unseen.name, len(unseen.position)) == (['a'], 1)


def test_ranges_between_those_that_are_picked_lie_between() -> None:
    it = modality(SCAN, 'ranges[::3]', low=(0,) * 3, high=(9,) * 3)
    like = LaserScan(range_max=9.0, ranges=[1.0] * 9)
    write = codec_for(it).write
    assert write is not None
    array = it.to_model(np.array([3.0, 6.0, 3.0], np.float32))
    made = write(Draft(it, array, make_header(1), like))
    np.testing.assert_allclose(made.ranges, [3, 4, 5, 6, 5, 4, 3, 3, 3], atol=1e-5)


def test_fields_of_a_bag_are_those_of_the_node(tmp_path: Path) -> None:
    pytest.importorskip('rosbags', reason='rosbags is not installed')
    from rosbags.rosbag2 import Writer
    from rosbags.typesys import Stores, get_typestore

    from mm_perception.ros.bag_import import Bags, import_bags

    it = modality(JOINTS, 'angle(position[a])', 'velocity[b]', low=(-1,) * 3, high=(1,) * 3)
    sent = [
        JointState(
            header=make_header(10**18 + k * 10**8), name=['b', 'a'], position=[0.0, 0.1 * k],
            velocity=[math.sin(0.2 * k), 0.0],
        )
        for k in range(20)
    ]  # fmt: skip
    with Writer(tmp_path / 'bag', version=9) as writer:
        store = get_typestore(Stores.ROS2_JAZZY)
        topic = writer.add_connection('/it', JOINTS, typestore=store)
        for k, message in enumerate(sent):
            writer.write(topic, 10**18 + k * 10**8, serialize_message(message))
    dataset, _ = import_bags(ModelSpec((it.spec,)), Bags([tmp_path / 'bag']))
    codec = codec_for(it)
    live = [it.to_model(complete(codec.decode(message, 0, it)[0])) for message in sent]
    rows = dataset.values['it'][dataset.index['it']]
    assert len(rows) >= 19
    for row in rows:
        assert np.abs(np.array(live) - row).max(axis=1).min() < 1e-6
