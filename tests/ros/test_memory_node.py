"""A node whose bundle has a memory: what it publishes for a lost sensor follows its motion."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed')
pytest.importorskip('torch', reason='torch is not installed')

from sensor_msgs.msg import JointState

from mm_perception.bundle import save_bundle
from mm_perception.data.dataset import Dataset
from mm_perception.engines.build import reference_engine
from mm_perception.engines.export import with_graphs
from mm_perception.ros.codecs import make_header
from mm_perception.training.memory import learn_memory
from tests.helpers.moving_world import moving_spec, moving_world
from tests.helpers.robot import NodeProcess, Robot
from tests.helpers.small_bundle import make_bundle

NAMES = ('arm', 'hand')
PERIOD_S = 0.05
SEEN_S, LOST_S = 2.0, 2.0


def two_arms(recordings: int, start: int = 0) -> Dataset:
    """Arm and hand of the moving world."""
    world = moving_world(recordings, start=start)
    columns = [world.names.index(name) for name in NAMES]
    values = {name: world.values[name] for name in NAMES}
    index = {name: world.index[name] for name in NAMES}
    present = world.present[:, columns]
    return replace(world, names=NAMES, values=values, index=index, present=present)


@pytest.fixture(scope='module')
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    whole = moving_spec()
    modalities = tuple(replace(whole.modality(name), max_age_s=0.2) for name in NAMES)
    made = make_bundle('two_arms', spec=replace(whole, modalities=modalities))
    memory = learn_memory(reference_engine(made, 'cpu'), made.spec, two_arms(8))
    path = tmp_path_factory.mktemp('bundles') / 'two_arms'
    save_bundle(with_graphs(replace(made, memory=memory or {})), path, 'card')
    return path


def test_node_goes_on_from_the_last_value(
    bundle: Path, robot: Robot, start: Callable[..., NodeProcess]
) -> None:
    world = two_arms(1, start=30)
    publishers = {name: robot.node.create_publisher(JointState, name, 10) for name in NAMES}
    robot.watch('filled/hand', JointState)
    start(f'bundle:={bundle}', 'autostart:=true', 'rate_hz:=20.0')

    def truth(name: str, at_s: float) -> np.ndarray:
        values = world.values[name] * 6.0 - 3.0
        return np.array([np.interp(at_s, world.time_s, column) for column in values.T])

    def play(names: tuple[str, ...], begin_s: float, until_s: float) -> list[tuple[float, float]]:
        """Errors of what is filled in for the hand, and of holding."""
        errors = []
        while (at_s := time.monotonic() - begin_s) < until_s:
            for name in names:
                header = make_header(robot.now_ns())
                position = truth(name, at_s).tolist()
                publishers[name].publish(JointState(header=header, position=position))
            robot.received['filled/hand'].clear()
            stop_s = time.monotonic() + PERIOD_S
            while time.monotonic() < stop_s:
                robot.step()
            if names != NAMES and robot.received['filled/hand'] and at_s > SEEN_S + 0.5:
                filled = np.array(robot.received['filled/hand'][-1].position)
                wanted = truth('hand', at_s)
                held = truth('hand', SEEN_S)
                errors.append((np.abs(filled - wanted).mean(), np.abs(held - wanted).mean()))
        return errors

    robot.until(lambda: node_is_active(robot), 'the node', 40.0)
    begin_s = time.monotonic()
    play(NAMES, begin_s, SEEN_S)
    errors = np.array(play(('arm',), begin_s, SEEN_S + LOST_S))
    assert len(errors) > 10
    assert errors[:, 0].mean() < 0.5 * errors[:, 1].mean()
    robot.set_parameter('memory', False)
    alone = np.array(play(('arm',), begin_s, time.monotonic() - begin_s + 0.8))
    assert alone[-3:, 0].mean() > 2.0 * errors[:, 0].mean()


def node_is_active(robot: Robot) -> bool:
    """Whether the node publishes its status."""
    return bool(robot.received['cmi/status'])
