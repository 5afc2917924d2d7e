"""Camera images between processes under the shipped Fast DDS profile, and how it is selected."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from mm_perception.bundle import Bundle
from mm_perception.errors import ConfigError
from mm_perception.resources import (
    OLD_VARIABLE,
    VARIABLE,
    profile_variables,
    share_directory,
    transport_environment,
)
from tests.helpers.camera import RATE_HZ
from tests.helpers.robot import NodeProcess, Robot

CAMERA = Path(__file__).parents[1] / 'helpers' / 'camera.py'
RELIABILITIES = (ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE)
DISCOVERY, COUNT = 30, 300  # images
# A process that must wait for the processor takes late, but it takes all: not overwritten.
DEEP = DISCOVERY + COUNT


@pytest.mark.parametrize('reliability', RELIABILITIES, ids=lambda policy: policy.name)
def test_transport_loses_no_camera_image(robot: Robot, tmp_path: Path, reliability) -> None:
    numbers: list[int] = []
    robot.node.create_subscription(
        Image,
        'image',
        lambda message: numbers.append(message.header.stamp.nanosec),
        QoSProfile(depth=DEEP, reliability=reliability),
    )
    robot.node.destroy_publisher(robot.publishers.pop('image'))
    last = DISCOVERY + COUNT
    parameters = (f'count:={last}', f'reliability:={reliability.name}')
    camera = NodeProcess(tmp_path / 'log', *parameters, script=CAMERA, namespace='/second')
    try:
        robot.until(lambda: last in numbers, 'last image', 30.0 + 2 * last / RATE_HZ)
    finally:
        camera.kill()
    assert numbers[0] <= DISCOVERY
    assert numbers == list(range(numbers[0], last + 1))


def received(robot: Robot) -> int:
    """Images that the node has received, by its next diagnostics."""
    for entry in robot.fresh('/diagnostics').status:
        values = {v.key: v.value for v in entry.values}
        if entry.name == 'cmi: image' and values['topic'].startswith('/second/'):
            return int(values['received'])
    return 0


def test_transport_brings_every_camera_image_to_the_node(bundle: Bundle, start, robot: Robot):
    robot.watch('/diagnostics', DiagnosticArray)
    depth = f'qos_overrides./second/image.subscription.depth:={DEEP}'
    start(f'bundle:={bundle.path}', 'autostart:=true', depth)
    robot.live = {'image'}
    robot.until(lambda: received(robot), 'first image', 40.0)
    robot.live = set()
    robot.until(lambda: received(robot) == received(robot), 'silence')
    before, sent = received(robot), 60
    for _ in range(sent):
        robot.send('image')
        robot.run(1.0 / RATE_HZ)
    robot.until(lambda: received(robot) == before + sent, 'every image', 20.0)


def output_of_node(variable: str, profile: Path) -> str:
    """What a process with a node says when an environment variable names a profile."""
    program = 'import rclpy; rclpy.init(); rclpy.create_node("reader"); rclpy.shutdown()'
    environment = {k: v for k, v in os.environ.items() if k not in (VARIABLE, OLD_VARIABLE)}
    run = subprocess.run(
        [sys.executable, '-c', program],
        env=environment | {variable: str(profile)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return run.stdout + run.stderr


def test_transport_variable_is_read_by_the_installed_fast_dds(tmp_path: Path) -> None:
    broken = tmp_path / 'broken.xml'
    broken.write_text('no profile')
    chosen, *_ = profile_variables()
    assert 'XMLPARSER' in output_of_node(chosen, broken)
    assert output_of_node(chosen, share_directory() / 'config' / 'fastdds_shm.xml') == ''


@pytest.mark.parametrize(
    ('library', 'variables'),
    [('fastrtps', (OLD_VARIABLE,)), ('fastdds', (VARIABLE, OLD_VARIABLE))],
)
def test_transport_variable_follows_fast_dds(monkeypatch, tmp_path, library, variables) -> None:
    (tmp_path / 'share' / library).mkdir(parents=True)
    monkeypatch.setenv('AMENT_PREFIX_PATH', f'/absent:{tmp_path}')
    assert profile_variables() == variables
    for variable in (VARIABLE, OLD_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    assert list(transport_environment()) == [variables[0]]
    monkeypatch.setenv(variables[-1], '/users/own.xml')
    assert transport_environment() == {}, 'what the user has set is left alone'


def test_transport_names_a_profile(monkeypatch, tmp_path: Path) -> None:
    for variable in (VARIABLE, OLD_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    assert transport_environment('none') == {}
    (shipped,) = transport_environment().values()
    assert shipped.endswith('config/fastdds_shm.xml')
    own = tmp_path / 'own.xml'
    own.write_text('<dds/>')
    assert list(transport_environment(str(own)).values()) == [str(own)]
    with pytest.raises(ConfigError, match='no transport profile'):
        transport_environment(str(tmp_path / 'absent.xml'))
