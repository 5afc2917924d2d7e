"""The node's life: transitions, triggers, reload, clocks, and what its log explains."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from rcl_interfaces.srv import GetParameters, ListParameters
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import String
from std_srvs.srv import Trigger

from mm_perception.bundle import Bundle, save_bundle
from mm_perception.ros.codecs import image_message, time_message
from mm_perception.ros.lifecycle import EXECUTORS
from tests.helpers.robot import Robot
from tests.helpers.small_bundle import make_bundle

executors = pytest.mark.parametrize('executor', EXECUTORS[1:])


@executors
def test_lifecycle_goes_through_all_transitions_twice(
    bundle: Bundle, start, robot: Robot, executor: str
):
    process = start(f'bundle:={bundle.path}', f'executor:={executor}')
    assert robot.state() == 'unconfigured'
    robot.live = {'image'}
    for _ in range(2):
        assert robot.change_state(Transition.TRANSITION_CONFIGURE)
        assert robot.state() == 'inactive'
        robot.received['latent'].clear()
        robot.run(0.5)
        assert not robot.received['latent']
        assert robot.change_state(Transition.TRANSITION_ACTIVATE)
        robot.fresh('latent')
        assert robot.change_state(Transition.TRANSITION_DEACTIVATE)
        robot.run(0.2)
        robot.received['latent'].clear()
        robot.run(0.5)
        assert not robot.received['latent']
        assert robot.change_state(Transition.TRANSITION_ACTIVATE)
        robot.fresh('latent')
        assert robot.change_state(Transition.TRANSITION_DEACTIVATE)
        assert robot.change_state(Transition.TRANSITION_CLEANUP)
        gone = lambda: robot.node.count_publishers('/second/latent') == 0  # noqa: E731
        robot.until(gone, 'end of the publisher')
    assert robot.change_state(Transition.TRANSITION_CONFIGURE)
    assert robot.change_state(Transition.TRANSITION_ACTIVATE)
    robot.fresh('latent')
    assert robot.change_state(Transition.TRANSITION_ACTIVE_SHUTDOWN)
    assert robot.state() == 'finalized'
    assert process.stop() == 0
    assert 'Traceback' not in process.log


def test_lifecycle_configure_fails_with_a_reason_and_can_be_tried_again(
    bundle: Bundle, start, robot: Robot, tmp_path: Path
):
    place = tmp_path / 'robot_model'
    process = start(f'bundle:={tmp_path}/mistyped')
    assert not robot.change_state(Transition.TRANSITION_CONFIGURE)
    assert robot.state() == 'unconfigured'
    assert 'cannot configure: no bundle' in process.log
    shutil.copytree(bundle.path, place)
    robot.set_parameter('bundle', str(place))
    assert robot.change_state(Transition.TRANSITION_CONFIGURE)
    assert robot.state() == 'inactive'
    assert 'Traceback' not in process.log


def test_lifecycle_cleanup_frees_the_parameters_that_configure_fixed(
    bundle: Bundle, start, robot: Robot, tmp_path: Path
):
    """Another bundle, with other modalities; what the command line gave for both stays."""
    spec = bundle.spec
    fewer = make_bundle(spec=replace(spec, modalities=spec.modalities[:2]))
    other = save_bundle(fewer, tmp_path / 'fewer', '# fewer\n')
    process = start(f'bundle:={bundle.path}', 'modalities.image.topic:=camera')
    assert robot.change_state(Transition.TRANSITION_CONFIGURE)
    with pytest.raises(AssertionError, match='ros2 lifecycle set /second/cmi cleanup'):
        robot.set_parameter('bundle', str(other.path))
    assert robot.change_state(Transition.TRANSITION_CLEANUP)
    robot.set_parameter('bundle', str(other.path))
    robot.set_parameter('rate_hz', 20.0)
    assert robot.change_state(Transition.TRANSITION_CONFIGURE)
    listed = robot.call(ListParameters, 'cmi/list_parameters', ListParameters.Request())
    names = {name.split('.')[1] for name in listed.result.names if name.startswith('modalities.')}
    assert names == {each.name for each in spec.modalities[:2]}
    values = robot.call(
        GetParameters,
        'cmi/get_parameters',
        GetParameters.Request(names=['modalities.image.topic']),
    ).values
    assert values[0].string_value == 'camera'
    assert 'Traceback' not in process.log


def test_lifecycle_explains_missing_output_in_the_log(bundle: Bundle, start, robot: Robot):
    process = start(f'bundle:={bundle.path}')
    robot.node.destroy_publisher(robot.publishers.pop('symbol'))
    assert robot.change_state(Transition.TRANSITION_CONFIGURE)
    robot.until(lambda: 'not active: no latents' in process.log, 'not active')
    assert robot.change_state(Transition.TRANSITION_ACTIVATE)
    robot.until(lambda: 'symbol: waiting: no publisher on /second/symbol' in process.log, 'symbol')
    robot.until(lambda: 'nothing arrives from it' in process.log, 'silent publisher')


def test_lifecycle_explains_wrong_type_and_qos_in_the_log(bundle: Bundle, start, robot: Robot):
    robot.node.destroy_publisher(robot.publishers.pop('trajectory'))
    robot.node.destroy_publisher(robot.publishers.pop('image'))
    robot.node.create_publisher(String, 'trajectory', 1)
    robot.node.destroy_publisher(robot.publishers.pop('audio'))
    robot.node.create_publisher(Image, 'audio', 1)
    offered = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    robot.node.create_publisher(Image, 'image', offered)
    process = start(
        f'bundle:={bundle.path}',
        'autostart:=true',
        'qos_overrides./second/image.subscription.reliability:=reliable',
    )
    robot.until(
        lambda: '/second/trajectory carries std_msgs/msg/String but' in process.log, 'type', 20.0
    )
    assert 'set modalities.trajectory.message' not in process.log, 'no codec takes a String'
    robot.until(lambda: 'on /second/image does not match' in process.log, 'QoS', 20.0)
    assert 'set qos_overrides./second/image.subscription.reliability' in process.log
    assert 'one of sensor_msgs/msg/PointCloud2, ' in process.log


@pytest.mark.parametrize('trigger', ['any', 'image'])
def test_trigger_follows_arrivals(bundle: Bundle, start, robot: Robot, trigger: str):
    start(f'bundle:={bundle.path}', 'autostart:=true', f'trigger:={trigger}', 'rate_hz:=5')
    robot.live = {'image', 'trajectory'}
    robot.until_used({'image', 'trajectory'}, 30.0)
    nearly_all = 'a latent for nearly every image (30 Hz)'
    robot.until_window('latent', 2.0, lambda latents: len(latents) > 40, nearly_all)
    robot.live = {'trajectory'}
    robot.until_state('image', 'stale')
    goes_on = 'the timer goes on when the trigger is silent'
    robot.until_window('latent', 2.0, lambda latents: len(latents) >= 8, goes_on)


@executors
def test_reload_swaps_the_model_and_keeps_the_old_one_on_failure(
    bundle: Bundle, start, robot: Robot, tmp_path: Path, executor: str
):
    place = tmp_path / 'robot_model'
    shutil.copytree(bundle.path, place)
    parameters = ('autostart:=true', 'rate_hz:=20', f'executor:={executor}')
    process = start(f'bundle:={place}', *parameters)
    infos: list[str] = []
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    robot.node.create_subscription(
        String, 'cmi/model_info', lambda m: infos.append(json.loads(m.data)['hash']), latched
    )
    robot.live = {'image', 'symbol'}
    robot.until_used({'image', 'symbol'}, 30.0)
    assert robot.fresh('latent').header.frame_id == bundle.frame_id

    newer = save_bundle(make_bundle(seed=1), place, '# newer\n')
    robot.received['latent'].clear()
    begin_s = time.monotonic()
    answer = robot.call(Trigger, 'cmi/reload_model', Trigger.Request())
    took_s = time.monotonic() - begin_s
    assert answer.success, answer.message
    assert answer.message == newer.frame_id
    robot.run(0.5)
    stamps = [m.header.stamp.sec + m.header.stamp.nanosec * 1e-9 for m in robot.received['latent']]
    assert np.diff(stamps).max() < max(0.5, 0.5 * took_s), 'latents go on during the reload'
    assert robot.fresh('latent').header.frame_id == newer.frame_id
    assert infos == [bundle.hash, newer.hash]

    weights = place / 'model.safetensors'
    weights.write_bytes(weights.read_bytes()[:-4])
    answer = robot.call(Trigger, 'cmi/reload_model', Trigger.Request())
    assert not answer.success
    assert 'kept the old model' in answer.message
    assert robot.fresh('latent').header.frame_id == newer.frame_id
    assert robot.used() == {'image', 'symbol'}
    assert process.stop() == 0
    assert 'Traceback' not in process.log


def test_clock_of_a_simulation_is_the_nodes_clock(bundle: Bundle, start, robot: Robot):
    start(f'bundle:={bundle.path}', 'autostart:=true', 'use_sim_time:=true')
    clock = robot.node.create_publisher(Clock, '/clock', 1)
    time_ns = [50_000_000_000]

    def advance() -> bool:
        time_ns[0] += 20_000_000
        clock.publish(Clock(clock=time_message(time_ns[0])))
        robot.publishers['image'].publish(image_message(robot.picture(), time_ns[0]))
        return bool(robot.received['latent'])

    robot.until(advance, 'latent in simulated time', 30.0)
    robot.until_used({'image'})
    stamp = robot.received['latent'][-1].header.stamp
    assert 50 <= stamp.sec < 200
    assert robot.status()['image']['state'] == 'ok'


def test_two_nodes_with_two_bundles_live_in_two_namespaces(
    bundle: Bundle, start, robot: Robot, tmp_path: Path
):
    other = save_bundle(make_bundle('other', 2), tmp_path / 'other', '# other\n')
    start(f'bundle:={bundle.path}', 'autostart:=true')
    remaps = start(f'bundle:={other.path}', 'autostart:=true', namespace='/second/b')
    robot.watch('b/latent', PointCloud2)
    robot.live = {'image'}
    robot.fresh('latent', timeout_s=30.0)
    publisher = robot.node.create_publisher(Image, 'b/image', 1)

    def feed() -> bool:
        publisher.publish(image_message(robot.picture(), robot.now_ns()))
        return bool(robot.received['b/latent'])

    robot.until(feed, 'latent of the second node', 30.0)
    assert robot.received['latent'][-1].header.frame_id == bundle.frame_id
    assert robot.received['b/latent'][-1].header.frame_id == other.frame_id
    assert 'Traceback' not in remaps.log


def test_two_nodes_of_one_name_are_said(bundle: Bundle, start, robot: Robot):
    nodes = [start(f'bundle:={bundle.path}', 'autostart:=true') for _ in range(2)]
    for node in nodes:
        robot.until(
            lambda node=node: 'another node is called /second/cmi' in node.log, 'twins', 30.0
        )
