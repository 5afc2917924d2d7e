"""Sensors of an environment that fail: at random, to train with, or by a schedule, to judge."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from mm_perception.errors import ConfigError

MISSING, FROZEN, STALE, NOISY, ANOTHER = 'missing', 'frozen', 'stale', 'noisy', 'another'
FAULTS = (MISSING, FROZEN, STALE, NOISY, ANOTHER)
PRESENT = 'present'
"""Key of the info that tells by name which sensors gave something."""
NOISE = 0.25
"""Std of the noise on a noisy sensor, in parts of its range."""


@dataclass(frozen=True)
class Spell:
    """
    A failure that is planned.

    :param sensors: that fail.
    :param fault: one of :data:`FAULTS`.
    :param begin: step of the episode at which it begins; 0: with the first observation.
    :param end: step at which it is over; None: never.
    """

    sensors: tuple[str, ...]
    fault: str = MISSING
    begin: int = 0
    end: int | None = None


@dataclass(frozen=True)
class RandomSpells:
    """
    Failures that come and go by chance, of each sensor by itself.

    :param faults: of which one is drawn for each spell.
    :param share: of the time that a sensor is out.
    :param mean_steps: how long a spell lasts on average.
    :param keep: how many sensors are never out at once.
    """

    faults: tuple[str, ...] = (MISSING,)
    share: float = 0.35
    mean_steps: float = 30.0
    keep: int = 1


@dataclass
class _Failing:
    fault: str
    value: NDArray[Any]
    """What a frozen sensor gives for ever."""


class SensorFailures(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """
    Lets sensors of an environment fail.

    ``info['present']`` says by name which sensors gave something. What is missing is zero, or the
    nearest to it that the sensor could give; the other faults lie, and are not told of.

    :param env: with a dictionary of sensors as its observation.
    :param schedule: failures that are planned.
    :param spells: failures by chance; drawn from the seed of the last ``reset`` that gave one.
    :param others: what the sensors gave in another episode, ``[T, *shape]`` each, for the fault
        ``another``.
    :param delay: how many steps a stale sensor is behind.
    :raises ConfigError: if a sensor or a fault does not exist, or ``others`` are needed.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        schedule: Sequence[Spell] = (),
        spells: RandomSpells | None = None,
        others: Mapping[str, NDArray[Any]] | None = None,
        delay: int = 10,
    ) -> None:
        RecordConstructorArgs.__init__(
            self, schedule=schedule, spells=spells, others=others, delay=delay
        )
        gymnasium.Wrapper.__init__(self, env)
        self._spaces = sensors_of(env.observation_space)
        self._schedule, self._spells = tuple(schedule), spells
        self._others, self._delay = others, delay
        self._check()
        self._blank = {
            n: np.clip(0, s.low, s.high).astype(s.dtype) for n, s in self._spaces.items()
        }
        self._rng = np.random.default_rng()
        self._begin()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin an episode, in which a sensor may be out already."""
        if seed is not None:
            self._rng = np.random.default_rng([seed, 1])
        observation, info = self.env.reset(seed=seed, options=options)
        self._begin()
        if self._spells is not None:
            self._draw(observation, self._spells, self._spells.share)
        return self._failed(observation, info)

    def step(self, action: Any) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        """Act, and let sensors fail or recover."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._step += 1
        if self._spells is not None:
            self._recover(self._spells)
            share = self._spells.share
            rate = share / max(self._spells.mean_steps * (1.0 - share), 1e-9)
            self._draw(observation, self._spells, rate)
        return (*self._failed(observation, info, reward, terminated, truncated),)

    def _check(self) -> None:
        faults = {spell.fault for spell in self._schedule}
        faults |= set(self._spells.faults) if self._spells else set()
        unknown = faults - set(FAULTS)
        if unknown:
            raise ConfigError(f'no fault "{min(unknown)}"; there are: {", ".join(FAULTS)}')
        named = {name for spell in self._schedule for name in spell.sensors}
        if named - set(self._spaces):
            name, known = min(named - set(self._spaces)), ', '.join(self._spaces)
            raise ConfigError(f'no sensor "{name}"; the environment has: {known}')
        if ANOTHER in faults and set(self._others or ()) < set(self._spaces):
            raise ConfigError(f'fault {ANOTHER}: give what all sensors gave elsewhere as others')

    def _begin(self) -> None:
        self._step = 0
        self._random: dict[str, _Failing] = {}
        self._frozen: dict[tuple[int, str], NDArray[Any]] = {}
        self._past: deque[dict[str, Any]] = deque(maxlen=self._delay + 1)

    def _draw(self, observation: dict[str, Any], spells: RandomSpells, chance: float) -> None:
        """Let sensors fail, each by the same chance, in random order."""
        for k in self._rng.permutation(len(self._spaces)):
            name = list(self._spaces)[k]
            left = len(self._spaces) - len(self._random)
            if name not in self._random and left > spells.keep and self._rng.random() < chance:
                fault = spells.faults[int(self._rng.integers(len(spells.faults)))]
                self._random[name] = _Failing(fault, observation[name])

    def _recover(self, spells: RandomSpells) -> None:
        over = [n for n in self._random if self._rng.random() < 1.0 / spells.mean_steps]
        for name in over:
            del self._random[name]

    def _failed(self, observation: dict[str, Any], info: dict[str, Any], *rest: Any) -> Any:
        """What comes of an observation, with what is told of it."""
        self._past.append(observation)
        failing = dict(self._random)
        for k, spell in enumerate(self._schedule):
            if spell.begin <= self._step and (spell.end is None or self._step < spell.end):
                for name in spell.sensors:
                    kept = self._frozen.setdefault((k, name), observation[name])
                    failing[name] = _Failing(spell.fault, kept)
        shown = dict(observation)
        for name, each in failing.items():
            shown[name] = self._give(name, each, observation[name])
        present = {n: n not in failing or failing[n].fault != MISSING for n in self._spaces}
        return shown, *rest, {**info, PRESENT: present}

    def _give(self, name: str, failing: _Failing, value: NDArray[Any]) -> NDArray[Any]:
        space = self._spaces[name]
        if failing.fault == MISSING:
            return self._blank[name].copy()
        if failing.fault == FROZEN:
            return np.array(failing.value)
        if failing.fault == STALE:
            return np.array(self._past[0][name])
        if failing.fault == NOISY:
            std = NOISE * (space.high.astype(np.float64) - space.low)
            noisy = value + std * self._rng.standard_normal(value.shape)
            return np.clip(noisy, space.low, space.high).astype(space.dtype)
        assert self._others is not None
        return np.array(self._others[name][self._step % len(self._others[name])])


def sensors_of(space: spaces.Space[Any]) -> dict[str, spaces.Box]:
    """
    Spaces of an environment's sensors by name.

    :raises ConfigError: if its observation is no dictionary of arrays.
    """
    found = dict(space.spaces) if isinstance(space, spaces.Dict) else {}
    if not found or not all(isinstance(each, spaces.Box) for each in found.values()):
        raise ConfigError(
            f'the observation is {space}; an environment of sensors has a Dict of Box, one each'
        )
    return found
