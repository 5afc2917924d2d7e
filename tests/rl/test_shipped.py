"""The pendulum that ships: its policy keeps its return whatever sensors are gone."""

from __future__ import annotations

import numpy as np
import pytest

from mm_perception.resources import share_directory
from mm_perception.rl.agents import load_agent
from mm_perception.rl.evaluation import Arena, Condition, lies, losses, row
from mm_perception.rl.failures import FROZEN
from mm_perception.rl.observation import QUICK_CHECKS

training = pytest.importorskip('mm_perception.rl.training')

FOLDER = share_directory() / 'models' / 'pendulum'
NAME = 'mm_perception.rl.pendulum:mm_perception/Pendulum-v0'
SENSORS = ('camera', 'joints', 'microphones')
ENV = training.make_env(NAME)
ARENA = Arena(lambda count: training.make_vector(NAME, count), episodes=3)
MOST_BYTES = 4_000_000


def shares(conditions: list[Condition], found: np.ndarray) -> dict[tuple[int, str, int], float]:
    """Normalised returns by sensors and moment; the first condition is all sensors."""
    scale = float(found[0].mean()), float(ARENA.by_chance().mean()), 0.0
    rows = [row(c, each, *scale) for c, each in zip(conditions, found)]
    return {
        (len(r['missing']), '+'.join(r['missing']), r['at_step']): r['normalised'] for r in rows
    }


def test_policy_keeps_its_return_without_one_sensor_or_two():
    _, agent = load_agent(FOLDER / 'policy', str(FOLDER), ENV)
    conditions = losses(SENSORS)
    found = ARENA.returns(agent, conditions)
    kept = shares(conditions, found)
    assert min(share for (count, _, _), share in kept.items() if count == 1) >= 0.97
    assert min(share for (count, _, _), share in kept.items() if count == 2) >= 0.90
    assert found[0].mean() > ARENA.by_zero().mean() + 600
    _, knowing = load_agent(FOLDER / 'policy' / 'true_state', str(FOLDER), ENV)
    assert abs(ARENA.returns(knowing, [Condition()]).mean() - found[0].mean()) < 60


def test_health_checks_save_the_return_from_a_frozen_sensor():
    frozen = [c for c in lies(SENSORS, (15,)) if c.fault == FROZEN]
    conditions = [Condition(), *frozen]
    for checks, least, most in ((None, 0.0, 0.95), (QUICK_CHECKS, 0.97, 1.0)):
        _, agent = load_agent(FOLDER / 'policy', str(FOLDER), ENV, checks)
        kept = shares(conditions, ARENA.returns(agent, conditions))
        assert least <= min(kept.values()) <= most


def test_pendulum_is_small():
    assert sum(file.stat().st_size for file in FOLDER.rglob('*') if file.is_file()) < MOST_BYTES
