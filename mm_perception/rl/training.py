"""Trains policies with Stable-Baselines3, and exports them to ONNX."""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from stable_baselines3 import SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor, nn

from mm_perception.errors import ConfigError
from mm_perception.rl.failures import Failures, SensorFailures
from mm_perception.rl.observation import ObservedBy, Observer
from mm_perception.rl.policy import Actions, Policy, PolicySpec

OPSET = 18
COMPARED = 64
TOLERANCE = 1e-4
"""How far exported actions may be from those of Stable-Baselines3, in parts of their range."""


@dataclass(frozen=True)
class SacSettings:
    """Settings of soft actor-critic, by their names in Stable-Baselines3; the rest is as there."""

    steps: int = 10_000
    hidden: tuple[int, ...] = (64, 64)
    learning_rate: float = 3e-3
    batch_size: int = 64
    train_freq: int = 2
    learning_starts: int = 500
    gamma: float = 0.98
    tau: float = 0.02
    seed: int = 0

    def plain(self) -> dict[str, Any]:
        """As a policy's folder says it."""
        return {'name': 'SAC', **vars(self), 'hidden': list(self.hidden)}


def make_env(name: str) -> gymnasium.Env[Any, Any]:
    """
    Make an environment.

    :param name: as gymnasium knows it, ``module:id`` for one that a module registers.
    :raises ConfigError: if there is none.
    """
    try:
        return gymnasium.make(name)
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        raise ConfigError(f'environment {name}: {" ".join(str(error).split())[:200]}') from error


def make_vector(name: str, count: int) -> VectorEnv[Any, Any, Any]:
    """Many environments, computed at once where one can be."""
    spec = make_env(name).spec
    if spec is not None and spec.vector_entry_point is not None:
        return gymnasium.make_vec(name, count, 'vector_entry_point')
    return SyncVectorEnv([lambda: make_env(name)] * count, autoreset_mode=AutoresetMode.NEXT_STEP)


def train_sac(
    env: gymnasium.Env[Any, Any], observer: Observer, failures: Failures, settings: SacSettings
) -> tuple[SAC, float]:
    """
    Train on an environment of sensors that fail.

    :param observer: of one environment.
    :returns: the algorithm, and how many seconds it took.
    """
    if not isinstance(env.action_space, spaces.Box):
        raise ConfigError(f'actions are {env.action_space}; SAC gives numbers within limits (Box)')
    began = time.monotonic()
    torch.set_num_threads(1)
    algorithm = SAC(
        'MlpPolicy',
        ObservedBy(SensorFailures(env, failures), observer),
        learning_rate=settings.learning_rate,
        buffer_size=max(settings.steps, 1),
        learning_starts=settings.learning_starts,
        batch_size=settings.batch_size,
        train_freq=settings.train_freq,
        gamma=settings.gamma,
        tau=settings.tau,
        policy_kwargs={'net_arch': list(settings.hidden)},
        seed=settings.seed,
        device='cpu',
    )
    algorithm.learn(settings.steps)
    return algorithm, round(time.monotonic() - began, 1)


class _Deterministic(nn.Module):
    """What a policy of Stable-Baselines3 does without chance."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observation: Tensor) -> Tensor:
        actions: Tensor = self.policy._predict(observation, deterministic=True)
        return actions


def export(
    algorithm: BaseAlgorithm, about: Mapping[str, Any], names: Sequence[str] = ()
) -> Policy:
    """
    Make a policy of what Stable-Baselines3 trained, and compare the two.

    :param algorithm: of any kind with actions in a Box, and a vector as its observation.
    :param about: of :class:`~mm_perception.rl.policy.PolicySpec`, all but the actions.
    :param names: of the actions; empty: action_0 and so on.
    :raises ConfigError: if it gives other actions than before, or has others than a Box.
    """
    space = algorithm.action_space
    if not isinstance(space, spaces.Box):
        raise ConfigError(f'actions are {space}; a policy gives numbers within limits (Box)')
    actions = Actions(
        names=tuple(names) or tuple(f'action_{k}' for k in range(int(space.shape[0]))),
        low=tuple(space.low.tolist()),
        high=tuple(space.high.tolist()),
        scaled=bool(algorithm.policy.squash_output),
    )
    spec = PolicySpec(actions=actions, **about)
    policy = Policy(spec, _graph(algorithm, spec.observation.size))
    shape = COMPARED, spec.observation.size
    observations = np.random.default_rng(0).standard_normal(shape, np.float32)
    expected, _ = algorithm.predict(observations, deterministic=True)
    apart = np.abs(policy.act(observations) - expected) / (space.high - space.low)
    if not apart.max() <= TOLERANCE:
        raise ConfigError(f'the exported policy differs by {apart.max():.2g} of the range')
    return policy


def _graph(algorithm: BaseAlgorithm, size: int) -> bytes:
    made = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.onnx.export(
            _Deterministic(algorithm.policy).eval(),
            (torch.zeros(2, size),),
            made,  # type: ignore[arg-type]
            input_names=['observation'],
            output_names=['action'],
            dynamic_axes={'observation': {0: 'batch'}, 'action': {0: 'batch'}},
            opset_version=OPSET,
            dynamo=False,
        )
    return made.getvalue()
