"""What a lifecycle node does with exceptions in its transitions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import rclpy
from rclpy.context import Context

from mm_perception.errors import ConfigError
from mm_perception.ros.lifecycle import ERROR, FAILURE, SUCCESS, ManagedNode


class Fragile(ManagedNode):
    """Raises what it is told to in each step, after a first part that must be undone."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('fragile', **kwargs)
        self.raises: dict[str, Exception] = {}
        self.held: list[str] = []

    def setup(self, undo: ExitStack) -> None:
        """Configure."""
        self._acquire('configure', undo)

    def start(self, undo: ExitStack) -> None:
        """Activate."""
        self._acquire('activate', undo)

    def _acquire(self, what: str, undo: ExitStack) -> None:
        self.held.append(what)
        undo.callback(self._give_back, what)
        if what in self.raises:
            raise self.raises[what]

    def _give_back(self, what: str) -> None:
        self.held.remove(what)
        if f'undo {what}' in self.raises:
            raise self.raises[f'undo {what}']


@pytest.fixture
def node() -> Iterator[Fragile]:
    """A node in a context of its own."""
    context = Context()
    rclpy.init(context=context)
    node = Fragile(context=context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


def label(node: Fragile) -> str:
    """State of a node."""
    return str(node._state_machine.current_state[1])


@pytest.mark.parametrize(
    ('error', 'outcome', 'said'),
    [(ConfigError('no such thing'), FAILURE, 'cannot {}: no such thing'),
     (ValueError('ours'), ERROR, "{} failed: ValueError('ours')\nTraceback")],
)  # fmt: skip
def test_managed_node_logs_exceptions_and_can_be_tried_again(
    node: Fragile, capfd: pytest.CaptureFixture[str], error: Exception, outcome: Any, said: str
) -> None:
    node.raises = {'configure': error}
    node.trigger_configure()
    assert label(node) == 'unconfigured' and node.held == []
    assert said.format('configure') in capfd.readouterr().err
    node.raises = {'activate': error}
    assert node.trigger_configure() == SUCCESS
    node.trigger_activate()
    assert said.format('activate') in capfd.readouterr().err
    # A user's error leaves the node configured; a defect of ours takes it down to the ground.
    expected = ('inactive', ['configure']) if outcome == FAILURE else ('unconfigured', [])
    assert (label(node), node.held) == expected
    node.raises = {}
    if outcome == ERROR:
        assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    assert (label(node), node.held) == ('active', ['configure', 'activate'])


def test_managed_node_undoes_the_rest_where_one_step_cannot_be_undone(
    node: Fragile, capfd: pytest.CaptureFixture[str]
) -> None:
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    node.raises = {'undo activate': ValueError('stuck')}
    assert node.trigger_shutdown() == SUCCESS
    assert (label(node), node.held) == ('finalized', [])
    text = capfd.readouterr().err
    assert "deactivate failed: ValueError('stuck')" in text and 'Traceback' in text
