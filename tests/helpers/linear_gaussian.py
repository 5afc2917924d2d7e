"""A linear-Gaussian world with three sensors, in which every answer is known in closed form."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import ClassVar

import numpy as np
import torch
from scipy.stats import multivariate_normal
from torch import Tensor, nn

from mm_perception.data.dataset import Dataset
from mm_perception.modalities.base import Array
from mm_perception.model.base import MultimodalModel
from mm_perception.model.distributions import DiagonalGaussian, Posterior
from mm_perception.spec import ModalitySpec, ModelSpec

NOISE = 0.5
LOADINGS = {
    # The columns of each are orthogonal, so that every posterior is diagonal.
    'a': np.array([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.0]]),
    'b': np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.5]]),
    'c': np.array([[0.5, 0.5, 0.0], [0.5, -0.5, 0.0], [0.0, 0.0, 0.3]]),
}
NAMES = tuple(LOADINGS)
LATENT = 3
SPEC = ModelSpec(
    tuple(ModalitySpec(name, 'vector', LATENT) for name in NAMES), joint_latent_dim=LATENT
)


def sample_world(count: int, seed: int = 0) -> tuple[np.ndarray, Dataset]:
    """Latents ``[N, 3]`` and the data that they cause."""
    generator = np.random.default_rng(seed)
    latents = generator.standard_normal((count, LATENT)).astype(np.float32)
    values = {
        name: (
            latents @ matrix.T + NOISE * generator.standard_normal((count, len(matrix)))
        ).astype(np.float32)
        for name, matrix in LOADINGS.items()
    }
    index = {name: np.arange(count) for name in NAMES}
    return latents, Dataset(NAMES, values, index, np.ones((count, len(NAMES)), bool))


def log_density(data: Mapping[str, np.ndarray], names: Collection[str]) -> np.ndarray:
    """Exact log p of some modalities together, ``[N]``."""
    matrix = np.concatenate([LOADINGS[name] for name in names])
    covariance = matrix @ matrix.T + NOISE**2 * np.eye(len(matrix))
    values = np.concatenate([data[name] for name in names], axis=1)
    result: np.ndarray = multivariate_normal(cov=covariance).logpdf(values)
    return result


class LinearGaussianEngine:
    """
    The exact posteriors of the world.

    :param scale: factor on the std that is published; 1 is right.
    """

    name, device, fuses = 'linear_gaussian', 'cpu', True
    code_dims: ClassVar = {name: len(matrix) for name, matrix in LOADINGS.items()}
    noise_dims: ClassVar[dict[str, int]] = {}

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def encode(self, name: str, data: Array) -> Array:
        return data

    def fuse(self, latents: Mapping[str, Array], present: np.ndarray) -> tuple[Array, Array]:
        precision = np.ones((len(present), LATENT))
        pull = np.zeros((len(present), LATENT))
        for k, (name, matrix) in enumerate(LOADINGS.items()):
            precision += present[:, k, None] * np.square(matrix).sum(0) / NOISE**2
            pull += present[:, k, None] * latents[name] @ matrix / NOISE**2
        mean, std = pull / precision, self.scale / np.sqrt(precision)
        return mean.astype(np.float32), std.astype(np.float32)

    def fuse_sample(self, codes: Mapping[str, Array], present: np.ndarray, seed: int) -> Array:
        mean, std = self.fuse(codes, present)
        return mean + std * np.random.default_rng(seed).standard_normal(mean.shape, np.float32)

    def decode(self, name: str, joint: Array) -> Array:
        return (joint @ LOADINGS[name].T).astype(np.float32)

    def decode_sample(self, name: str, joint: Array, seed: int) -> Array:
        return self.decode(name, joint)


class LinearGaussianModel(MultimodalModel):
    """
    Importance weights in the same world.

    :param scale: factor on the std of the exact posterior that latents are drawn from.
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(SPEC)
        self.engine = LinearGaussianEngine(scale)
        self.noise = nn.Parameter(torch.tensor(NOISE))

    @property
    def code_dims(self) -> dict[str, int]:
        return self.engine.code_dims

    def infer(self, name: str, data: Tensor) -> Tensor:
        return data

    def fuse(self, codes: Mapping[str, Tensor], present: Tensor) -> Posterior:
        arrays = {name: code.numpy() for name, code in codes.items()}
        mean, std = (torch.from_numpy(part) for part in self.engine.fuse(arrays, present.numpy()))
        return DiagonalGaussian(mean, 2.0 * std.log())

    def decode(self, name: str, joint: Tensor, noise: Tensor | None = None) -> Tensor:
        return joint @ torch.from_numpy(LOADINGS[name]).float().T

    def loss(
        self,
        data: Mapping[str, Tensor],
        present: Tensor,
        warm_up: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        bound = self.log_weights(data, NAMES, NAMES, generator).mean()
        return -bound, {'elbo': bound}

    def log_weight(
        self,
        name: str,
        joint: Tensor,
        data: Tensor,
        inferred: Tensor | None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        return log_normal(data, self.decode(name, joint), self.noise)


def log_normal(value: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Log density of independent normal distributions, ``[N]``."""
    scaled = ((value - mean) / std).square()
    return -0.5 * (scaled + 2.0 * std.log() + math.log(2.0 * math.pi)).sum(1)
