"""From an environment of sensors and a policy to a LeRobot dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from mm_perception.data.dataset import complete_folder
from mm_perception.data.lerobot_writer import MARKER, Column, LeRobotWriter, whole_rate
from mm_perception.rl.failures import sensors_of
from mm_perception.rl.record import Step, play

PRESENT, ACTION, REWARD, DONE = 'observation.present', 'action', 'next.reward', 'next.done'


def record_lerobot(
    env: gymnasium.Env[Any, Any],
    act: Callable[[Any], Any] | None,
    out: Path,
    episodes: int,
    rate_hz: float,
    task: str = '',
    seed: int = 0,
) -> int:
    """
    Let a policy act, and write what the sensors give, its actions and its rewards.

    What ``info['present']`` calls missing is written as it came, and called missing in
    ``observation.present``.

    :param env: its observation is a dictionary of sensors, its actions are numbers (Box).
    :param act: from such an observation to an action; None: actions by chance.
    :param out: a folder; of another LeRobot dataset it is replaced.
    :param rate_hz: steps per second, a whole number.
    :param task: what the robot does, in words.
    :param seed: of the first episode; the next has the next.
    :returns: how many frames.
    :raises ConfigError: if the rate is not whole, or the environment has no sensors.
    :raises DataError: for no episodes, or if the folder is taken.
    """
    sensors, size = sensors_of(env.observation_space), int(np.prod(env.action_space.shape or (1,)))
    columns = {_key(name, space): _column(space) for name, space in sensors.items()}
    columns[PRESENT] = Column('bool', (len(sensors),), tuple(sensors))
    columns[ACTION] = Column('float32', (size,))
    columns |= {REWARD: Column('float32', (1,)), DONE: Column('bool', (1,))}
    name, frames = env.spec.id if env.spec else type(env).__name__, 0
    with complete_folder(out, MARKER) as folder:
        writer = LeRobotWriter(folder, whole_rate(rate_hz), columns, task or name, name)
        for steps in play(env, act, episodes, rate_hz, seed):
            writer.add(_episode(steps, sensors))
            frames += len(steps)
        writer.close()
    return frames


def _is_picture(space: spaces.Box) -> bool:
    return space.dtype == np.uint8 and len(space.shape) == 3 and space.shape[2] == 3


def _key(name: str, space: spaces.Box) -> str:
    return f'observation.images.{name}' if _is_picture(space) else f'observation.{name}'


def _column(space: spaces.Box) -> Column:
    if _is_picture(space):
        return Column('image', space.shape, ('height', 'width', 'channels'))
    return Column('float32', (int(np.prod(space.shape)),))


def _episode(steps: Sequence[Step], sensors: dict[str, spaces.Box]) -> dict[str, list[Any]]:
    episode: dict[str, list[Any]] = {
        _key(name, space): [
            step.seen[name] if _is_picture(space) else _flat(step.seen[name]) for step in steps
        ]
        for name, space in sensors.items()
    }
    episode[PRESENT] = [np.array([s.present.get(name, True) for name in sensors]) for s in steps]
    episode[ACTION] = [_flat(step.action) for step in steps]
    episode[REWARD] = [_flat(step.reward) for step in steps]
    episode[DONE] = [np.array([k == len(steps) - 1]) for k in range(len(steps))]
    return episode


def _flat(value: Any) -> np.ndarray:
    return np.asarray(value, np.float32).reshape(-1)
