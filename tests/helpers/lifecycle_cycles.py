"""Takes a node through its life again and again; a program for test_endurance.py."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import numpy as np
import psutil
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from mm_perception.ros.cmi_node import CmiNode
from mm_perception.ros.codecs import image_message

STEPS = ('configure', 'activate', 'deactivate', 'cleanup')


def footprint(node: Any) -> dict[str, int]:
    """What the process and the node hold."""
    process = psutil.Process()
    entities = ('publishers', 'subscriptions', 'timers', 'services', 'clients', 'guards')
    return {
        'memory_kib': process.memory_info().rss // 1024,
        'files': process.num_fds(),
        'threads': process.num_threads(),
        'python_threads': threading.active_count(),
        **{name: len(list(getattr(node, name))) for name in entities},
    }


def main(bundle: str, cycles: int) -> None:
    """Print the footprint after every cycle, as JSON."""
    rclpy.init()
    node = CmiNode(parameter_overrides=[
        Parameter('bundle', value=bundle), Parameter('rate_hz', value=100.0)
    ])  # fmt: skip
    camera = node.create_publisher(
        image_message(np.zeros((1, 1), np.uint8), 0).__class__, 'image', 1
    )
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(cycles):
        for step in STEPS:
            outcome = getattr(node, f'trigger_{step}')()
            assert outcome == TransitionCallbackReturn.SUCCESS, step
            if step == 'activate':
                end_s = time.monotonic() + 10.0
                while node._reporter.latents < 1 and time.monotonic() < end_s:
                    now_ns = node.get_clock().now().nanoseconds
                    camera.publish(image_message(rng.integers(0, 255, (48, 64), np.uint8), now_ns))
                    executor.spin_once(timeout_sec=0.01)
                    time.sleep(0.005)  # or the worker hardly ever gets its turn
                assert node._reporter.latents, 'no latent'
        seen.append(footprint(node))
    print(json.dumps(seen))
    node.destroy_node()
    rclpy.shutdown()


if __name__ == '__main__':
    main(sys.argv[1], int(sys.argv[2]))
