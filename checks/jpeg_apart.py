"""
What decoding in a process of its own adds to the way of a VGA JPEG to its latent.

    python -m checks.jpeg_apart --turns 8

Two nodes, one of which decodes in the thread that receives, get the same pictures in turn. Exit
code 1 if the median is more than 1.3 times as long.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

import cv2
import numpy as np
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, PointCloud2

from mm_perception.lab.harness.client import RosClient
from mm_perception.lab.harness.processes import NodeProcess, isolate
from mm_perception.ros.codecs import make_header, stamp_of

LIMIT = 1.3
RATE_HZ = 30.0
SETTLE_S, START_S = 1.0, 120.0
WITHIN = """
import sys
import cv2, numpy as np
from mm_perception.ros import cmi_node
from mm_perception.ros.codecs import image
image.decode_apart = lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
sys.exit(cmi_node.main())
"""
PROGRAMS: dict[str, tuple[str, ...]] = {'apart': (), 'within': ('-c', WITHIN)}
PARAMETERS = {
    'bundle': 'mhd',
    'autostart': True,
    'trigger': 'image',
    'modalities.image.message': 'sensor_msgs/msg/CompressedImage',
}


class Camera(RosClient):
    """Publishes JPEGs to one of the nodes, and notes when their latents came."""

    step_s = 0.0005

    def __init__(self, domain_id: int) -> None:
        super().__init__('camera', domain_id)
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._publishers = {
            name: self.node.create_publisher(CompressedImage, f'/{name}/image', qos)
            for name in PROGRAMS
        }
        for name in PROGRAMS:
            self.subscribe(PointCloud2, f'/{name}/latent', self._take)
        noise = np.random.default_rng(0).integers(0, 40, (4, 480, 640, 3), np.uint8)
        noise[:, 100:400, 300:330] += 200
        self._pictures = [cv2.imencode('.jpg', 250 - each)[1].tobytes() for each in noise]
        self._sent: dict[int, int] = {}
        self.times_ms: list[float] = []
        self._due_s, self.to = 0.0, ''

    def step(self) -> None:
        """Publish if it is time, take what came."""
        if self.to and time.monotonic() >= self._due_s:
            self._due_s = max(self._due_s + 1.0 / RATE_HZ, time.monotonic())
            stamp_ns = time.time_ns()
            picture = self._pictures[stamp_ns % len(self._pictures)]
            message = CompressedImage(
                header=make_header(stamp_ns, 'camera'), format='jpeg', data=picture
            )
            self._sent[stamp_ns] = time.monotonic_ns()
            self._publishers[self.to].publish(message)
        super().step()

    def _take(self, message: PointCloud2) -> None:
        begin_ns = self._sent.pop(stamp_of(message.header, 0), None)
        if begin_ns is not None:
            self.times_ms.append((time.monotonic_ns() - begin_ns) * 1e-6)

    def measure(self, to: str, seconds: float) -> np.ndarray:
        """Times from picture to latent (ms)."""
        self.to = to
        self.run(SETTLE_S)
        self.times_ms.clear()
        self.run(seconds)
        self.to = ''
        self.run(0.2)
        return np.array(self.times_ms)


def main() -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seconds', type=float, default=5.0, help='of each turn')
    parser.add_argument('--turns', type=int, default=8)
    options = parser.parse_args()
    nodes: dict[str, NodeProcess] = {}
    found: dict[str, list[np.ndarray]] = {name: [] for name in PROGRAMS}
    with ExitStack() as stack:
        camera = stack.enter_context(closing(Camera(isolate())))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name, program in PROGRAMS.items():
            space = ['-r', f'__ns:=/{name}']
            nodes[name] = NodeProcess('cmi_node', folder / name, PARAMETERS, space, program)
            stack.callback(nodes[name].stop)
        for name in PROGRAMS:
            camera.to = name
            if not camera.wait(lambda: camera.times_ms, START_S):
                print(f'{name}: no latent came: {nodes[name].log_tail()}')
                return 1
            camera.times_ms.clear()
        for _ in range(options.turns):
            for name, times in found.items():
                times.append(camera.measure(name, options.seconds))
    medians = {name: [float(np.median(t)) for t in times] for name, times in found.items()}
    for name, each in medians.items():
        print(f'{name}: p50 of each turn', ', '.join(f'{m:.2f}' for m in each), 'ms')
    ratios = np.array(medians['apart']) / medians['within']
    ratio = float(np.median(ratios))
    print(f'{ratio:.2f} times as long ({ratios.min():.2f} to {ratios.max():.2f}); at most {LIMIT}')
    return int(ratio > LIMIT)


if __name__ == '__main__':
    raise SystemExit(main())
