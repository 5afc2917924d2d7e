"""The processes of the section ``node``: started, waited for, ended."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mm_perception.benchmark.remote import BenchmarkFailed
from mm_perception.benchmark.robot import Robot
from mm_perception.bundle import Bundle
from mm_perception.demo.processes import NodeProcess, free_domain, ros_environment

START_S = 60.0


class Scene:
    """
    Robots and nodes, on a ROS domain of their own.

    :param bundle: what the node runs.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle, self._domain = bundle, free_domain()
        os.environ.update(ros_environment(self._domain))
        # So that the nodes end with this process when it is told to end.
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))

    @contextmanager
    def robot(self, reliable: bool = False) -> Iterator[Robot]:
        """A robot; ``reliable`` is the quality of service of its camera."""
        robot = Robot(self._bundle, self._domain, reliable)
        try:
            yield robot
        finally:
            robot.close()

    @contextmanager
    def node(self, **parameters: Any) -> Iterator[NodeProcess]:
        """The node, as it starts."""
        fixed = {'bundle': str(self._bundle.path.resolve()), 'autostart': True}
        yield from _process('cmi_node', {**fixed, **parameters}, 'mm_perception.ros')

    @contextmanager
    def echo(self, **parameters: Any) -> Iterator[NodeProcess]:
        """The node of plain rclpy, as it starts."""
        yield from _process('echo_node', parameters, 'mm_perception.benchmark')


def _process(module: str, parameters: Mapping[str, Any], package: str) -> Iterator[NodeProcess]:
    process = NodeProcess(module, parameters, package)
    try:
        yield process
        process.check()
    finally:
        process.stop()


def wait_until(
    condition: Callable[[], Any],
    send: Callable[[float, Callable[[], Any]], None],
    process: NodeProcess,
    otherwise: str,
) -> None:
    """
    Send or listen until a condition holds.

    :param send: a method of the robot.
    :raises BenchmarkFailed: if it does not hold in time, with the last words of the process.
    :raises DemoFailed: if the process ends.
    """

    def over() -> bool:
        process.check()
        return bool(condition())

    send(START_S, over)
    if not condition():
        raise BenchmarkFailed(f'{otherwise} within {START_S:.0f} s; its log: {process.log_tail()}')
