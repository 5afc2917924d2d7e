"""Fixtures of the tests over real DDS: a small bundle, the node in its own process, a robot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mm_perception.bundle import Bundle, save_bundle

pytest.importorskip('rclpy', reason='rclpy is not installed')

from robot import NodeProcess, Robot, isolate, robots
from small_bundle import make_bundle

isolate()


@pytest.fixture(scope='session')
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with the modalities of MHD, small networks and random weights."""
    return save_bundle(make_bundle(), tmp_path_factory.mktemp('bundles') / 'small', '# small\n')


@pytest.fixture
def robot() -> Iterator[Robot]:
    """A robot whose sensors are all off."""
    yield from robots()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[type[NodeProcess]]:
    """Start nodes that do not outlive the test: ``start(*parameters)``."""
    started: list[NodeProcess] = []

    def begin(*parameters: str, module: str = 'cmi_node') -> NodeProcess:
        node = NodeProcess(tmp_path / f'node{len(started)}.log', *parameters, module=module)
        started.append(node)
        return node

    yield begin  # type: ignore[misc]
    for node in started:
        if node.process.poll() is None:
            node.kill()
