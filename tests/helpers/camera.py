"""A camera in a process of its own: numbered VGA images at 30 Hz; for test_transport.py."""

from __future__ import annotations

import time

import numpy as np
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from mm_perception.ros.codecs import image_message

RATE_HZ = 30.0
DEPTH = 5  # of a camera driver


def main() -> None:
    """Wait for a subscriber, then publish ``count`` images; the stamp is the number, in ns."""
    rclpy.init()
    node = rclpy.create_node('camera')
    count = node.declare_parameter('count', 0).value
    reliability = ReliabilityPolicy[node.declare_parameter('reliability', '').value]
    publisher = node.create_publisher(
        Image, 'image', QoSProfile(depth=DEPTH, reliability=reliability)
    )
    pixels = np.random.default_rng(0).integers(0, 255, (480, 640, 3)).astype(np.uint8)
    while not publisher.get_subscription_count():
        time.sleep(0.01)
    due_s = time.monotonic()
    for number in range(1, count + 1):
        publisher.publish(image_message(pixels, number))
        due_s = max(due_s + 1.0 / RATE_HZ, time.monotonic())
        time.sleep(max(0.0, due_s - time.monotonic()))
    rclpy.spin(node)  # a reliable publisher repeats what is missing as long as it lives


if __name__ == '__main__':
    main()
