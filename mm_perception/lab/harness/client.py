"""A ROS node within the process of whoever watches or feeds other nodes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile

from mm_perception.lab.harness.processes import NodeFailed, NodeProcess

DEPTH = 20
START_S = 60.0
WAKE_S, POLL_S = 0.5, 0.05


class RosClient:
    """
    Subscribes and publishes, in a context of its own; close it in the end.

    Whoever uses it calls :meth:`step`, or lets a thread serve it from :meth:`serve` on.

    :param name: of its node.
    :param domain_id: None: that of the environment.
    """

    step_s: float = 0.005

    def __init__(self, name: str, domain_id: int | None = None, namespace: str = '') -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        self.node = Node(name, context=self.context, namespace=namespace)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def subscribe(
        self, kind: type, topic: str, take: Callable[..., None], qos: QoSProfile | int = DEPTH
    ) -> Any:
        """Let ``take`` have the messages of a topic, and their information if it wants that."""
        return self.node.create_subscription(kind, topic, take, qos)

    def serve(self) -> None:
        """Receive in a thread from now on."""
        self._thread = threading.Thread(target=self._spin, name='client', daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Leave the graph."""
        # The thread ends before what it waits for: without its context rclpy can only fail.
        self._closing.set()
        if self._thread is not None:
            self._executor.wake()
            self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def step(self) -> None:
        """Take a message, or wait ``step_s`` for one; with a thread, only wait."""
        if self._thread is None:
            self._executor.spin_once(timeout_sec=self.step_s)
        else:
            time.sleep(POLL_S)

    def run(self, seconds: float) -> None:
        """Go on for a while."""
        self.wait(lambda: False, seconds)

    def wait(self, condition: Callable[[], Any], seconds: float) -> Any:
        """Go on until a condition holds or the time is over; returns its value."""
        end_s = time.monotonic() + seconds
        while not (value := condition()) and time.monotonic() < end_s:
            self.step()
        return value

    def expect(self, condition: Callable[[], Any], node: NodeProcess, otherwise: str) -> None:
        """
        Go on until a node that began has done something.

        :param otherwise: what to say if it does not.
        :raises NodeFailed: if it ends or does not in time, with the last lines of its log.
        """

        def done() -> bool:
            node.check()
            return bool(condition())

        if not self.wait(done, START_S):
            raise NodeFailed(f'{otherwise} within {START_S:.0f} s; its log: {node.log_tail()}')

    def _spin(self) -> None:
        while not self._closing.is_set():
            self._executor.spin_once(timeout_sec=WAKE_S)
