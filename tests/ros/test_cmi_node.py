"""The node as a robot meets it: a process of its own, real messages over DDS."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters, SetParameters
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState, PointCloud2
from std_msgs.msg import Float32MultiArray, String
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from mm_perception.bundle import Bundle
from mm_perception.errors import UNUSABLE
from mm_perception.modalities import Motion
from mm_perception.ros.cmi.parameters import NODE_SPECS, modality_specs
from mm_perception.ros.codecs import (
    array_header,
    audio_message,
    image_message,
    input_codec,
    make_header,
    read_table,
    trajectory_message,
)
from mm_perception.ros.lifecycle import EXECUTORS
from tests.helpers.robot import SENSORS, NodeProcess, Robot, robots
from tests.helpers.small_bundle import MAX_AGE_S

ALL = set(SENSORS)
RATE_HZ = 20.0
TICK_S = 1.0 / RATE_HZ


@pytest.fixture(scope='module')
def node(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """One active node for the tests that do not change its life."""
    log = tmp_path_factory.mktemp('node') / 'log'
    parameters = f'bundle:={bundle.path}', 'autostart:=true', f'rate_hz:={RATE_HZ}', 'device:=cpu'
    process = NodeProcess(log, *parameters)
    yield process
    assert process.stop() == 0
    assert 'Traceback' not in process.log


@pytest.fixture(scope='module')
def shared(node: NodeProcess) -> Iterator[Robot]:
    """One robot for the tests of that node."""
    yield from robots()


@pytest.fixture
def live(shared: Robot) -> Robot:
    """The shared robot with all of its sensors on and in use."""
    shared.live = set(ALL)
    shared.until_used(ALL, 30.0)
    return shared


def nanoseconds(message) -> int:
    """Stamp of a message, or of an array."""
    header = message.header if hasattr(message, 'header') else array_header(message)
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


# Latents


def test_node_publishes_the_latent_in_every_promised_form(live: Robot, bundle: Bundle):
    vector = live.watch('latent/vector', Float32MultiArray)
    latent = live.fresh('latent')
    table = read_table(latent)
    facts = {f'{kind}_{name}' for kind in ('used', 'age') for name in ALL}
    assert set(table) == {'mean', 'std', *facts}
    assert all((table[f'used_{name}'] == 1.0).all() for name in ALL)
    assert all(0.0 <= table[f'age_{name}'][0] < 2 * MAX_AGE_S for name in ALL)
    assert latent.width == bundle.spec.joint_latent_dim
    assert latent.header.frame_id == bundle.frame_id
    assert np.isfinite(table['mean']).all()
    assert (table['std'] > 0).all()
    array = live.fresh('latent/vector')
    assert [dim.label for dim in array.layout.dim][:2] == ['statistic', 'latent']
    assert len(array.data) == 2 * latent.width
    assert array_header(array).frame_id == bundle.frame_id
    stamped = live.watch('latent/stamped', JointState)
    same = live.fresh('latent/stamped')
    arrays = {nanoseconds(a): a.data for a in live.received['latent/vector']}
    np.testing.assert_array_equal(same.position, arrays[nanoseconds(same)])
    live.node.destroy_subscription(vector)
    live.node.destroy_subscription(stamped)


def test_node_keeps_the_rate(live: Robot):
    expected = pytest.approx(2.0 * RATE_HZ, rel=0.1)
    live.until_window('latent', 2.0, lambda latents: len(latents) == expected, 'rate')


def test_node_stamps_latent_and_status_with_the_newest_input(live: Robot):
    live.received['cmi/status'].clear()
    latent = live.fresh('latent')
    age_s = (live.now_ns() - nanoseconds(latent)) * 1e-9
    live.run(0.3)
    stamps = [nanoseconds(message) for message in live.received['cmi/status']]
    assert nanoseconds(latent) in stamps
    assert 0 < age_s < 1.0


def test_node_fuses_any_subset(shared: Robot):
    names = sorted(ALL)
    for code in (k ^ k >> 1 for k in range(1, 16)):  # Gray code: one sensor changes at a time
        shared.live = {name for k, name in enumerate(names) if code >> k & 1}
        shared.until_used(shared.live)
        shared.fresh('latent')


def test_node_says_why_there_is_no_latent(shared: Robot, node: NodeProcess):
    shared.live = set()
    shared.until_used(set())
    assert {values['state'] for values in shared.status().values()} == {'stale'}
    assert {values['source'] for values in shared.status().values()} == {'none'}
    shared.received['latent'].clear()
    shared.run(0.5)
    assert not shared.received['latent']
    shared.until(lambda: 'no modality is usable' in node.log, 'explanation in the log')
    shared.until(lambda: 'nothing arrives from it' in node.log, 'explanation of silence')


# A sensor falls away and comes back


OUTPUT = {
    'image': (Image, Image),
    'trajectory': (JointTrajectory, JointTrajectory),
    'sound': (Image, Image),
    'symbol': (Float32MultiArray, String),
}
"""Types of what is generated, and of what is filled in."""


@pytest.mark.parametrize('name', sorted(ALL))
def test_node_reconstructs_a_silent_sensor_fault(live: Robot, name: str):
    reconstruction, filled = f'reconstruction/{name}', f'filled/{name}'
    kind, filled_kind = OUTPUT[name]
    watched = [live.watch(reconstruction, kind), live.watch(filled, filled_kind)]
    live.fresh(filled)
    live.received[reconstruction].clear()
    live.run(0.3)
    assert not live.received[reconstruction], 'published while the sensor is healthy'

    live.live.discard(name)
    status = live.until_state(name, 'stale', MAX_AGE_S + 3.0)
    assert status['used'] == 'false'
    assert status['source'] == 'inferred'
    assert float(status['age_ms']) > MAX_AGE_S * 1e3
    assert 'max_age_s' in status['reason']
    latent = live.fresh('latent')
    message = live.fresh(reconstruction)
    live.until_used(ALL - {name})
    if kind is not Float32MultiArray:
        assert nanoseconds(message) >= nanoseconds(latent)
        assert message.header.frame_id == latent.header.frame_id
    own_hz = RATE_HZ if name == 'sound' else 1.0 / live.periods_s[name]
    often = 0.7 * min(RATE_HZ, own_hz)
    live.until_window(filled, 1.0, lambda messages: len(messages) > often, 'filled never stops')

    live.live.add(name)
    assert live.until_state(name, 'ok')['source'] == 'sensor'
    live.run(2 * TICK_S)
    live.received[reconstruction].clear()
    live.run(0.3)
    assert not live.received[reconstruction]
    for subscription in watched:
        live.node.destroy_subscription(subscription)


def test_node_fills_with_the_sensors_own_data(live: Robot):
    watched = [live.watch('filled/image', Image), live.watch('filled/symbol', String)]
    image = live.fresh('filled/image')
    assert (image.height, image.width, image.encoding) == (480, 640, 'rgb8')
    assert image.header.frame_id == 'camera'
    pixels = np.frombuffer(image.data, np.uint8).reshape(480, 640, 3)
    assert pixels.min() < 100 and pixels[0, 0].min() > 200, 'dark ink on white paper'
    assert live.fresh('filled/symbol').data == '3'
    for subscription in watched:
        live.node.destroy_subscription(subscription)


def test_node_stands_in_for_a_camera_as_a_consumer_expects_it(live: Robot):
    """Type, size, encoding, frame, order of stamps and rate are the same when the camera dies."""
    watched = live.watch('filled/image', Image, 500)
    live.watch('filled/image/camera_info', CameraInfo, 500)
    calibrated = live.node.create_publisher(CameraInfo, 'camera_info', 10)
    calibration = CameraInfo(width=640, height=480, header=make_header(1, 'lens'))

    def accompanied() -> bool:
        calibrated.publish(calibration)
        return bool(live.received['filled/image/camera_info'])

    live.until(accompanied, 'calibration')
    live.fresh('filled/image')
    live.run(0.5)
    live.live.discard('image')
    live.until_state('image', 'stale')
    live.run(0.5)
    live.live.add('image')
    live.until_state('image', 'ok')
    live.run(0.3)
    infos = list(live.received['filled/image/camera_info'])
    messages = list(live.received['filled/image'])
    forms = {(m.height, m.width, m.encoding, m.step, len(m.data)) for m in messages}
    assert forms == {(480, 640, 'rgb8', 1920, 921600)}
    assert {m.header.frame_id for m in messages} == {'camera'}
    assert {(m.header.frame_id, m.width) for m in infos} == {('lens', 640)}
    stamps = {nanoseconds(m) for m in messages}
    # Of both the newest alone is kept for a subscriber that is late.
    assert len(infos) > 5 and len({nanoseconds(m) for m in infos} - stamps) < 0.2 * len(infos)
    stamps_s = np.array([nanoseconds(m) for m in messages]) * 1e-9
    pauses_s = np.diff(stamps_s)
    assert pauses_s.min() > 0.0
    assert np.median(pauses_s) < 2.0 * TICK_S
    assert pauses_s.max() < 0.7 * MAX_AGE_S, 'no gap until the camera counts as lost'
    live.node.destroy_subscription(watched)


def test_node_gives_uncertainty_sound_and_mosaic_to_subscribers(live: Robot):
    live.live.discard('sound')
    live.until_state('sound', 'stale')
    topics = {
        'reconstruction/sound/std': Image,
        'reconstruction/audio': PointCloud2,
        'reconstruction/symbol/std': Float32MultiArray,
        'cmi/mosaic': Image,
    }
    watched = [live.watch(topic, kind) for topic, kind in topics.items()]
    std = live.fresh('reconstruction/sound/std')
    assert (std.height, std.width, std.encoding) == (128, 32, '32FC1')
    sound = live.fresh('reconstruction/audio')
    assert set(read_table(sound)) == {'t', 'ch0'}
    assert sound.width == 8000
    mosaic = live.fresh('cmi/mosaic')
    assert mosaic.encoding == 'bgr8'
    assert len(mosaic.data) == mosaic.step * mosaic.height
    live.live.discard('symbol')
    assert min(live.fresh('reconstruction/symbol/std').data) >= 0.0
    for subscription in watched:
        live.node.destroy_subscription(subscription)


# Bad messages


def bad_messages():
    """One bad message per modality and way, with a word of the reason."""
    grey = np.zeros((8, 8), np.uint8)
    wrong = image_message(grey, 1)
    wrong.encoding = 'yuv422'
    cut = image_message(grey, 1)
    cut.data = cut.data[:-1]
    nan = np.full(400, np.nan, np.float32)
    line = np.zeros((5, 2), np.float32)
    times_s = np.arange(5, dtype=np.float32)
    return [
        ('image', wrong, 'yuv422'),
        ('image', cut, 'bytes'),
        ('image', image_message(np.full((8, 8), np.nan, np.float32), 0), 'NaN'),
        ('audio', audio_message(nan, 8000, 1), 'NaN'),
        ('audio', audio_message(np.zeros(400), 50, 1), 'rate'),
        ('trajectory', JointTrajectory(), 'points'),
        ('trajectory', trajectory_message(Motion(line * np.nan, times_s), 1), 'NaN'),
        ('trajectory', trajectory_message(Motion(line, times_s), 0), 'does not move'),
        ('symbol', String(data=''), 'characters'),
        ('symbol', String(data='elephant'), 'elephant'),
    ]


@pytest.mark.parametrize(
    ('topic', 'message', 'word'), bad_messages(), ids=lambda v: v if isinstance(v, str) else ''
)
def test_node_rejects_a_bad_message_fault(live: Robot, node: NodeProcess, topic, message, word):
    name = 'sound' if topic == 'audio' else topic
    live.live.discard(name)
    live.run(0.1)
    for _ in range(3):
        live.publishers[topic].publish(message)
        live.run(TICK_S)
    status = live.until_state(name, 'rejected', 3.0)
    assert word in status['reason']
    assert (status['used'], status['source']) == ('false', 'inferred')
    live.fresh('latent')
    assert f'{name}: message on /{topic} (' in node.log
    live.live.add(name)
    live.until_state(name, 'ok')


def test_node_rejects_a_stamp_from_the_future_fault(live: Robot):
    live.live.discard('image')
    ahead_ns = live.now_ns() + 60_000_000_000
    live.publishers['image'].publish(image_message(np.zeros((8, 8), np.uint8), ahead_ns))
    assert 'future' in live.until_state('image', 'rejected')['reason']
    live.live.add('image')
    live.until_state('image', 'ok')


# Services and parameters


def test_node_enable_switches_fusion_off_and_on(live: Robot):
    answer = live.call(SetBool, 'cmi/enable', SetBool.Request(data=False))
    assert answer.success
    live.until_used(set())
    assert '~/enable' in live.status()['image']['reason']
    live.received['latent'].clear()
    live.run(0.3)
    assert not live.received['latent']
    live.call(SetBool, 'cmi/enable', SetBool.Request(data=True))
    live.until_used(ALL)


def test_node_reset_forgets_what_it_received(live: Robot):
    live.live = {'image'}
    assert live.call(Trigger, 'cmi/reset', Trigger.Request()).success
    live.until(lambda: live.used() == {'image'}, 'only the image left')
    live.until_state('symbol', 'waiting')


def set_parameter(robot: Robot, name: str, value: ParameterValue):
    """Set a parameter of the node; the result."""
    request = SetParameters.Request(parameters=[Parameter(name=name, value=value)])
    return robot.call(SetParameters, 'cmi/set_parameters', request).results[0]


def number(value: float) -> ParameterValue:
    """A parameter value of type double."""
    return ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value)


def text(value: str) -> ParameterValue:
    """A parameter value of type string."""
    return ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value)


def boolean(value: bool) -> ParameterValue:
    """A parameter value of type bool."""
    return ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=value)


def test_node_declares_every_parameter_with_its_description(live: Robot, bundle: Bundle):
    rows = [*NODE_SPECS, *(row for spec in bundle.spec.modalities for row in modality_specs(spec))]
    request = DescribeParameters.Request(names=[row.name for row in rows])
    answer = live.call(DescribeParameters, 'cmi/describe_parameters', request)
    for row, descriptor in zip(rows, answer.descriptors, strict=True):
        assert descriptor.description == row.description
        assert descriptor.read_only == row.read_only
        ranges = len(descriptor.floating_point_range) + len(descriptor.integer_range)
        assert ranges == (row.span is not None)
    listed = live.call(ListParameters, 'cmi/list_parameters', ListParameters.Request())
    foreign = ('qos_overrides.', 'use_sim_time', 'start_type_description_service')
    own = {name for name in listed.result.names if not name.startswith(foreign)}
    assert own == {row.name for row in rows}


def test_node_lets_qos_be_overridden(live: Robot):
    names = [
        'qos_overrides./image.subscription.reliability',
        'qos_overrides./audio.subscription.depth',
        'qos_overrides./latent.publisher.reliability',
        'qos_overrides./latent.publisher.durability',
    ]
    request = GetParameters.Request(names=names)
    values = live.call(GetParameters, 'cmi/get_parameters', request).values
    assert values[0].string_value == 'best_effort'
    assert values[1].integer_value == 10
    assert values[2].string_value == 'reliable'
    assert values[3].string_value == 'volatile'


def test_node_checks_parameters_when_they_are_set(live: Robot):
    for name, value, reason in (
        ('rate_hz', number(0.0), 'range'),
        ('rate_hz', text('fast'), 'expected float'),
        ('publish.reconstruct', text('some'), 'missing, all'),
        ('modalities.image.policy', text('keep'), 'drop, hold'),
        ('modalities.image.max_age_s', number(-1.0), 'range'),
        ('executor', text('single'), 'read-only'),
        ('bundle', text('other'), 'fixed while the node is configured'),
        ('modalities.image.topic', text('other'), 'lifecycle set'),
    ):
        result = set_parameter(live, name, value)
        assert not result.successful, name
        assert reason in result.reason.lower() or 'not within' in result.reason, result.reason


def test_node_parameters_take_effect_at_once(live: Robot):
    assert set_parameter(live, 'rate_hz', number(40.0)).successful
    expected = pytest.approx(2.0 * 40.0, rel=0.15)
    live.until_window('latent', 2.0, lambda latents: len(latents) == expected, '40 Hz')
    assert set_parameter(live, 'rate_hz', number(RATE_HZ)).successful
    assert set_parameter(live, 'modalities.image.enabled', boolean(False)).successful
    live.until_state('image', 'disabled')
    live.until_used(ALL - {'image'})
    assert set_parameter(live, 'modalities.image.enabled', boolean(True)).successful
    live.until_used(ALL)


def test_node_policy_hold_uses_a_stale_value(live: Robot):
    assert set_parameter(live, 'modalities.symbol.policy', text('hold')).successful
    live.live.discard('symbol')
    status = live.until_state('symbol', 'stale')
    assert (status['used'], status['source']) == ('true', 'sensor')
    assert set_parameter(live, 'modalities.symbol.policy', text('drop')).successful
    live.until(lambda: live.status()['symbol']['used'] == 'false', 'symbol dropped')


def test_node_reconstructs_everything_if_asked(live: Robot):
    watched = live.watch('reconstruction/image', Image)
    assert set_parameter(live, 'publish.reconstruct', text('all')).successful
    live.fresh('reconstruction/image')
    assert live.used() == ALL
    assert set_parameter(live, 'publish.reconstruct', text('missing')).successful
    live.node.destroy_subscription(watched)


# What it says about itself


def test_node_describes_its_model_to_late_subscribers(live: Robot, bundle: Bundle):
    qos = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    received = []
    live.node.create_subscription(String, 'cmi/model_info', lambda m: received.append(m), qos)
    live.until(lambda: received, 'model_info')
    facts = json.loads(received[-1].data)
    assert (facts['bundle'], facts['hash']) == (bundle.name, bundle.hash)
    assert facts['latent_dim'] == bundle.spec.joint_latent_dim
    assert {m['name']: m['labels'] for m in facts['modalities']}['symbol'][3] == '3'
    assert facts['modalities'][0]['preprocessing']['invert'] is True


RATES = (('fusion', 'latent_rate_hz'), ('image', 'rate_hz'))


def test_node_publishes_diagnostics(live: Robot):
    watched = live.watch('/diagnostics', DiagnosticArray)

    def newest() -> dict[str, dict[str, str]]:
        message = live.fresh('/diagnostics')
        return {e.name: {v.key: v.value for v in e.values} for e in message.status}

    def at_rate() -> bool:
        rates_hz = [float(newest()[f'cmi: {n}'][k]) for n, k in RATES]
        return rates_hz == pytest.approx([RATE_HZ, 30.0], rel=0.2)

    live.until(at_rate, 'rates of the fusion and the image', 20.0)
    entries = newest()
    assert set(entries) == {'cmi: fusion', *(f'cmi: {name}' for name in ALL)}
    fusion = entries['cmi: fusion']
    assert float(fusion['tick_p50_ms']) <= float(fusion['tick_p99_ms'])
    assert (fusion['device'], fusion['errors']) == ('cpu', '0')
    image = entries['cmi: image']
    assert (image['state'], image['topic']) == ('ok', '/image')
    live.node.destroy_subscription(watched)


def test_node_takes_compressed_images_and_namespaces(bundle: Bundle, start, robot: Robot):
    codec = input_codec('image', 'sensor_msgs/msg/CompressedImage')
    start(
        f'bundle:={bundle.path}',
        'autostart:=true',
        f'modalities.image.message:={codec.name}',
        'modalities.image.topic:=camera/image/compressed',
    )
    import cv2

    data = cv2.imencode('.jpg', np.eye(48, dtype=np.uint8) * 250)[1].tobytes()
    publisher = robot.node.create_publisher(CompressedImage, 'camera/image/compressed', 1)

    def seen() -> bool:
        message = CompressedImage(data=data)
        message.header.stamp = robot.node.get_clock().now().to_msg()
        publisher.publish(message)
        return robot.used() == {'image'}

    robot.until(seen, 'compressed image used', 30.0)


@pytest.mark.parametrize('executor', EXECUTORS[1:])
@pytest.mark.parametrize('number_', [signal.SIGINT, signal.SIGTERM])
def test_node_ends_cleanly_on_a_signal(
    bundle: Bundle, start, robot: Robot, number_: int, executor: str
):
    process = start(f'bundle:={bundle.path}', 'autostart:=true', f'executor:={executor}')
    robot.live = {'image'}
    robot.until(lambda: robot.received['latent'], 'latent', 30.0)
    for on in (False, True):
        assert robot.call(SetBool, 'cmi/enable', SetBool.Request(data=on)).success
        robot.until_used({'image'} if on else set())
    process.process.send_signal(number_)
    assert process.stop(number_) == 0, 'a second signal is harmless'
    assert 'Traceback' not in process.log
    assert 'ERROR' not in process.log


def test_node_refuses_what_cannot_work_in_one_line(start, tmp_path: Path, bundle: Bundle):
    good = f'bundle:={bundle.path}'
    cases = [
        ([f'bundle:={tmp_path}/absent'], 'no bundle'),
        ([good, 'trigger:=smell'], 'trigger: "smell" is not one of timer, any, stamp, image'),
        ([good, 'rate_hz:=0.0'], 'rate_hz'),
        ([good, 'device:=abacus'], 'one of auto, cpu, cuda'),
        ([good, 'modalities.image.message:=std_msgs/msg/String'], 'known for image'),
        ([good, 'modalities.image.topic:=front camera'], '"front camera" is no topic name'),
        ([good, 'modalities.image.filters:=[absent.Filter]'], 'absent.Filter cannot be made'),
    ]
    processes = [start(*parameters, 'autostart:=true') for parameters, _ in cases]
    for process, (_, reason) in zip(processes, cases, strict=True):
        assert process.process.wait(60) == UNUSABLE
        assert reason in process.log
        assert 'Traceback' not in process.log
