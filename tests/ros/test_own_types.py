"""Sensors of any message type: over DDS, taken away, and what stands in for them in their type."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import (
    PointStamped,
    Pose,
    PoseStamped,
    Quaternion,
    Twist,
    TwistStamped,
    Vector3Stamped,
    WrenchStamped,
)
from rclpy.serialization import serialize_message
from sensor_msgs.msg import (
    BatteryState,
    CompressedImage,
    Image,
    Imu,
    JointState,
    LaserScan,
    MagneticField,
    NavSatFix,
    PointCloud2,
    PointField,
    Range,
    Temperature,
)
from std_msgs.msg import (
    Bool,
    Float32,
    Float32MultiArray,
    Float64,
    Float64MultiArray,
    Int32,
    Int64,
    String,
    UInt16,
)
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

pytest.importorskip('torch', reason='torch is not installed')

from mm_perception.bundle import Bundle, save_bundle
from mm_perception.engines.build import build_engine
from mm_perception.fusion.gathering import complete
from mm_perception.fusion.session import InferenceSession
from mm_perception.modalities import build_modality
from mm_perception.ros.codecs import (
    Draft,
    codec_for,
    make_header,
    message_name,
    restamped,
    stamp_of,
)
from mm_perception.spec import ModalitySpec, ModelSpec
from tests.helpers.message_package import lacking, messages_of
from tests.helpers.robot import NodeProcess, Robot, robots
from tests.helpers.small_bundle import make_bundle

NAMESPACE = '/own'
FRAME = 'its_frame'
PERIOD_S = 0.2
SCAN = np.linspace(0.2, 2.0, 32)
TIMES_S = np.linspace(0.0, 2.5, 9)
CODES = BatteryState.POWER_SUPPLY_STATUS_DISCHARGING, BatteryState.POWER_SUPPLY_STATUS_CHARGING


@dataclass(frozen=True)
class Case:
    """
    A sensor that tells of one number u in -1..1.

    :param fill: puts what it says into a message.
    :param read: numbers of a message that u decides; or its label.
    :param options: preprocessing, but for the range.
    """

    kind: str
    message_type: type
    fill: Callable[[Any, float], None]
    read: Callable[[Any], Any]
    options: Mapping[str, Any] = field(default_factory=dict)

    def message(self, u: float, stamp_ns: int) -> Any:
        """What it sends."""
        message = self.message_type()
        if hasattr(message, 'header'):
            message.header = make_header(stamp_ns, FRAME)
        self.fill(message, u)
        return message


def put(message: Any, **values: Any) -> None:
    for name, value in values.items():
        setattr(message, name, value)


def turned(angle: float) -> Quaternion:
    return Quaternion(z=math.sin(angle / 2), w=math.cos(angle / 2))


def heading(turn: Quaternion) -> list[float]:
    return [math.cos(2 * math.atan2(turn.z, turn.w)), math.sin(2 * math.atan2(turn.z, turn.w))]


def fill_odometry(message: Any, u: float) -> None:
    message.child_frame_id = 'base'
    message.pose.pose.position.x = u
    message.pose.pose.orientation = turned(3.0 + u)  # passes the cut at a half turn
    message.twist.twist.linear.x = -u
    message.pose.covariance[35] = 0.25


def fill_pose(message: Pose, u: float) -> None:
    put(message.position, x=1.0 + u, y=-u)
    message.orientation = turned(u)


def read_pose(message: Pose) -> list[float]:
    return [message.position.x, message.position.y, *heading(message.orientation)]


def fill_joints(message: JointState, u: float) -> None:
    put(message, name=['grip', 'elbow', 'other', 'pan'], position=[u, -u, 7.0, 3.1 + 0.5 * u])
    put(message, velocity=[0.5 * u, 0.0, 9.0, 0.0], effort=[1.0, 2.0, 3.0, 4.0])


def fill_path(message: JointTrajectory, u: float) -> None:
    message.joint_names = ['wrist', 'base']
    message.points = [
        JointTrajectoryPoint(
            positions=[u * s, 1.0 - s],
            time_from_start=Duration(sec=int(s), nanosec=round(s % 1 * 1e9)),
        )
        for s in TIMES_S
    ]


def picture(u: float) -> np.ndarray:
    """A soft bar across a frame, ``uint8[48, 64, 3]``, and a border that the crop leaves out."""
    row = 40 + 180 * np.exp(-30 * ((np.arange(64) - 32) / 48 - 0.3 * u) ** 2)
    row[:4] = 250.0
    return np.repeat(np.repeat(row[None, :, None], 48, 0), 3, 2).astype(np.uint8)


def fill_camera(message: Image, u: float) -> None:
    put(message, height=48, width=64, encoding='bgr8', step=192, data=picture(u).tobytes())


def middle(message: Image) -> np.ndarray:
    return np.frombuffer(message.data, np.uint8).reshape(48, 64, 3)[24, 8:56, 0] / 255.0


def pictured(u: float) -> bytes:
    return cv2.imencode('.jpg', picture(u))[1].tobytes()


SEEN = [k for k in range(8, 56) if k % 9]


def fill_depth(message: Image, u: float) -> None:
    depth = picture(u)[:, :, 0].astype('<u2') * 12
    depth[:, ::9] = 0  # no return
    put(message, height=48, width=64, encoding='16UC1', step=128, data=depth.tobytes())


def depths(message: Image) -> np.ndarray:
    return np.frombuffer(message.data, '<u2').reshape(48, 64)


def fill_cloud(message: PointCloud2, u: float) -> None:
    """A wall aslant at 5 m + u, seen along rays of which some do not return."""
    rows, columns = np.mgrid[:16, :16] / 8.0 - 1.0
    cloud = np.stack([0.2 * columns, 0.2 * rows, np.ones((16, 16))], axis=2)
    cloud *= (5.0 + u + 2 * columns)[..., None] / np.linalg.norm(cloud, axis=2, keepdims=True)
    cloud[3, 5:9] = np.nan
    fields = [PointField(name=n, offset=4 * k, datatype=7, count=1) for k, n in enumerate('xyz')]
    put(message, height=16, width=16, fields=fields, point_step=12, row_step=192)
    message.data = cloud.astype('<f4').tobytes()


def points(message: PointCloud2) -> np.ndarray:
    return np.frombuffer(message.data, '<f4').reshape(16, 16, 3)


def fill_array(message: Any, u: float) -> None:
    message.data = [u, 2 * u, -u, 5.0]


CASES = {
    'pose': Case(
        'vector',
        PoseStamped,
        lambda m, u: fill_pose(m.pose, u),
        lambda m: read_pose(m.pose),
    ),
    'place': Case('vector', Pose, fill_pose, read_pose),
    'turn': Case(
        'vector',
        PoseStamped,
        lambda m, u: fill_pose(m.pose, u),
        lambda m: heading(m.pose.orientation),
        {'fields': ('yaw(pose.orientation)',)},
    ),
    'twist': Case(
        'vector',
        TwistStamped,
        lambda m, u: put(m.twist.linear, x=u, y=-u),
        lambda m: [m.twist.linear.x, m.twist.linear.y],
        {'fields': ('twist.linear.x', 'twist.linear.y')},
    ),
    'drive': Case(
        'vector', Twist, lambda m, u: put(m.angular, z=u), lambda m: m.angular.z
    ),
    'force': Case(
        'vector', WrenchStamped, lambda m, u: put(m.wrench.force, y=u), lambda m: m.wrench.force.y
    ),
    'wind': Case(
        'vector', Vector3Stamped, lambda m, u: put(m.vector, x=9 * u), lambda m: m.vector.x / 9
    ),
    'imu': Case(
        'vector',
        Imu,
        lambda m, u: put(m.angular_velocity, x=u, y=-u),
        lambda m: [m.angular_velocity.x, m.angular_velocity.y],
    ),
    'scan': Case(
        'vector',
        LaserScan,
        lambda m, u: put(m, range_min=0.1, range_max=8.0, ranges=(3.0 + u * SCAN).tolist()),
        lambda m: np.array(m.ranges)[:29] - 3.0,
        {'fields': ('ranges[::4]',)},
    ),
    'sonar': Case(
        'vector',
        Range,
        lambda m, u: put(m, min_range=0.1, max_range=9.0, range=2.0 + u),
        lambda m: m.range - 2.0,
    ),
    'gps': Case(
        'vector',
        NavSatFix,
        lambda m, u: put(m, latitude=48.0 + u, longitude=11.0 - u),
        lambda m: [m.latitude - 48.0, m.longitude - 11.0],
        {'fields': ('latitude', 'longitude')},
    ),
    'battery': Case(
        'vector',
        BatteryState,
        lambda m, u: put(m, voltage=12.0 + u, location='slot'),
        lambda m: m.voltage - 12.0,
    ),
    'compass': Case(
        'vector', MagneticField, lambda m, u: put(m.magnetic_field, x=u),
        lambda m: m.magnetic_field.x,
    ),
    'heat': Case(
        'vector',
        Temperature,
        lambda m, u: put(m, temperature=20.0 + u),
        lambda m: m.temperature - 20.0,
    ),
    'level': Case('vector', Float32, lambda m, u: put(m, data=u), lambda m: m.data),
    'fine_level': Case('vector', Float64, lambda m, u: put(m, data=u), lambda m: m.data),
    'array': Case('vector', Float32MultiArray, fill_array, lambda m: m.data[:3]),
    'part': Case(
        'vector',
        Float64MultiArray,
        fill_array,
        lambda m: m.data[:2],
        {'fields': ('data[0:2]',)},
    ),
    'joint_states': Case(
        'vector',
        JointState,
        fill_joints,
        lambda m: m.position[:2],
        {'names': ('elbow', 'grip')},
    ),
    'joint_speeds': Case(
        'vector',
        JointState,
        fill_joints,
        lambda m: [m.velocity[0], m.position[3] - 3.1],
        {'fields': ('velocity[grip]', 'angle(position[pan])')},
    ),
    'joint_efforts': Case(
        'vector',
        JointState,
        lambda m, u: put(m, name=['elbow', 'grip'], effort=[u, 5.0 - u]),
        lambda m: list(m.effort),
        {'fields': ('effort[grip]', 'effort[elbow]')},
    ),
    'path': Case(
        'trajectory',
        JointTrajectory,
        fill_path,
        lambda m: [point.positions[0] / 2.5 for point in m.points],
        {'names': ('base', 'wrist'), 'points': 6, 'spacing': 'time', 'low': (-2, -3),
         'high': (2, 3)},
    ),
    'tip': Case(
        'trajectory',
        PointStamped,
        lambda m, u: put(m.point, x=u, y=-u),
        lambda m: [m.point.x, m.point.y],
        {'points': 4, 'spacing': 'time', 'window': 'sliding', 'seconds': 0.5, 'low': (-2, -2),
         'high': (2, 2)},
    ),
    'camera': Case(
        'image', Image, fill_camera, middle, {'height': 12, 'width': 12, 'channels': 1}
    ),
    'depth': Case(
        'image', Image, fill_depth, lambda m: depths(m)[24, SEEN] / 4000.0,
        {'height': 12, 'width': 12, 'full_scale': 4000.0},
    ),
    'picture': Case(
        'image',
        CompressedImage,
        lambda m, u: put(m, format='jpeg', data=pictured(u)),
        lambda m: cv2.imdecode(np.frombuffer(m.data, np.uint8), 0)[24, 8:56] / 255.0,
        {'height': 12, 'width': 12},
    ),
    'lidar': Case(
        'image', PointCloud2, fill_cloud, lambda m: points(m)[2:-2:4, 2:-2:4, 2] / 9.0,
        {'height': 4, 'width': 4, 'full_scale': 9.0},
    ),
    'word': Case(
        'symbol',
        String,
        lambda m, u: put(m, data='right' if u > 0 else 'left'),
        lambda m: m.data,
        {'labels': ('left', 'right')},
    ),
    'door': Case(
        'symbol',
        Bool,
        lambda m, u: put(m, data=u > 0),
        lambda m: m.data,
        {'labels': ('shut', 'open'), 'values': {True: 'open', False: 'shut'}},
    ),
    'gear': Case(
        'symbol',
        Int32,
        lambda m, u: put(m, data=1 if u > 0 else -1),
        lambda m: m.data,
        {'labels': ('1', '-1')},
    ),
    'count': Case(
        'symbol', UInt16, lambda m, u: put(m, data=7 + (u > 0)), lambda m: m.data,
        {'labels': ('7', '8')},
    ),
    'code': Case(
        'symbol', Int64, lambda m, u: put(m, data=-5 * (u > 0)), lambda m: m.data,
        {'labels': ('none', 'five'), 'values': {0: 'none', -5: 'five'}},
    ),
    'supply': Case(
        'symbol',
        BatteryState,
        lambda m, u: put(m, power_supply_status=CODES[int(u > 0)], location='slot'),
        lambda m: m.power_supply_status,
        {
            'labels': ('drains', 'loads'),
            'fields': ('power_supply_status',),
            'values': {'POWER_SUPPLY_STATUS_CHARGING': 'loads', CODES[0]: 'drains'},
        },
    ),
}  # fmt: skip
if find_spec('nav_msgs') is not None:
    from nav_msgs.msg import Odometry

    CASES['odometry'] = Case(
        'vector',
        Odometry,
        fill_odometry,
        lambda m: [m.pose.pose.position.x, *heading(m.pose.pose.orientation)],
        {'fields': ('pose.pose', 'twist.twist.linear.x')},
    )
U = 0.5
PACKAGES = {
    'control_msgs': {'GripperCommand': 'float64 position\nfloat64 max_effort\n'},
    'hand_msgs': {
        'Finger': 'float64 bend\nstring name\n',
        'Hand': 'uint8 GRIP_OPEN=3\nuint8 GRIP_SHUT=4\nstd_msgs/Header header\n'
        'Finger[] fingers\nuint8 grip\n',
    },
}
"""Of other packages: one that robots have, and one of a user's own."""


def add_built(control: Any, hand: Any) -> None:
    """Put the sensors of other packages into the table."""

    def fill_hand(message: Any, u: float) -> None:
        fingers = [hand.Finger(bend=u, name='thumb'), hand.Finger(bend=1 - u, name='index')]
        put(message, fingers=fingers, grip=3 + (u > 0))

    CASES['gripper'] = Case(
        'vector',
        control.GripperCommand,
        lambda m, u: put(m, position=0.05 * u, max_effort=20.0 + u),
        lambda m: [20 * m.position, m.max_effort - 20.0],
    )
    CASES['fingers'] = Case(
        'vector',
        hand.Hand,
        fill_hand,
        lambda m: [finger.bend for finger in m.fingers],
        {'fields': ('fingers[0].bend', 'fingers[1].bend')},
    )
    CASES['grip'] = Case(
        'symbol',
        hand.Hand,
        fill_hand,
        lambda m: m.grip,
        {
            'labels': ('open', 'shut'),
            'fields': ('grip',),
            'values': {'GRIP_OPEN': 'open', 'GRIP_SHUT': 'shut'},
        },
    )


@pytest.fixture(scope='module')
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The table with types of other packages, where these can be had."""
    if lacking() and not all(find_spec(package) for package in PACKAGES):
        yield
        return
    known = set(CASES)
    with ExitStack() as stack:
        add_built(
            *(
                stack.enter_context(messages_of(tmp_path_factory.mktemp(name), name, types))
                for name, types in PACKAGES.items()
            )
        )
        yield
    for name in set(CASES) - known:
        del CASES[name]


def spec_of(name: str) -> ModalitySpec:
    """Modality of a case, with the range that its values need."""
    case = CASES[name]
    spec = ModalitySpec(
        name,
        case.kind,
        2,
        case.options,
        {'type': 'linear'} if case.kind != 'symbol' else {'type': 'dense', 'hidden': (8,)},
        likelihood='categorical' if case.kind == 'symbol' else '',
        message=message_name(case.message_type),
        max_age_s=1.2,
        frozen_s=600.0,  # they say the same all the time
    )
    kind = build_modality(spec)
    if not kind.undecided:
        return spec
    range_of = kind.decide([raw_value(spec, u) for u in np.linspace(-1.2, 1.2, 25)])
    return replace(spec, preprocessing={**case.options, **range_of})


def raw_value(spec: ModalitySpec, u: float) -> Any:
    """What the node reads of a sensor that has said the same for a while."""
    modality = build_modality(spec)
    codec, window = codec_for(modality), modality.new_window()
    for k in range(6):
        message = CASES[spec.name].message(u, 10**18 + k * 10**8)
        raw, stamp_ns = codec.decode(message, 10**18 + k * 10**8, modality)
        window.push(complete(raw), stamp_ns)
    assert window.latest is not None
    return window.latest.raw


def same_but_stamp(first: Any, second: Any) -> bool:
    """Whether messages differ in nothing but their stamps."""
    return restamped(first, Time()) == restamped(second, Time())


@pytest.mark.parametrize('name', CASES)
def test_message_is_written_as_it_was_read(name: str) -> None:
    """Of what one message says and another one's shape becomes the first, with a new stamp."""
    spec, case = spec_of(name), CASES[name]
    modality = build_modality(spec)
    codec = codec_for(modality)
    array = modality.to_model(raw_value(spec, 0.7))
    said, shape = case.message(0.7, 5), case.message(-0.4, 5)
    before = copy.deepcopy(shape)
    assert codec.write is not None
    made = codec.write(Draft(modality, array, make_header(9, 'other'), shape))
    assert type(made) is case.message_type and shape == before
    if isinstance(case.read(said), (str, bool)):
        assert case.read(made) == case.read(said)
    else:
        tolerance = 0.06 if case.kind == 'image' else 1e-3
        np.testing.assert_allclose(case.read(made), case.read(said), atol=tolerance)
    if hasattr(made, 'header'):
        assert (made.header.frame_id, made.header.stamp.nanosec) == (FRAME, 9)
    if name == 'imu':
        assert made.orientation_covariance[0] == -1.0, 'no orientation is known'
        made.orientation_covariance[0] = 0.0
    if name == 'camera':
        kept = np.frombuffer(made.data, np.uint8).reshape(48, 64, 3)[:, :4]
        assert (kept == 250).all(), 'what the crop leaves out stays'
        assert (made.encoding, made.step, made.height) == ('bgr8', 192, 48)
    elif name == 'path':
        assert made.joint_names == shape.joint_names
        times = [[p.time_from_start for p in m.points] for m in (made, shape)]
        assert times[0] == times[1]
    elif name not in ('scan', 'array', 'supply', 'joint_speeds', 'joint_efforts'):
        assert not same_but_stamp(made, shape)
        again = codec.decode(made, 1, modality)[0]
        first = codec.decode(said, 1, modality)[0]
        if case.kind == 'vector':
            np.testing.assert_allclose(complete(again), complete(first), atol=1e-3)


@pytest.mark.parametrize(
    ('name', 'read'),
    [
        ('imu', lambda m: (m.angular_velocity_covariance, m.linear_acceleration_covariance)),
        ('heat', lambda m: m.variance),
        ('odometry', lambda m: (m.pose.covariance, m.twist.covariance)),
    ],
)
def test_std_becomes_variance_in_the_units_of_the_message(name: str, read: Any) -> None:
    if name not in CASES:
        pytest.skip('nav_msgs is not installed')
    spec, case = spec_of(name), CASES[name]
    modality = build_modality(spec)
    codec = codec_for(modality)
    assert codec.write is not None and codec.takes_std
    array = modality.to_model(raw_value(spec, 0.1))
    std = np.linspace(0.1, 0.3, len(array)).astype(np.float32)
    made = codec.write(Draft(modality, array, make_header(9), case.message(0.0, 5), std))
    variance = (std * modality.unit_scale) ** 2
    if name == 'heat':
        assert read(made) == pytest.approx(variance[0])
    elif name == 'imu':
        found = [np.diag(np.reshape(each, (3, 3))) for each in read(made)]
        np.testing.assert_allclose(np.concatenate(found), variance, rtol=1e-5)
    else:
        pose, twist = (np.reshape(each, (6, 6)) for each in read(made))
        np.testing.assert_allclose(np.diag(pose)[:3], variance[:3], rtol=1e-5)
        assert pose[5, 5] == 0.25, 'what is not known stays'
        assert twist[0, 0] == pytest.approx(variance[9])


class Sensors:
    """
    Sensors of the table, which can be switched off, and their stand-ins.

    :param bundle: that the node runs, with a modality each.
    """

    def __init__(self, robot: Robot, bundle: Bundle) -> None:
        self.names = bundle.spec.names
        self.robot, self.live = robot, set(self.names)
        self.sent: dict[str, list[Any]] = {name: [] for name in self.names}
        self._session = InferenceSession(build_engine(bundle, 'cpu'), bundle.spec)
        for spec in bundle.spec.modalities:
            self._session.update(spec.name, build_modality(spec).to_model(raw_value(spec, U)))
        self._publishers = {
            name: robot.node.create_publisher(CASES[name].message_type, name, 10)
            for name in self.names
        }
        for name in self.names:
            robot.watch(f'filled/{name}', CASES[name].message_type)
        self._due_s = 0.0

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Go on until a condition holds."""

        def step() -> Any:
            if time.monotonic() >= self._due_s:
                self._due_s = time.monotonic() + PERIOD_S
                for name in self.live:
                    message = CASES[name].message(U, self.robot.now_ns())
                    self.sent[name].append(message)
                    self._publishers[name].publish(message)
            return condition()

        self.robot.until(step, what, 90.0)

    def came(self, name: str) -> list[Any]:
        """What came in the place of a sensor."""
        return list(self.robot.received[f'filled/{name}'])

    def settled(self, name: str) -> bool:
        """Whether what came last is none of what was still on its way from a sensor."""
        came = self.came(name)
        if name in self.live or not hasattr(self.sent[name][-1], 'header'):
            return len(came) > 3
        last_ns = stamp_of(self.sent[name][-1].header, 0)
        return bool(came) and stamp_of(came[-1].header, 0) > last_ns

    def expected(self, name: str) -> Any:
        """What should come of it, by a session of our own, in the form of what it sent last."""
        spec = spec_of(name)
        made = self._session.infer(self.live, [name]).reconstructions[name][0]
        write = codec_for(build_modality(spec)).write
        assert write is not None
        return write(Draft(build_modality(spec), made, make_header(1), self.sent[name][-1]))


@pytest.fixture(scope='module', params=[0, 1])
def sensors(
    request: pytest.FixtureRequest, built: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sensors]:
    """A node with a bundle of random weights, and half of the sensors: all are a lot at once."""
    folder = tmp_path_factory.mktemp('own')
    spec = ModelSpec(
        tuple(spec_of(name) for name in list(CASES)[request.param :: 2]),
        joint_latent_dim=4,
        message_dim=8,
        joint_hidden=(8,),
        decoder_hidden=(8,),
    )
    bundle = save_bundle(make_bundle('own', spec=spec), folder / 'own', '# own')
    parameters = f'bundle:={bundle.path}', 'autostart:=true', 'rate_hz:=10.0'
    node = NodeProcess(folder / 'log', *parameters, namespace=NAMESPACE)
    for robot in robots(NAMESPACE):
        yield Sensors(robot, bundle)
    assert node.stop() == 0
    assert 'Traceback' not in node.log


def test_sensors_in_use_pass_untouched(sensors: Sensors) -> None:
    sensors.until(lambda: sensors.robot.used() == set(sensors.names), 'all sensors')
    sensors.robot.received.clear()
    passed: set[str] = set()

    def all_passed() -> bool:
        # What comes late on a busy machine is made up for: not all of it is as it was sent.
        for name in set(sensors.names) - passed:
            sent = [serialize_message(message) for message in sensors.sent[name]]
            if any(serialize_message(message) in sent for message in sensors.came(name)):
                passed.add(name)
        return passed == set(sensors.names)

    sensors.until(all_passed, 'what passes')


@pytest.mark.parametrize('half', [0, 1])
def test_sensors_taken_away_are_replaced_in_their_type(sensors: Sensors, half: int) -> None:
    gone = set(sensors.names[half::2])
    sensors.live = set(sensors.names) - gone
    sensors.until(lambda: sensors.robot.used() == sensors.live, 'without half of them')
    sensors.robot.received.clear()
    sensors.until(lambda: all(map(sensors.settled, sensors.names)), 'what is filled in')
    for name in gone:
        made, last, case = sensors.came(name)[-1], sensors.sent[name][-1], CASES[name]
        if hasattr(made, 'header'):
            assert made.header.frame_id == FRAME, name
            assert stamp_of(last.header, 0) < stamp_of(made.header, 0), name
        for own in ('name', 'joint_names', 'encoding', 'child_frame_id', 'location', 'fields'):
            assert getattr(made, own, None) == getattr(last, own, None), (name, own)
        found, expected = case.read(made), case.read(sensors.expected(name))
        if isinstance(found, (str, bool)):
            assert found == expected
        else:
            np.testing.assert_allclose(found, expected, atol=2e-3, err_msg=name)
        if name == 'imu':
            assert made.angular_velocity_covariance.max() > 0.0
