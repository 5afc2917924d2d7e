"""What a policy returns while sensors fail: the same starts for everybody."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from mm_perception.modalities.base import Array
from mm_perception.rl.failures import (
    ANOTHER,
    FROZEN,
    MISSING,
    NOISY,
    STALE,
    Failures,
    Spell,
    VectorSensorFailures,
)
from mm_perception.rl.observation import Observer, VectorObservedBy

FIRST_SEED = 1000
"""Of the episode that the evaluation begins with; training begins with others."""
ELSEWHERE_SEED = 999
LYING = (FROZEN, STALE, NOISY, ANOTHER)
MOMENTS = (0, 5, 15, 40)
SPELL_STEPS = 40
BATCH = 200
Others = Mapping[str, NDArray[Any]]
Act = Callable[[Array], Array]


@dataclass(frozen=True)
class Condition:
    """
    How sensors fail in an episode.

    :param sensors: that fail; none: all is well.
    :param begin: step at which they do; ``end``: at which they are well again, None for never.
    """

    sensors: tuple[str, ...] = ()
    fault: str = MISSING
    begin: int = 0
    end: int | None = None

    def failures(self, others: Others | None) -> Failures:
        """The same, as an environment takes it."""
        spell = Spell(self.sensors, self.fault, self.begin, self.end)
        return Failures((spell,) if self.sensors else (), others=others)

    def plain(self) -> dict[str, Any]:
        """As a row of the results says it."""
        fault = self.fault if self.sensors else 'none'
        where = {'missing': list(self.sensors), 'fault': fault, 'at_step': self.begin}
        return where | {'end_step': self.end}


@dataclass(frozen=True)
class Agent:
    """
    A policy with what it reads.

    :param observer: makes that of so many environments.
    :param act: its actions, ``float32[N, A]``.
    """

    observer: Callable[[int], Observer]
    act: Act


def losses(sensors: Sequence[str]) -> list[Condition]:
    """All well; one and two sensors lost at several moments, and one for a while."""
    lost = [c for k in (1, 2) if k < len(sensors) for c in itertools.combinations(sensors, k)]
    found = [Condition()]
    found += [Condition(each, MISSING, begin) for each in lost for begin in MOMENTS]
    spell = MOMENTS[-1], MOMENTS[-1] + SPELL_STEPS
    return found + [Condition((name,), MISSING, *spell) for name in sensors]


def lies(sensors: Sequence[str], moments: Sequence[int] = MOMENTS) -> list[Condition]:
    """One sensor lies, in every way, from several moments on."""
    return [Condition((n,), f, m) for n in sensors for f in LYING for m in moments]


class Arena:
    """
    An environment in which agents are compared.

    :param make: so many of it at once.
    :param episodes: how many starts.
    """

    def __init__(self, make: Callable[[int], VectorEnv[Any, Any, Any]], episodes: int) -> None:
        self._make = make
        self.starts = list(range(FIRST_SEED, FIRST_SEED + episodes))

    def returns(
        self, agent: Agent, conditions: Sequence[Condition], others: Others | None = None
    ) -> NDArray[np.float64]:
        """
        Let an agent act under conditions.

        :param others: what the sensors gave in another episode, see :meth:`elsewhere`.
        :returns: sum of the rewards of each episode, ``float64[C, episodes]``.
        """
        jobs = [(c.failures(others), seed) for c in conditions for seed in self.starts]
        found = []
        for begin in range(0, len(jobs), BATCH):
            batch = jobs[begin : begin + BATCH]
            env = VectorSensorFailures(self._make(len(batch)), [failing for failing, _ in batch])
            observed = VectorObservedBy(env, agent.observer(len(batch)))
            found.append(_play(observed, agent.act, [seed for _, seed in batch]))
        return np.concatenate(found).reshape(len(conditions), len(self.starts))

    def elsewhere(self, agent: Agent) -> Others:
        """What the sensors give in another episode of an agent, ``[T, *shape]`` by name."""
        kept = _Keeping(agent.observer(1))
        _play(VectorObservedBy(self._make(1), kept), agent.act, [ELSEWHERE_SEED])
        return {name: np.stack([v[name][0] for v in kept.values]) for name in kept.values[0]}

    def by_chance(self) -> NDArray[np.float64]:
        """Returns of random actions."""
        space = self._make(1).single_action_space
        space.seed(0)
        act = lambda seen: np.stack([space.sample() for _ in seen])  # noqa: E731
        return self.returns(Agent(_Blind, act), [Condition()])[0]

    def by_zero(self) -> NDArray[np.float64]:
        """Returns of the action zero."""
        size = np.size(self._make(1).single_action_space.sample())
        agent = Agent(_Blind, lambda seen: np.zeros((len(seen), size), np.float32))
        return self.returns(agent, [Condition()])[0]


class _Blind:
    """Observer for those who do not look."""

    size = 1

    def __init__(self, count: int) -> None:
        self._nothing = np.zeros((count, 1), np.float32)

    def begin(self, rows: Any) -> None:
        """Nothing to forget."""

    def observe(self, values: Any, present: Any) -> Array:
        """Nothing."""
        return self._nothing


class _Keeping:
    """An observer that keeps what the sensors gave."""

    def __init__(self, observer: Observer) -> None:
        self._observer, self.size = observer, observer.size
        self.values: list[dict[str, NDArray[Any]]] = []

    def begin(self, rows: Any) -> None:
        """Pass it on."""
        self._observer.begin(rows)

    def observe(self, values: Any, present: Any) -> Array:
        """Pass it on."""
        self.values.append({name: np.array(value) for name, value in values.items()})
        return self._observer.observe(values, present)


def _play(env: VectorObservedBy, act: Act, seeds: list[int | None]) -> NDArray[np.float64]:
    """Play one episode in each environment; returns the sums of their rewards."""
    observation, _ = env.reset(seed=seeds)
    total, running = np.zeros(len(seeds)), np.ones(len(seeds), bool)
    while running.any():
        observation, reward, terminated, truncated, _ = env.step(act(observation))
        total += np.where(running, reward, 0.0)
        running &= ~np.logical_or(terminated, truncated)
    return total


def row(
    condition: Condition, found: NDArray[Any], whole: float, random: float, zero: float
) -> dict[str, Any]:
    """
    One row of the results.

    :param found: returns under the condition.
    :param whole: mean return of the same policy with all sensors; ``random``, ``zero``: of
        random actions and of none.
    """
    mean = float(found.mean())

    def share(least: float) -> float:
        return round(min(1.0, max(0.0, (mean - least) / max(whole - least, 1e-9))), 4)

    return {
        **condition.plain(),
        'episodes': len(found),
        'return': round(mean, 1),
        'return_std': round(float(found.std()), 1),
        'normalised': share(random),
        'normalised_zero': share(zero),
    }
