"""
What a camera image costs without us: a node of plain rclpy that sends every image back.

It counts what arrives on ``image`` too, so that the count of the node can be compared.
"""

from __future__ import annotations

import sys
from contextlib import suppress

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import UInt64

INPUT, OUTPUT, IMAGE, COUNTED = 'echo/input', 'echo/output', 'image', 'echo/counted'
ECHO, COUNT = 'echo', 'count'
REPORT_S = 0.25
COUNT_DEPTH = 30


class EchoNode(Node):
    """One of two things, by the parameter ``role``: ``echo`` images, or ``count`` them."""

    def __init__(self) -> None:
        super().__init__('echo')
        role = self.declare_parameter('role', ECHO).value
        reliable = self.declare_parameter('reliable', False).value
        reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        qos = QoSProfile(depth=1 if role == ECHO else COUNT_DEPTH, reliability=reliability)
        if role == ECHO:
            self._output = self.create_publisher(Image, OUTPUT, 1)
            self.create_subscription(Image, INPUT, self._output.publish, qos)
            return
        self._seen: set[str] = set()
        self._counted = self.create_publisher(UInt64, COUNTED, 1)
        self.create_subscription(Image, IMAGE, self._count, qos)
        self.create_timer(REPORT_S, self._report)

    def _count(self, image: Image) -> None:
        self._seen.add(image.header.frame_id)  # the robot numbers its images there

    def _report(self) -> None:
        self._counted.publish(UInt64(data=len(self._seen)))


def main() -> int:
    """Run the node until it is told to end."""
    rclpy.init()
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(EchoNode())
    return 0


if __name__ == '__main__':
    sys.exit(main())
