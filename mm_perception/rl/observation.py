"""From the sensors of an environment to the latent that a policy reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

import mm_perception
from mm_perception.errors import ConfigError, InvalidInput
from mm_perception.fusion.health import HOLD, PRIOR, Checks
from mm_perception.fusion.perception import Perception
from mm_perception.fusion.results import Demand
from mm_perception.modalities.base import Array
from mm_perception.rl.failures import PRESENT, sensors_of
from mm_perception.rl.policy import DEFAULT_PARTS, Layout

KINDS = ('image', 'vector')
QUICK_CHECKS = Checks(frozen_s=0.1, inconsistent_s=0.0)
"""For controllers of 20 Hz: what a robot's node waits for, a pendulum has fallen by then."""
_START_NS = 10**18
_NONE = np.zeros(0, np.float32)
Values = Mapping[str, Sequence[Any] | NDArray[Any]]


class Observer(Protocol):
    """Turns what sensors give in N environments at once into vectors that a policy reads."""

    size: int
    """Numbers of one vector."""

    def begin(self, rows: Iterable[int]) -> None:
        """Forget what was before, in environments where an episode begins."""
        ...

    def observe(self, values: Values, present: Mapping[str, NDArray[Any]]) -> Array:
        """
        Take a step.

        :param values: what each sensor gave, N values by name.
        :param present: whether it gave something, ``bool[N]`` by name.
        :returns: ``float32[N, size]``.
        """
        ...


class Fusion:
    """
    The observer that fuses: mean, std and mask of a bundle's joint latent.

    :param bundle: a name, a folder, or a perception with as many streams as environments.
    :param rate_hz: steps per second, by which ages are counted.
    :param count: of environments.
    :param parts: of the observation, see :class:`~mm_perception.rl.policy.Layout`.
    :param nothing: the latent where nothing is observed: ``hold`` (the last one) or ``prior``.
    :param checks: thresholds of the health checks; None: what gives something is believed.
    :raises ConfigError: if a modality is of a kind that no environment gives.
    """

    def __init__(
        self,
        bundle: str | Perception,
        rate_hz: float,
        count: int = 1,
        parts: tuple[str, ...] = DEFAULT_PARTS,
        nothing: str = HOLD,
        checks: Checks | None = None,
    ) -> None:
        loaded = mm_perception.load(bundle, streams=count) if isinstance(bundle, str) else bundle
        self.perception: Perception = loaded
        if len(self.perception.streams) != count or nothing not in (HOLD, PRIOR) or rate_hz <= 0:
            raise ConfigError(
                f'{len(self.perception.streams)} streams for {count} environments, nothing'
                f' {nothing}, {rate_hz} Hz; give a stream each, hold or prior, and a rate'
            )
        bundle_spec = self.perception.bundle.spec
        other = [m.name for m in bundle_spec.modalities if m.kind not in KINDS]
        if other:
            raise ConfigError(f'{other[0]}: environments give {" and ".join(KINDS)} only')
        self.names = self.perception.names
        self.layout = Layout(self.names, bundle_spec.joint_latent_dim, parts)
        self.size = self.layout.size
        self.mask: NDArray[Any] = np.zeros((count, len(self.names)), bool)
        self._period_ns, self._step = round(1e9 / rate_hz), 0
        self._nothing, self._checks = nothing, checks
        dims = self.perception.engine.code_dims
        self._codes = {name: np.zeros((count, size), np.float32) for name, size in dims.items()}
        self._stamps_ns = np.zeros(self.mask.shape, np.int64)
        limits = [self.perception.limits[name].max_age_s for name in self.names]
        self._max_age_ns = np.array(limits) * 1e9
        shape = count, bundle_spec.joint_latent_dim
        self._mean, self._std = np.zeros(shape, np.float32), np.ones(shape, np.float32)

    def begin(self, rows: Iterable[int]) -> None:
        """Forget what was before, see :class:`Observer`."""
        for k in rows:
            self._stamps_ns[k] = 0
            self._mean[k], self._std[k] = 0.0, 1.0
            if self._checks is not None:
                self.perception.forget((k,))
                for stream in self.perception.streams[k].values():
                    stream.clear()

    def observe(self, values: Values, present: Mapping[str, NDArray[Any]]) -> Array:
        """Fuse, see :class:`Observer`."""
        self._step += 1
        now_ns = _START_NS + self._step * self._period_ns
        fuse = self._believe if self._checks is None else self._check
        ages_ns = fuse(values, present, now_ns)
        return self.layout.build(self._mean, self._std, self.mask, ages_ns * 1e-9)

    def _believe(
        self, values: Values, present: Mapping[str, NDArray[Any]], now_ns: int
    ) -> NDArray[Any]:
        for column, name in enumerate(self.names):
            rows = np.flatnonzero(present[name])
            arrays, rows = self._arrays(name, values[name], rows)
            if len(rows):
                self._codes[name][rows] = self.perception.engine.encode(name, arrays)
                self._stamps_ns[rows, column] = now_ns
        ages_ns = now_ns - self._stamps_ns
        self.mask = ages_ns <= self._max_age_ns
        observed = self.mask.any(1)
        if self._nothing == PRIOR:
            self._mean[~observed], self._std[~observed] = 0.0, 1.0
        if observed.any():
            codes = {name: code[observed] for name, code in self._codes.items()}
            fused = self.perception.engine.fuse(codes, self.mask[observed])
            self._mean[observed], self._std[observed] = fused
        return ages_ns

    def _arrays(
        self, name: str, given: Sequence[Any] | NDArray[Any], rows: NDArray[Any]
    ) -> tuple[Array, NDArray[Any]]:
        """Model arrays of what was given in some rows, and in which of them it can be used."""
        modality = self.perception.modalities[name]
        chosen = given[rows] if isinstance(given, np.ndarray) else [given[k] for k in rows]
        try:
            return modality.to_models(chosen) if len(rows) else _NONE, rows
        except InvalidInput:
            found: dict[int, Array] = {}
            for k in rows.tolist():
                with suppress(InvalidInput):
                    found[k] = modality.to_model(given[k])
            return np.stack([*found.values()]) if found else _NONE, np.array([*found], int)

    def _check(
        self, values: Values, present: Mapping[str, NDArray[Any]], now_ns: int
    ) -> NDArray[Any]:
        assert self._checks is not None
        limits, readings = self.perception.limits, []
        for k, stream in enumerate(self.perception.streams):
            for name in self.names:
                if present[name][k]:
                    stream[name].take(values[name][k], now_ns, now_ns, limits[name])
            readings.append({name: each.snapshot() for name, each in stream.items()})
        demand = Demand(fallback=self._nothing)
        ticked = self.perception.tick(readings, limits, demand, now_ns, self._checks)
        self.mask = np.array([[name in each.observed for name in self.names] for each in ticked])
        for k, each in enumerate(ticked):
            if each.result is not None:
                self._mean[k], self._std[k] = each.result.mean, each.result.std
        for k, reading in enumerate(readings):
            for column, name in enumerate(self.names):
                value = reading[name].value
                self._stamps_ns[k, column] = value.stamp_ns if value else 0
        return now_ns - self._stamps_ns


class ObservedBy(gymnasium.Wrapper[Any, Any, Any, Any]):
    """
    An environment of sensors, seen through an observer.

    :param observer: of one environment. What ``info['present']`` calls missing, it is not given.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], observer: Observer) -> None:
        gymnasium.Wrapper.__init__(self, env)
        self.observer = observer
        self._sensors = sensors_of(env.observation_space)
        self.observation_space = _unbounded(observer.size)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        self.observer.begin((0,))
        return self._observe(observation, info), info

    def step(self, action: Any) -> tuple[Array, Any, bool, bool, dict[str, Any]]:
        """Act, and observe what comes of it."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._observe(observation, info), reward, terminated, truncated, info

    def _observe(self, observation: Mapping[str, Any], info: Mapping[str, Any]) -> Array:
        told = info.get(PRESENT, {})
        present = {name: np.array([told.get(name, True)]) for name in self._sensors}
        vector = self.observer.observe({n: [v] for n, v in observation.items()}, present)
        return vector[0]


class FusedObservation(ObservedBy, RecordConstructorArgs):
    """
    An environment of sensors whose observation is the latent that a bundle makes of them.

    :param env: its observation is a dictionary that holds every modality of the bundle by name.
    :param bundle: a name under ``models/``, or a folder.
    :param rate_hz: steps per second.
    :param options: of :class:`Fusion`: ``parts``, ``nothing``, ``checks``.
    :raises ConfigError: if a modality of the bundle is not among the sensors.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        bundle: str | Perception = 'pendulum',
        rate_hz: float = 20.0,
        **options: Any,
    ) -> None:
        RecordConstructorArgs.__init__(self, bundle=bundle, rate_hz=rate_hz, **options)
        fusion = Fusion(bundle, rate_hz, **options)
        require_sensors(fusion.names, env.observation_space)
        ObservedBy.__init__(self, env, fusion)


class VectorObservedBy(VectorWrapper):
    """
    Several environments of sensors, seen through one observer as a batch.

    :param env: that begins episodes at the next step, or not by itself (gymnasium's
        ``AutoresetMode``).
    :param observer: of as many environments.
    :raises ConfigError: for environments that begin an episode in the step that ends one.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], observer: Observer) -> None:
        super().__init__(env)
        mode = env.metadata.get('autoreset_mode', AutoresetMode.NEXT_STEP)
        if mode == AutoresetMode.SAME_STEP:
            raise ConfigError(f'autoreset_mode is {mode.value}; use AutoresetMode.NEXT_STEP')
        self.observer = observer
        self._sensors = sensors_of(env.single_observation_space)
        self._resets = mode == AutoresetMode.NEXT_STEP
        self._over = np.zeros(self.num_envs, bool)
        self.single_observation_space = _unbounded(observer.size)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin episodes: all, or those in ``options['reset_mask']``."""
        observation, info = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        chosen = (options or {}).get('reset_mask', np.ones(self.num_envs, bool))
        self.observer.begin(np.flatnonzero(chosen).tolist())
        self._over[chosen] = False
        return self._observe(observation, info), info

    def step(self, actions: Any) -> tuple[Array, Any, Any, Any, dict[str, Any]]:
        """Act in all, and observe what comes of it."""
        observation, reward, terminated, truncated, info = self.env.step(actions)
        if self._resets:
            self.observer.begin(np.flatnonzero(self._over).tolist())
        self._over = np.logical_or(terminated, truncated)
        return self._observe(observation, info), reward, terminated, truncated, info

    def _observe(self, observation: Mapping[str, Any], info: Mapping[str, Any]) -> Array:
        told = info.get(PRESENT, {})
        every = np.ones(self.num_envs, bool)
        present = {name: np.asarray(told.get(name, every), bool) for name in self._sensors}
        return self.observer.observe(observation, present)


class VectorFusedObservation(VectorObservedBy):
    """
    Several environments of sensors whose latents a bundle makes in one batch.

    :param env: like that of :class:`FusedObservation`, of many.
    :param bundle: a name under ``models/``, a folder, or a perception of as many streams.
    :param rate_hz: steps per second.
    :param options: of :class:`Fusion`: ``parts``, ``nothing``, ``checks``.
    :raises ConfigError: if a modality of the bundle is not among the sensors.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        bundle: str | Perception = 'pendulum',
        rate_hz: float = 20.0,
        **options: Any,
    ) -> None:
        fusion = Fusion(bundle, rate_hz, env.num_envs, **options)
        require_sensors(fusion.names, env.single_observation_space)
        super().__init__(env, fusion)


def _unbounded(size: int) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, (size,), np.float32)


def require_sensors(names: Sequence[str], space: spaces.Space[Any]) -> None:
    """
    See whether an environment has what is read of it.

    :raises ConfigError: if a sensor is not there.
    """
    sensors = sensors_of(space)
    lacking = [name for name in names if name not in sensors]
    if lacking:
        raise ConfigError(
            f'the environment has no sensor "{lacking[0]}", which is to be read; it has:'
            f' {", ".join(sensors)}'
        )
