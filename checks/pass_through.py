"""
What ``filled/image`` adds to the way of a VGA image, and takes of a core.

A camera of 30 Hz publishes to the node and to an echo of plain rclpy in turn.
"""

from __future__ import annotations

import argparse
import time
from contextlib import closing

import numpy as np
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from mm_perception.lab.benchmark.echo_node import INPUT, OUTPUT
from mm_perception.lab.harness.client import RosClient
from mm_perception.lab.harness.processes import NodeProcess, isolate, running
from mm_perception.ros.codecs import image_message, stamp_of

RATE_HZ = 30.0
SETTLE_S, START_S = 1.0, 60.0
FILLED, CAMERA = 'filled/image', 'image'


class Camera(RosClient):
    """Publishes a picture with noise, and notes when it came back."""

    step_s = 0.0005

    def __init__(self, domain_id: int) -> None:
        super().__init__('camera', domain_id)
        self._qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._publishers = {
            topic: self.node.create_publisher(Image, topic, self._qos) for topic in (CAMERA, INPUT)
        }
        self.sent: dict[int, int] = {}
        self.times_ms: list[float] = []
        self._random = np.random.default_rng(0)
        self._due_s = 0.0
        self.to = ''

    def listen(self, topic: str) -> object:
        """Take what comes back on a topic."""
        return self.subscribe(Image, topic, self._take)

    def step(self) -> None:
        """Publish if it is time, take what came."""
        if self.to and time.monotonic() >= self._due_s:
            self._due_s = max(self._due_s + 1.0 / RATE_HZ, time.monotonic())
            pixels = np.full((480, 640, 3), 250, np.uint8)
            pixels[100:400, 300:330] = 20
            pixels ^= self._random.integers(0, 2, pixels.shape, np.uint8)
            message = image_message(pixels, time.time_ns())
            self.sent[stamp_of(message.header, 0)] = time.monotonic_ns()
            self._publishers[self.to].publish(message)
        super().step()

    def _take(self, message: Image) -> None:
        begin_ns = self.sent.pop(stamp_of(message.header, 0), None)
        if begin_ns is not None:
            self.times_ms.append((time.monotonic_ns() - begin_ns) * 1e-6)

    def measure(self, to: str, process: NodeProcess, seconds: float) -> tuple[np.ndarray, float]:
        """Times to and fro (ms), and the load of a process (% of a core)."""
        self.to = to
        self.run(SETTLE_S)
        process.cpu_percent()
        self.times_ms.clear()
        self.run(seconds)
        load = process.cpu_percent()
        self.to = ''
        self.run(0.1)
        return np.array(self.times_ms), load


def main() -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seconds', type=float, default=5.0, help='of each turn')
    parser.add_argument('--turns', type=int, default=4)
    options = parser.parse_args()
    parameters = {'bundle': 'mhd', 'autostart': True}
    with (
        closing(Camera(isolate())) as camera,
        running('cmi_node', parameters) as node,
        running('echo_node', {}) as echo,
    ):
        camera.listen(OUTPUT)
        heard = camera.listen(FILLED)
        for topic in (CAMERA, INPUT):
            camera.to = topic
            if not camera.wait(lambda: camera.times_ms, START_S):
                print(f'{topic}: nothing came back')
                return 1
            camera.times_ms.clear()
        found: dict[str, list[tuple[np.ndarray, float]]] = {CAMERA: [], INPUT: []}
        for _ in range(options.turns):
            for topic, process in ((CAMERA, node), (INPUT, echo)):
                found[topic].append(camera.measure(topic, process, options.seconds))
        camera.node.destroy_subscription(heard)
        alone = camera.measure(CAMERA, node, options.seconds)[1]
    _report(found, alone)
    return 0


def _report(found: dict[str, list[tuple[np.ndarray, float]]], alone: float) -> None:
    for topic, name in ((CAMERA, FILLED), (INPUT, 'echo')):
        times = [times for times, _ in found[topic]]
        p50 = ', '.join(f'{np.median(each):.2f}' for each in times)
        count = sum(map(len, times))
        load = np.mean([load for _, load in found[topic]])
        print(f'{name}: p50 {np.median(np.concatenate(times)):.2f} ms (of each turn {p50}),'
              f' {count} images, {load:.1f} % of a core')  # fmt: skip
    more = np.mean([load for _, load in found[CAMERA]]) - alone
    print(f'the node without a subscriber of {FILLED}: {alone:.1f} %, so it takes {more:.1f} %')


if __name__ == '__main__':
    raise SystemExit(main())
