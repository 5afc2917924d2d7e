"""Camera images between processes under the shipped Fast DDS profile."""

from __future__ import annotations

import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSProfile, ReliabilityPolicy
from robot import Robot
from sensor_msgs.msg import Image

from mm_perception.bundle import Bundle
from mm_perception.ros.codecs import image_message


def received(robot: Robot) -> int:
    """Images that the node has received, by its diagnostics."""
    for message in reversed(robot.received['/diagnostics']):
        for entry in message.status:
            values = {v.key: v.value for v in entry.values}
            if entry.name == 'cmi: image' and values['topic'].startswith('/second/'):
                return int(values['received'])
    return 0


@pytest.mark.parametrize('reliability', list(ReliabilityPolicy)[1:3], ids=lambda r: r.name)
def test_transport_loses_no_camera_image(bundle: Bundle, start, robot: Robot, reliability):
    robot.node.destroy_publisher(robot.publishers.pop('image'))
    qos = QoSProfile(depth=5, reliability=reliability)
    camera = robot.node.create_publisher(Image, 'image', qos)
    robot.watch('/diagnostics', DiagnosticArray)
    start(f'bundle:={bundle.path}', 'autostart:=true')
    robot.until(lambda: camera.get_subscription_count(), 'subscription', 30.0)
    robot.run(0.5)
    pixels = np.random.default_rng(0).integers(0, 255, (480, 640, 3)).astype(np.uint8)
    sent = 90
    for _ in range(sent):
        end_s = time.monotonic() + 1 / 30
        camera.publish(image_message(pixels, robot.now_ns()))
        robot.run(end_s - time.monotonic())
    robot.run(2.2)
    assert received(robot) >= 0.97 * sent
