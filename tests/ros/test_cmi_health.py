"""Health, stand-ins and explanations of the node in its own process, over real DDS."""

from __future__ import annotations

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import String
from std_srvs.srv import SetBool

from mm_perception.bundle import Bundle
from mm_perception.errors import UNUSABLE
from mm_perception.ros.codecs import image_message, read_table, time_message
from tests.helpers.robot import Robot


def test_health_latent_is_held_or_the_prior_when_nothing_is_observed(
    bundle: Bundle, start, robot: Robot
):
    start(f'bundle:={bundle.path}', 'autostart:=true', 'fallback:=hold')
    for topic, kind in (('filled/symbol', String), ('filled/image', Image)):
        robot.watch(topic, kind)
    robot.live = {'image'}
    robot.until_used({'image'}, 30.0)
    robot.live = set()
    robot.until_state('image', 'stale')
    held = robot.fresh('latent')
    robot.fresh('filled/image')
    robot.fresh('filled/symbol')
    again = robot.fresh('latent')
    assert held.header.stamp == again.header.stamp, 'the stamp of what it came from'
    assert robot.now_ns() * 1e-9 - held.header.stamp.sec > 0.0
    assert {values['source'] for values in robot.status().values()} == {'hold'}
    assert robot.used() == set()

    robot.set_parameter('fallback', 'prior')
    robot.until(lambda: robot.status()['image']['source'] == 'prior', 'prior')
    table = read_table(robot.fresh('latent'))
    assert set(table['mean']) == {0.0}
    assert set(table['std']) == {1.0}
    assert robot.fresh('filled/image').header.frame_id == 'camera', 'as the sensor had it'

    robot.set_parameter('fallback', 'silent')
    robot.until(lambda: robot.status()['image']['source'] == 'none', 'silent')
    robot.set_parameter('fallback', 'prior')
    robot.call(SetBool, 'cmi/enable', SetBool.Request(data=False))
    robot.until(lambda: robot.status()['image']['state'] == 'disabled', 'disabled')
    robot.until(lambda: robot.status()['image']['source'] == 'none', 'nothing while off')


def test_health_fallback_is_known_by_its_old_name(bundle: Bundle, start, robot: Robot):
    node = start(f'bundle:={bundle.path}', 'autostart:=true', 'when_nothing:=prior')
    robot.until(lambda: robot.status().get('image', {}).get('source') == 'prior', 'prior', 30.0)
    assert 'when_nothing is the old name of fallback' in node.log


def test_health_parameters_are_checked_with_a_reason(bundle: Bundle, start, robot: Robot):
    start(f'bundle:={bundle.path}', 'autostart:=true', 'health.tolerate:=black, silent')
    robot.live = {'image'}
    robot.until_used({'image'}, 30.0)
    for name, value, reason in (
        ('health.tolerate', 'black, purple', '"purple" is not one of frozen'),
        ('health.flaps', -1, 'range'),
        ('health.max_invalid_fraction', 1.5, 'range'),
        ('health.agreement', 'yes', "expected 'type.bool'"),
        ('fallback', 'invent', 'silent, hold, prior'),
    ):
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        result = robot.call(SetParameters, 'cmi/set_parameters', request).results[0]
        assert not result.successful, name
        assert reason in result.reason.lower() or 'not within' in result.reason, result.reason


def test_health_time_that_starts_again_is_said_once(bundle: Bundle, start, robot: Robot):
    process = start(f'bundle:={bundle.path}', 'autostart:=true', 'use_sim_time:=true')
    clock = robot.node.create_publisher(Clock, '/clock', 1)
    time_ns = 50_000_000_000

    def play(state: str) -> bool:
        nonlocal time_ns
        time_ns += 20_000_000
        clock.publish(Clock(clock=time_message(time_ns)))
        robot.publishers['image'].publish(image_message(robot.picture(), time_ns))
        return robot.status().get('image', {}).get('state') == state

    robot.until(lambda: play('ok'), 'image in simulated time', 30.0)
    for _ in range(2):
        time_ns = 10_000_000_000
        robot.received['latent'].clear()
        robot.until(lambda: play('ok') and robot.received['latent'], 'image after the jump', 10.0)
        robot.until(
            lambda: play('ok') and robot.received['latent'][-1].header.stamp.sec < 50, 'new time'
        )
        time_ns = max(time_ns, 60_000_000_000)
        robot.until(
            lambda: play('ok') and robot.received['latent'][-1].header.stamp.sec >= 60, 'later'
        )
    assert process.log.count('time ran backwards') == 2
    assert 'Traceback' not in process.log


def test_health_log_explains_what_consumers_miss(bundle: Bundle, start, robot: Robot):
    process = start(f'bundle:={bundle.path}')
    robot.until(lambda: 'not configured: no output' in process.log, 'not configured', 30.0)
    latched_output = 'qos_overrides./third/filled/symbol.publisher.durability:=transient_local'
    second = start(f'bundle:={bundle.path}', 'autostart:=true', latched_output, namespace='/third')
    robot.until(lambda: 'nobody has subscribed to any output' in second.log, 'unread', 30.0)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    robot.node.create_subscription(PointCloud2, '/third/latent', lambda m: None, latched)
    robot.node.create_subscription(Image, '/third/latent/vector', lambda m: None, 1)
    robot.node.create_subscription(String, '/third/filled/symbol', lambda m: None, latched)
    robot.watch('/third/cmi/status', DiagnosticArray)
    robot.until(lambda: 'robot gets nothing from /third/latent:' in second.log, 'QoS', 30.0)
    assert 'set qos_overrides./third/latent.publisher.durability' in second.log
    assert 'gets nothing from /third/filled/symbol' not in second.log, 'the remedy works'
    robot.until(lambda: 'it expects sensor_msgs/msg/Image' in second.log, 'type', 30.0)
    assert 'gets nothing from /third/cmi/status' not in second.log


def test_health_frozen_camera_is_taken_out_and_comes_back_fault(
    bundle: Bundle, start, robot: Robot
):
    process = start(f'bundle:={bundle.path}', 'autostart:=true', 'rate_hz:=20')
    robot.live = {'image', 'sound'}
    robot.until(lambda: 'image' in robot.used(), 'image used', 30.0)
    frozen = robot.picture()
    healthy, robot.picture = robot.picture, lambda: frozen  # type: ignore[method-assign]
    status = robot.until_state('image', 'rejected', 5.0)
    assert status['fault'] == 'frozen'
    assert 'sound' in status['reason']
    robot.until(lambda: 'image: rejected, left out: /second/image' in process.log, 'log')
    robot.set_parameter('health.tolerate', 'frozen')
    assert robot.until_state('image', 'ok')['fault'] == 'frozen'
    robot.set_parameter('health.tolerate', '')
    robot.until_state('image', 'rejected')
    robot.picture = healthy  # type: ignore[method-assign]
    assert robot.until_state('image', 'ok')['fault'] == ''


@pytest.mark.parametrize('value', ['purple', 'black purple'])
def test_health_a_wrong_parameter_at_start_ends_the_node_in_one_line(
    bundle: Bundle, start, value: str
):
    process = start(f'bundle:={bundle.path}', 'autostart:=true', f'health.tolerate:={value}')
    assert process.process.wait(60) == UNUSABLE
    assert f'"{value}" is not one of frozen' in process.log
    assert 'Traceback' not in process.log
