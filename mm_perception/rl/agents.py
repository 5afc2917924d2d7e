"""Observers to train and to judge with, and agents of policies on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium

import mm_perception
from mm_perception.errors import ConfigError
from mm_perception.fusion.health import Checks
from mm_perception.fusion.perception import Perception
from mm_perception.rl.baselines import RawSensors
from mm_perception.rl.evaluation import Agent
from mm_perception.rl.failures import sensors_of
from mm_perception.rl.observation import Fusion, Observer, require_sensors
from mm_perception.rl.policy import MEAN, Layout, Policy, load_policy

Observing = Callable[[int], Observer]


def fusing(
    bundle: str, env: gymnasium.Env[Any, Any], rate_hz: float, **options: Any
) -> tuple[Observing, dict[str, Any]]:
    """
    Observe by the latent of a bundle.

    :param options: of :class:`~mm_perception.rl.observation.Fusion`.
    :returns: what makes observers, and what a policy's folder says of them.
    """
    loaded = mm_perception.load(bundle)
    require_sensors(loaded.names, env.observation_space)
    observe = widened(loaded, rate_hz, **options)
    found = loaded.bundle
    layout = Layout(loaded.names, found.spec.joint_latent_dim, **_parts(options))
    about = {'bundle': found.name, 'bundle_hash': found.hash, 'observation': layout}
    return observe, {**about, 'rate_hz': rate_hz}


def _parts(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key == 'parts'}


def widened(loaded: Perception, rate_hz: float, **options: Any) -> Observing:
    """What makes observers that share the engine of one perception."""

    def observe(count: int) -> Observer:
        perception = Perception(loaded.bundle, loaded.engine, count)
        return Fusion(perception, rate_hz, count, **options)

    return observe


def reading(
    env: gymnasium.Env[Any, Any], sensors: Sequence[str], rate_hz: float
) -> tuple[Observing, dict[str, Any]]:
    """
    Observe by the raw values of some sensors.

    :returns: as :func:`fusing` does; the bundle is none.
    :raises ConfigError: if a sensor does not exist.
    """
    require_sensors(sensors, env.observation_space)
    spaces = sensors_of(env.observation_space)
    observe = partial(RawSensors, {name: spaces[name] for name in sensors})
    about = {'bundle': '', 'bundle_hash': '', 'rate_hz': rate_hz}
    about['observation'] = Layout(tuple(sensors), observe(1).size, (MEAN,))
    return observe, about


def load_agent(
    folder: Path, bundle: str, env: gymnasium.Env[Any, Any], checks: Checks | None = None
) -> tuple[Policy, Agent]:
    """
    Load a policy with what it reads.

    :param bundle: whose latent it reads, if it reads one.
    :param checks: thresholds of the health checks; None: sensors are believed.
    :raises BundleError: if the policy is of another bundle.
    """
    policy = load_policy(folder)
    spec = policy.spec
    if not spec.bundle:
        observe, _ = reading(env, spec.observation.modalities, spec.rate_hz)
        return policy, Agent(observe, policy.act)
    loaded = mm_perception.load(bundle)
    policy.check_bundle(loaded.bundle.hash)
    require_sensors(loaded.names, env.observation_space)
    options = {'parts': spec.observation.parts, 'checks': checks}
    if tuple(loaded.names) != spec.observation.modalities:
        raise ConfigError(f'{folder}: reads {", ".join(spec.observation.modalities)}')
    return policy, Agent(widened(loaded, spec.rate_hz, **options), policy.act)
