"""Nodes of this package in processes of their own, on a ROS domain of their own."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mm_perception.errors import MMPerceptionError
from mm_perception.resources import transport_environment

NODES = {
    'cmi_node': 'mm_perception.ros.cmi_node',
    'gym_node': 'mm_perception.lab.gym.node',
    'microphone_node': 'mm_perception.ros.microphone_node',
    'policy_node': 'mm_perception.ros.policy_node',
    'replay_node': 'mm_perception.lab.replay.node',
    'view_node': 'mm_perception.ros.view.node',
    'echo_node': 'mm_perception.lab.benchmark.echo_node',
}
DOMAINS = range(1, 102)
STOP_S = 20.0
TAIL_LINES = 3


class NodeFailed(MMPerceptionError):
    """A node ended, or did not do in time what it was started for."""


def free_domain() -> int:
    """
    Find a ROS domain that nobody on this machine uses.

    :raises NodeFailed: if there is none.
    """
    for domain in random.sample(DOMAINS, len(DOMAINS)):
        # Ports of the first participant, from the RTPS specification.
        if all(_is_free(7400 + 250 * domain + offset) for offset in (0, 10, 11)):
            return domain
    raise NodeFailed('no free ROS domain: every one is in use on this machine')


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(('', port))
        except OSError:
            return False
        return True


def ros_environment(domain_id: int) -> dict[str, str]:
    """Environment variables that keep nodes among themselves: one domain, this machine only."""
    return {
        'ROS_DOMAIN_ID': str(domain_id),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        **transport_environment(),
    }


def isolate() -> int:
    """
    Put this process and those that it starts on a free domain, and let them end together.

    :returns: the domain.
    :raises NodeFailed: if there is none.
    """
    domain = free_domain()
    os.environ.update(ros_environment(domain))
    # SystemExit unwinds what was started.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    return domain


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
    A node of this package in a process of its own, with its log in a file.

    :param name: one of :data:`NODES`.
    :param log: file for everything that it writes.
    :param parameters: of the node.
    :param arguments: what follows ``--ros-args`` besides.
    :param program: what Python runs in place of the node's module.
    :param environment: added to that of this process.
    """

    def __init__(
        self,
        name: str,
        log: Path,
        parameters: Mapping[str, Any] | None = None,
        arguments: Sequence[str] = (),
        program: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._log = log
        command = [sys.executable, *(program or ('-m', NODES[name])), '--ros-args', *arguments]
        for key, value in (parameters or {}).items():
            command += ['-p', f'{key}:={_as_yaml(value)}']
        with log.open('w') as file:
            self.process = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(environment or {})},
            )

    @property
    def log(self) -> str:
        """Everything that it wrote so far."""
        return self._log.read_text(errors='replace')

    def log_tail(self) -> str:
        """Last lines of what it wrote, as one line."""
        lines = [line.strip() for line in self.log.splitlines() if line.strip()]
        return ' | '.join(lines[-TAIL_LINES:]) or 'it wrote nothing'

    def check(self) -> None:
        """
        Make sure that it still runs.

        :raises NodeFailed: with the last lines of its log.
        """
        code = self.process.poll()
        if code is not None:
            raise NodeFailed(f'{self.name} ended with exit code {code}: {self.log_tail()}')

    def resident_bytes(self) -> int:
        """Memory that it has now."""
        return int(self._facts.memory_info().rss)

    def cpu_percent(self) -> float:
        """CPU time of all threads since the last call, in % of one core; 0 at the first call."""
        return float(self._facts.cpu_percent())

    def stop(self, number: int = signal.SIGINT) -> int:
        """Signal it, kill it if it does not end; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """End it in any case; returns the exit code."""
        self.process.kill()
        return self.process.wait()

    @cached_property
    def _facts(self) -> Any:
        import psutil  # the demonstration does without

        return psutil.Process(self.process.pid)


@contextmanager
def running(name: str, parameters: Mapping[str, Any]) -> Iterator[NodeProcess]:
    """
    Run a node for a while, as :class:`NodeProcess`.

    :raises NodeFailed: in the end if it ended by itself.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        with interruptions_deferred():
            node = NodeProcess(name, Path(folder) / 'log', parameters)
            stack.callback(node.stop)
        yield node
        node.check()


@contextmanager
def viewing() -> Iterator[Callable[[], str]]:
    """
    Run ``view_node`` for a while, if what it needs is installed.

    :returns: what tells where its page is, in a line, once the other nodes are up.
    """
    if find_spec('aiohttp') is None:
        yield lambda: 'no page to watch it: pip install aiohttp'
        return
    with running('view_node', {'port': 0}) as node:
        yield lambda: f'watch it: {_address(node)}'


def _address(node: NodeProcess) -> str:
    end_s = time.monotonic() + STOP_S
    while time.monotonic() < end_s:
        node.check()
        found = re.search(r'open (http\S+)', node.log)
        if found:
            return found[1]
        time.sleep(0.05)
    raise NodeFailed(f'view_node: no page within {STOP_S:.0f} s: {node.log_tail()}')


def _as_yaml(value: Any) -> str:
    """Write a parameter so that its type survives the command line."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value).lower() if isinstance(value, bool) else str(value)
