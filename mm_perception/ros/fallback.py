"""What is published while no sensor can be used. Knows no ROS."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from mm_perception.inference import Engine, Inference, generated_std
from mm_perception.ros.checks import WHEN_HOLD, WHEN_PRIOR


@dataclass(frozen=True)
class Substitute:
    """
    A latent that no sensor gave.

    :param source: ``hold`` or ``prior``.
    :param stamp_ns: of the values that a held latent came from; of the tick for the prior.
    """

    source: str
    stamp_ns: int
    mean: np.ndarray
    std: np.ndarray


class Fallback:
    """
    Remembers the last latent, and stands in for one.

    :param engine: generates from the latent.
    :param latent_dim: size of the latent.
    """

    def __init__(self, engine: Engine, latent_dim: int) -> None:
        self._engine = engine
        self._prior = np.zeros(latent_dim, np.float32), np.ones(latent_dim, np.float32)
        self._random = np.random.default_rng(0)
        self._last: Substitute | None = None

    def keep(self, result: Inference, stamp_ns: int) -> None:
        """Remember a latent that sensors gave."""
        self._last = Substitute(WHEN_HOLD, stamp_ns, result.mean, result.std)

    def forget(self) -> None:
        """Forget it, as after a jump in time."""
        self._last = None

    def substitute(self, when_nothing: str, now_ns: int) -> Substitute | None:
        """What to publish now: the last latent, the prior, or nothing."""
        if when_nothing == WHEN_PRIOR:
            return Substitute(WHEN_PRIOR, now_ns, *self._prior)
        return self._last if when_nothing == WHEN_HOLD else None

    def generate(self, latent: Substitute, wanted: Collection[str], sample: bool) -> Inference:
        """Generate the wanted modalities from it."""
        joint = self._samples(latent, 1) if sample else latent.mean[None]
        decoded = {name: self._engine.decode(name, joint)[0] for name in wanted}
        return Inference(latent.mean, latent.std, decoded)

    def generated_std(
        self, latent: Substitute, wanted: Collection[str], samples: int
    ) -> dict[str, np.ndarray]:
        """Per-element standard deviation of what is generated from it."""
        joint = self._samples(latent, samples)
        return generated_std(self._engine, joint, wanted, self._random)

    def _samples(self, latent: Substitute, count: int) -> np.ndarray:
        noise = self._random.standard_normal((count, len(latent.mean)), dtype=np.float32)
        return latent.mean + latent.std * noise
