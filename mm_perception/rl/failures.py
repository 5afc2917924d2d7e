"""Sensors of an environment that fail: at random, to train with, or by a schedule, to judge."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv, VectorWrapper
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


@dataclass(frozen=True)
class Failures:
    """
    How the sensors of an environment fail.

    :param schedule: failures that are planned.
    :param spells: failures by chance.
    :param others: what the sensors gave in another episode, ``[T, *shape]`` each, for the fault
        ``another``.
    :param delay: how many steps a stale sensor is behind.
    """

    schedule: tuple[Spell, ...] = ()
    spells: RandomSpells | None = None
    others: Mapping[str, NDArray[Any]] | None = None
    delay: int = 10

    def check(self, sensors: Collection[str]) -> None:
        """
        See whether an environment can fail so.

        :raises ConfigError: if a sensor or a fault does not exist, or ``others`` are needed.
        """
        faults = {spell.fault for spell in self.schedule}
        faults |= set(self.spells.faults) if self.spells else set()
        unknown = faults - set(FAULTS)
        if unknown:
            raise ConfigError(f'no fault "{min(unknown)}"; there are: {", ".join(FAULTS)}')
        strange = {name for spell in self.schedule for name in spell.sensors} - set(sensors)
        if strange:
            known = ', '.join(sensors)
            raise ConfigError(f'no sensor "{min(strange)}"; the environment has: {known}')
        if ANOTHER in faults and set(self.others or ()) < set(sensors):
            raise ConfigError(f'fault {ANOTHER}: give what all sensors gave elsewhere as others')


class _Failing:
    """What has become of the sensors of one environment."""

    def __init__(self, sensors: Mapping[str, spaces.Box], failures: Failures) -> None:
        failures.check(sensors)
        self._sensors, self._failures = dict(sensors), failures
        self._rng = np.random.default_rng()
        self._step = -1
        self._nothing = {
            name: np.clip(np.zeros(space.shape), space.low, space.high).astype(space.dtype)
            for name, space in sensors.items()
        }
        faults = {s.fault for s in failures.schedule}
        faults |= set(failures.spells.faults if failures.spells else ())
        self._lying = bool(faults - {MISSING})
        self._delay = failures.delay if STALE in faults else 0

    def seed(self, seed: int | None) -> None:
        """Draw from now on as this seed says."""
        if seed is not None:
            self._rng = np.random.default_rng([seed, 1])

    def begin(self) -> None:
        """Begin an episode."""
        self._step = -1

    def give(self, observation: Mapping[str, NDArray[Any]]) -> tuple[dict[str, Any], set[str]]:
        """
        Take the next step.

        :returns: what failing sensors give instead, and which give nothing.
        """
        self._step += 1
        if self._step == 0:
            self._random: dict[str, str] = {}
            self._kept: dict[str, NDArray[Any]] = {}
            self._past: deque[Mapping[str, Any]] = deque(maxlen=self._delay + 1)
        failing = self._draw() | self._planned()
        if not failing and not self._delay:
            self._kept.clear()
            return {}, set()
        if self._lying:
            self._past.append({name: np.array(value) for name, value in observation.items()})
            self._kept = {n: self._kept.get(n, self._past[-1][n]) for n in failing}
        given = {name: self._value(name, fault) for name, fault in failing.items()}
        return given, {name for name, fault in failing.items() if fault == MISSING}

    def _planned(self) -> dict[str, str]:
        return {
            name: spell.fault
            for spell in self._failures.schedule
            if spell.begin <= self._step and (spell.end is None or self._step < spell.end)
            for name in spell.sensors
        }

    def _draw(self) -> dict[str, str]:
        """Let sensors recover and fail by chance, in random order."""
        spells = self._failures.spells
        if spells is None:
            return {}
        over = [n for n in self._random if self._rng.random() * spells.mean_steps < 1.0]
        for name in over:
            del self._random[name]
        left = 1.0 - spells.share
        chance = spells.share / max(1e-9, spells.mean_steps * left if self._step else 1.0)
        for k in self._rng.permutation(len(self._sensors)):
            name = list(self._sensors)[k]
            may = name not in self._random and name not in over
            may = may and len(self._sensors) - len(self._random) > spells.keep
            if may and self._rng.random() < chance:
                fault = spells.faults[int(self._rng.integers(len(spells.faults)))]
                self._random[name] = fault
        return dict(self._random)

    def _value(self, name: str, fault: str) -> NDArray[Any]:
        if fault == MISSING:
            return self._nothing[name].copy()
        space, value = self._sensors[name], self._past[-1][name]
        if fault == NOISY:
            std = NOISE * (space.high.astype(np.float64) - space.low)
            noisy = value + std * self._rng.standard_normal(value.shape)
            return np.clip(noisy, space.low, space.high).astype(space.dtype)
        if fault == ANOTHER:
            others = self._failures.others
            assert others is not None
            return np.array(others[name][self._step % len(others[name])])
        return np.array(self._kept[name] if fault == FROZEN else self._past[0][name])


class SensorFailures(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """
    Lets sensors of an environment fail.

    ``info['present']`` says by name which sensors gave something. What is missing is zero, or the
    nearest to it that the sensor could give; the other faults lie, and are not told of. What
    happens by chance follows from the seed of the last ``reset`` that gave one.

    :param env: with a dictionary of sensors as its observation.
    :param failures: of its sensors, see :class:`Failures`.
    :raises ConfigError: if a sensor or a fault does not exist.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], failures: Failures) -> None:
        RecordConstructorArgs.__init__(self, failures=failures)
        gymnasium.Wrapper.__init__(self, env)
        self._failing = _Failing(sensors_of(env.observation_space), failures)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin an episode, in which a sensor may be out already."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._failing.seed(seed)
        self._failing.begin()
        shown, present = self._fail(observation)
        return shown, {**info, PRESENT: present}

    def step(self, action: Any) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        """Act, and let sensors fail or recover."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        shown, present = self._fail(observation)
        return shown, reward, terminated, truncated, {**info, PRESENT: present}

    def _fail(self, observation: dict[str, Any]) -> tuple[dict[str, Any], dict[str, bool]]:
        given, missing = self._failing.give(observation)
        return {**observation, **given}, {name: name not in missing for name in observation}


class VectorSensorFailures(VectorWrapper):
    """
    Lets sensors fail in several environments, in each in its own way.

    :param env: that begins episodes at the next step.
    :param failures: one per environment, or one for all.
    :raises ConfigError: if a sensor or a fault does not exist.
    """

    def __init__(
        self, env: VectorEnv[Any, Any, Any], failures: Failures | Sequence[Failures]
    ) -> None:
        super().__init__(env)
        each = [failures] * self.num_envs if isinstance(failures, Failures) else failures
        if len(each) != self.num_envs:
            raise ConfigError(f'{len(each)} failures for {self.num_envs} environments')
        sensors = sensors_of(env.single_observation_space)
        self._failing = [_Failing(sensors, one) for one in each]
        self._over = np.zeros(self.num_envs, bool)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin episodes."""
        observation, info = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        for k, failing in enumerate(self._failing):
            one = seed[k] if isinstance(seed, list) else None if seed is None else seed + k
            failing.seed(one)
            failing.begin()
        self._over[:] = False
        return self._fail(observation, info)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Act in all, and let sensors fail or recover."""
        observation, reward, terminated, truncated, info = self.env.step(actions)
        for k in np.flatnonzero(self._over):
            self._failing[k].begin()
        self._over = np.logical_or(terminated, truncated)
        shown, info = self._fail(observation, info)
        return shown, reward, terminated, truncated, info

    def _fail(
        self, observation: dict[str, Any], info: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        shown = {name: values.copy() for name, values in observation.items()}
        present = {name: np.ones(self.num_envs, bool) for name in observation}
        for k, failing in enumerate(self._failing):
            given, missing = failing.give({name: v[k] for name, v in observation.items()})
            for name, value in given.items():
                shown[name][k] = value
                present[name][k] = name not in missing
        return shown, {**info, PRESENT: present}


def sensors_of(space: spaces.Space[Any]) -> dict[str, spaces.Box]:
    """
    Spaces of an environment's sensors by name.

    :raises ConfigError: if its observation is no dictionary of arrays.
    """
    parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {}
    found = {name: each for name, each in parts.items() if isinstance(each, spaces.Box)}
    if not found or len(found) < len(parts):
        raise ConfigError(
            f'the observation is {space}; an environment of sensors has a Dict of Box, one each'
        )
    return found
