"""Latents of one scale, whatever their autoencoders use."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mm_perception.model.distributions import DiagonalGaussian


class LatentScale(nn.Module):
    """
    Brings a modality's latent to zero mean and unit variance over the training set.

    Without it the top-level loss weighs modalities by the scale their autoencoders happen
    to use.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer('mean', torch.zeros(latent_dim))
        self.register_buffer('std', torch.ones(latent_dim))

    @torch.no_grad()
    def fit(self, posterior: DiagonalGaussian) -> None:
        """Take mean and std of the aggregated posterior of the training set, ``[N, d]``."""
        self.mean.copy_(posterior.mean.mean(0))
        variance = posterior.mean.var(0, correction=0) + posterior.log_variance.exp().mean(0)
        self.std.copy_(variance.sqrt().clamp_min(1e-3))

    def forward(self, latent: Tensor) -> Tensor:
        """Standardise ``float[B, d]``."""
        return (latent - self.mean) / self.std

    def inverse(self, latent: Tensor) -> Tensor:
        """Undo :meth:`forward`."""
        return latent * self.std + self.mean
