"""
Frames per second of one fused environment, and of many that share a batch.

    python -m checks.environments --count 64

A frame is a step of the pendulum, its sensors failing by chance, and the latent that follows. Both
take turns. Exit code 1 if many give less than 10 times the frames of one.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import gymnasium
import numpy as np

from mm_perception.rl.failures import (
    Failures,
    RandomSpells,
    SensorFailures,
    VectorSensorFailures,
)
from mm_perception.rl.observation import FusedObservation, VectorFusedObservation
from mm_perception.rl.pendulum import ID, RATE_HZ

BUNDLE, LEAST = 'pendulum', 10.0


def frames_per_s(env: Any, steps: int, count: int) -> float:
    """Of so many steps of ``count`` environments, actions drawn beforehand."""
    actions = [env.action_space.sample() for _ in range(steps)]
    begin_s = time.perf_counter()
    for action in actions:
        env.step(action)
    return count * steps / (time.perf_counter() - begin_s)


def main() -> int:
    """Print the rates and their ratio; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--count', type=int, default=64, help='environments of the batch')
    parser.add_argument('--steps', type=int, default=150, help='per turn')
    parser.add_argument('--turns', type=int, default=8)
    args = parser.parse_args()
    failing = Failures(spells=RandomSpells())
    single = SensorFailures(gymnasium.make(ID, max_episode_steps=10**9), failing)
    many = gymnasium.make_vec(ID, args.count, vectorization_mode='vector_entry_point')
    envs = {
        1: FusedObservation(single, BUNDLE, rate_hz=RATE_HZ),
        args.count: VectorFusedObservation(
            VectorSensorFailures(many, failing), BUNDLE, rate_hz=RATE_HZ
        ),
    }
    rates: dict[int, list[float]] = {count: [] for count in envs}
    for count, env in envs.items():
        env.reset(seed=0)
        frames_per_s(env, 10, count)
    for _ in range(args.turns):
        for count, env in envs.items():
            rates[count].append(frames_per_s(env, args.steps, count))
    for count, found in rates.items():
        print(f'{count}: {np.median(found):.0f} frames/s ({min(found):.0f} to {max(found):.0f})')
    times = np.median(np.divide(rates[args.count], rates[1]))
    print(f'{times:.1f} times the frames of one; at least {LEAST:g}')
    return int(times < LEAST)


if __name__ == '__main__':
    raise SystemExit(main())
