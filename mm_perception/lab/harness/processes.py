"""The demonstration's nodes: processes of their own, on a ROS domain of their own."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mm_perception.errors import MMPerceptionError
from mm_perception.resources import transport_environment

NODES = {
    'cmi_node': 'mm_perception.ros.cmi_node',
    'microphone_node': 'mm_perception.ros.microphone_node',
    'replay_node': 'mm_perception.lab.replay.node',
    'echo_node': 'mm_perception.lab.benchmark.echo_node',
}
DOMAINS = range(1, 102)
STOP_S = 5.0
TAIL_LINES = 3


class DemoFailed(MMPerceptionError):
    """The demonstration could not run to its end."""


def free_domain() -> int:
    """
    Find a ROS domain that nobody on this machine uses.

    :raises DemoFailed: if there is none.
    """
    for domain in random.sample(DOMAINS, len(DOMAINS)):
        # Ports of the first participant, from the RTPS specification.
        if all(_is_free(7400 + 250 * domain + offset) for offset in (0, 10, 11)):
            return domain
    raise DemoFailed('no free ROS domain: every one is in use on this machine')


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(('', port))
        except OSError:
            return False
        return True


def ros_environment(domain_id: int) -> dict[str, str]:
    """Environment variables of all processes of the demonstration."""
    return {
        'ROS_DOMAIN_ID': str(domain_id),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        **transport_environment(),
    }


@contextmanager
def interruptions_deferred() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait, so that a process that just began is not forgotten."""
    arrived: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = {n: signal.signal(n, lambda number, frame: arrived.append(number)) for n in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for late in arrived:
            signal.raise_signal(late)


class NodeProcess:
    """
    A node of this package in a process of its own.

    :param name: one of :data:`NODES`.
    :param parameters: of the node.
    """

    def __init__(self, name: str, parameters: Mapping[str, Any]) -> None:
        self.name = name
        self._log = tempfile.TemporaryFile('w+')  # noqa: SIM115 - closed in stop
        command = [sys.executable, '-m', NODES[name], '--ros-args']
        for key, value in parameters.items():
            command += ['-p', f'{key}:={_as_yaml(value)}']
        self._process = subprocess.Popen(
            command, stdout=self._log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def check(self) -> None:
        """
        Make sure that it still runs.

        :raises DemoFailed: with the last lines of its log.
        """
        code = self._process.poll()
        if code is not None:
            raise DemoFailed(f'{self.name} ended with exit code {code}: {self.log_tail()}')

    def log_tail(self) -> str:
        """Last lines of what it wrote, as one line."""
        self._log.seek(0)
        lines = [line.strip() for line in self._log if line.strip()]
        return ' | '.join(lines[-TAIL_LINES:]) or 'it wrote nothing'

    def stop(self) -> None:
        """End the process, politely first."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()


def _as_yaml(value: Any) -> str:
    """Write a parameter so that its type survives the command line."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value).lower() if isinstance(value, bool) else str(value)
