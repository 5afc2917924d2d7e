"""Fixtures of the tests over real DDS: a small bundle, the node in its own process, a robot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mm_perception.bundle import Bundle, save_bundle

pytest.importorskip('rclpy', reason='rclpy is not installed')

from tests.helpers.robot import NodeProcess, Robot, isolate, robots

isolate()


@pytest.fixture(scope='session')
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with the modalities of MHD, small networks and random weights."""
    from tests.helpers.small_bundle import make_bundle  # needs torch, as not all of the tests do

    return save_bundle(make_bundle(), tmp_path_factory.mktemp('bundles') / 'small', '# small\n')


SECOND = '/second'  # apart from a node that other tests of a module share


@pytest.fixture
def robot() -> Iterator[Robot]:
    """A robot whose sensors are all off, in the namespace of what ``start`` starts."""
    yield from robots(SECOND)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., NodeProcess]]:
    """Start nodes that do not outlive the test: ``start(*parameters)``."""
    started: list[NodeProcess] = []

    def begin(*parameters: str, module: str = 'cmi_node', namespace: str = SECOND) -> NodeProcess:
        log = tmp_path / f'node{len(started)}.log'
        node = NodeProcess(log, *parameters, module=module, namespace=namespace)
        started.append(node)
        return node

    yield begin
    for node in started:
        if node.process.poll() is None:
            node.kill()
