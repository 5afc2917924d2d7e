"""
Soft actor-critic of many policies at once, each in an environment of its own.

What Stable-Baselines3 does for one policy (twin critics, a learned temperature, Polyak averages;
Haarnoja et al., *Soft actor-critic algorithms and applications*, 2018), as batched products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor, nn
from torch.nn import functional

from mm_perception.modalities.base import Array
from mm_perception.rl.training import SacSettings

LOG_STD = -20.0, 2.0
TWO_PI = 2.0 * math.pi


class Networks(nn.Module):
    """
    K networks of the same layers.

    :param sizes: of the layers, the first that of the input.
    """

    def __init__(self, count: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for taken, given in zip(sizes, sizes[1:]):
            limit = 1.0 / math.sqrt(taken)  # as torch.nn.Linear begins
            self.weights.append(torch.empty(count, taken, given).uniform_(-limit, limit))
            self.biases.append(torch.empty(count, 1, given).uniform_(-limit, limit))

    def forward(self, inputs: Tensor) -> Tensor:
        """``[K, B, in]`` to ``[K, B, out]``."""
        last = len(self.weights) - 1
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            inputs = torch.baddbmm(bias, inputs, weight)
            inputs = functional.relu(inputs) if k < last else inputs
        return inputs


class Buffer:
    """What K policies have seen and done, ``[K, steps, ...]``."""

    def __init__(self, count: int, steps: int, size: int, actions: int) -> None:
        self.seen = torch.zeros(count, steps, size)
        self.next = torch.zeros(count, steps, size)
        self.actions = torch.zeros(count, steps, actions)
        self.rewards = torch.zeros(count, steps, 1)
        self.ends = torch.zeros(count, steps, 1)
        self._valid: list[int] = []
        self._rows = torch.arange(count)[:, None]

    def add(self, step: int, parts: Sequence[Any]) -> None:
        """Note a step: seen, next, actions, rewards, ends."""
        arrays = self.seen, self.next, self.actions, self.rewards, self.ends
        for array, part in zip(arrays, parts):
            given = torch.as_tensor(np.asarray(part, np.float32))
            array[:, step] = given.reshape(array[:, step].shape)
        self._valid.append(step)

    def draw(self, batch: int) -> list[Tensor]:
        """Steps by chance, other ones for each policy: ``[K, B, ...]``."""
        chosen = torch.randint(len(self._valid), (len(self._rows), batch))
        steps = torch.tensor(self._valid)[chosen]
        arrays = self.seen, self.next, self.actions, self.rewards, self.ends
        return [array[self._rows, steps] for array in arrays]


class Ensemble:
    """
    K policies that learn side by side.

    :param size: of an observation; ``low``, ``high``: limits of the actions, ``float[A]``.
    """

    def __init__(
        self, count: int, size: int, low: Array, high: Array, settings: SacSettings
    ) -> None:
        torch.manual_seed(settings.seed)
        self.count, self._settings = count, settings
        self._low, self._span = np.asarray(low), np.asarray(high) - np.asarray(low)
        actions = len(self._low)
        self._target_entropy = -float(actions)
        self.actor = Networks(count, (size, *settings.hidden, 2 * actions))
        self.critics = Networks(2 * count, (size + actions, *settings.hidden, 1))
        self._slow = Networks(2 * count, (size + actions, *settings.hidden, 1))
        self._slow.load_state_dict(self.critics.state_dict())
        self._log_alpha = nn.Parameter(torch.zeros(count, 1, 1))
        parts = self.actor.parameters(), self.critics.parameters(), [self._log_alpha]
        self._optimizers = [torch.optim.Adam(p, settings.learning_rate, fused=True) for p in parts]

    def policy(self, k: int) -> Callable[[Array], Array]:
        """What one policy does, not by chance, from observations ``float32[B, size]``."""
        weights = [w[k].detach().numpy() for w in self.actor.weights]
        biases = [b[k].detach().numpy() for b in self.actor.biases]

        def act(seen: Array) -> Array:
            for weight, bias in zip(weights[:-1], biases[:-1]):
                seen = np.maximum(seen @ weight + bias, np.float32(0.0))
            mean = (seen @ weights[-1] + biases[-1])[:, : len(self._low)]
            return self._scaled(np.tanh(mean))

        return act

    def plain(self) -> list[Any]:
        """Numbers of all policies, for :meth:`load`."""
        return [parameter.tolist() for parameter in self.actor.parameters()]

    def load(self, plain: Sequence[Any]) -> None:
        """Take policies that were trained before."""
        with torch.no_grad():
            for parameter, numbers in zip(self.actor.parameters(), plain):
                parameter.copy_(torch.tensor(numbers))

    def learn(self, env: VectorEnv[Any, Any, Any]) -> None:
        """
        Act in K environments, one of each policy, and learn.

        :param env: that begins an episode at the step after the end of the last.
        """
        settings, generator = self._settings, np.random.default_rng(self._settings.seed)
        seen, _ = env.reset(seed=self._settings.seed)
        buffer = Buffer(self.count, settings.steps, seen.shape[1], len(self._low))
        begins = False
        for step in range(settings.steps):
            actions = self._explore(seen)
            if step < settings.learning_starts:
                actions = generator.uniform(-1, 1, actions.shape).astype(np.float32)
            found, rewards, ends, cuts, _ = env.step(self._scaled(actions))
            if not begins:  # else the step only began episodes
                buffer.add(step, (seen, found, actions, rewards, ends))
            begins = bool((ends | cuts).any())
            seen = found
            if step >= settings.learning_starts and step % settings.train_freq == 0:
                self._update(*buffer.draw(settings.batch_size))

    def _scaled(self, actions: Any) -> Array:
        return (self._low + (actions + 1.0) / 2.0 * self._span).astype(np.float32)

    def _explore(self, seen: Array) -> Array:
        with torch.no_grad():
            actions, _ = self._sample(torch.from_numpy(seen)[:, None])
        explored: Array = actions[:, 0].numpy()
        return explored

    def _sample(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Actions by chance in -1 to 1, and the logarithms of their densities."""
        mean, log_std = self.actor(seen).chunk(2, -1)
        log_std = log_std.clamp(*LOG_STD)
        noise = torch.randn_like(mean)
        raw = mean + log_std.exp() * noise
        actions = torch.tanh(raw)
        density = -0.5 * noise**2 - log_std - 0.5 * math.log(TWO_PI)
        bend = 2.0 * (math.log(2.0) - raw - functional.softplus(-2.0 * raw))
        return actions, (density - bend).sum(-1, keepdim=True)

    def _values(self, networks: Networks, seen: Tensor, actions: Tensor) -> Tensor:
        """Of both critics, ``[2, K, B, 1]``."""
        both = torch.cat((seen, actions), -1)
        return networks(torch.cat((both, both))).reshape(2, *both.shape[:2], 1)

    def _update(
        self, seen: Tensor, found: Tensor, actions: Tensor, rewards: Tensor, ends: Tensor
    ) -> None:
        chosen, density = self._sample(seen)
        alpha = self._log_alpha.exp().detach()
        entropy = (density + self._target_entropy).detach()
        steps = [(2, -(self._log_alpha * entropy).mean((1, 2)).sum())]
        with torch.no_grad():
            later, later_density = self._sample(found)
            value = self._values(self._slow, found, later).amin(0) - alpha * later_density
            target = rewards + (1.0 - ends) * self._settings.gamma * value
        errors = self._values(self.critics, seen, actions) - target
        steps.append((1, 0.5 * errors.square().mean((2, 3)).sum()))
        for place, loss in steps:
            self._step(place, loss)
        for parameter in self.critics.parameters():
            parameter.requires_grad_(False)
        value = self._values(self.critics, seen, chosen).amin(0)
        self._step(0, (alpha * density - value).mean((1, 2)).sum())
        for parameter in self.critics.parameters():
            parameter.requires_grad_(True)
        with torch.no_grad():
            for slow, fast in zip(self._slow.parameters(), self.critics.parameters()):
                slow.lerp_(fast, self._settings.tau)

    def _step(self, place: int, loss: Tensor) -> None:
        optimizer = self._optimizers[place]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
