"""The processes of a soak test, and what a consumer of the node sees over a long time."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import String

from mm_perception.lab.harness.processes import NODES
from mm_perception.ros.codecs import output_codec
from mm_perception.ros.qos import latched_qos


class Process:
    """A node of the package with its log in a file."""

    def __init__(self, module: str, folder: Path, parameters: dict[str, Any]) -> None:
        self.log = folder / f'{module}.log'
        command = [sys.executable, '-m', NODES[module], '--ros-args']
        for name, value in parameters.items():
            command += ['-p', f'{name}:={value}']
        with self.log.open('w') as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)

    def resident_mib(self) -> float:
        """Memory that it takes."""
        text = (Path('/proc') / str(self.process.pid) / 'status').read_text()
        return int(text.split('VmRSS:')[1].split()[0]) / 1024

    def stop(self) -> int:
        """End it; its exit code."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(20.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def exceptions(self) -> list[str]:
        """Lines of its log that tell of an exception."""
        lines = self.log.read_text().splitlines()
        return [line for line in lines if 'Traceback' in line or 'defect' in line]


STALL_S = 0.35  # this process wakes every 0.05 s


class Watcher:
    """
    Notes when latents came, and when the state of a sensor changed.

    Times are in seconds from the start of the replay's schedule.

    :param domain_id: ROS domain of the nodes.
    :param names: of the sensors, which are of kinds of the same names.
    """

    def __init__(self, domain_id: int, names: Sequence[str]) -> None:
        self.start_s: float | None = None
        self.latents_s: list[float] = []
        self._stalls_s: list[tuple[float, float]] = []
        self._awake_s = 0.0
        self._changes: dict[str, list[tuple[float, str]]] = {name: [] for name in names}
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self._node = rclpy.create_node('soak', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        subscribe = self._node.create_subscription
        subscribe(String, 'replay/truth', self._take_truth, latched_qos())
        subscribe(PointCloud2, 'latent', self._take_latent, 20)
        subscribe(DiagnosticArray, 'cmi/status', self._take_status, 20)
        for name in names:
            # So that all of them are generated while they are missing.
            subscribe(output_codec(name).message_type, f'filled/{name}', lambda message: None, 5)

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    def elapsed_s(self) -> float:
        """Time since the schedule began; negative before."""
        return -1.0 if self.start_s is None else time.time() - self.start_s

    def spin_once(self) -> None:
        """Take what has come; note for how long this process stood still before."""
        now_s = self.elapsed_s()
        if now_s - self._awake_s > STALL_S:
            self._stalls_s.append((self._awake_s, now_s))
        self._awake_s = now_s
        self._executor.spin_once(timeout_sec=0.05)

    def spin_until(self, condition: Callable[[], bool], seconds: float) -> None:
        """
        Take what comes until a condition holds.

        :raises TimeoutError: if it does not within ``seconds``.
        """
        end_s = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end_s:
                raise TimeoutError(f'the nodes did not start within {seconds:.0f} s')
            self.spin_once()

    def first(self, name: str, begin_s: float, end_s: float, state: str) -> float | None:
        """When a sensor first had a state within a time; None if it had not."""
        changes = self._changes[name]
        position = max(bisect_left(changes, (begin_s, '')) - 1, 0)
        for change_s, to_state in changes[position:]:
            if change_s > end_s:
                return None
            if to_state == state:
                return max(change_s, begin_s)
        return None

    def stalled_s(self, begin_s: float, end_s: float) -> float:
        """For how long of a time this process stood still too, and so the machine."""
        cut = ((max(a_s, begin_s), min(b_s, end_s)) for a_s, b_s in self._stalls_s)
        return sum(max(b_s - a_s, 0.0) for a_s, b_s in cut)

    def latent_rate_hz(self, begin_s: float, end_s: float) -> float:
        """Latents per second within a time."""
        first, last = (bisect_left(self.latents_s, at_s) for at_s in (begin_s, end_s))
        return (last - first) / (end_s - begin_s)

    def _take_truth(self, message: String) -> None:
        self.start_s = json.loads(message.data)['schedule_start_ns'] * 1e-9

    def _take_latent(self, message: PointCloud2) -> None:
        self.latents_s.append(self.elapsed_s())

    def _take_status(self, message: DiagnosticArray) -> None:
        now_s = self.elapsed_s()
        for entry in message.status:
            state = next(value.value for value in entry.values if value.key == 'state')
            changes = self._changes[entry.name]
            if not changes or changes[-1][1] != state:
                changes.append((now_s, state))
