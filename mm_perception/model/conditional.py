"""What models with latents below the joint one share: Gaussians whose parameters are computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from mm_perception.model.distributions import DiagonalGaussian
from mm_perception.model.networks import dense, split_posterior


class ConditionalGaussian(nn.Module):
    """
    Diagonal Gaussian over a latent given a vector; mean and variance are computed from it.

    :param inputs: size of the vector.
    :param hidden: sizes of the fully connected layers between, with batch norm; none for a
        linear map.
    :param latent_dim: size of the latent.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        sizes = (inputs, *hidden)
        self.hidden = dense(sizes, 'leaky_relu', True)
        self.parameters_of = nn.Linear(sizes[-1], 2 * latent_dim)

    def forward(self, given: Tensor) -> DiagonalGaussian:
        """Distribution given ``float[B, inputs]``: ``[B, latent_dim]``."""
        return DiagonalGaussian(*split_posterior(self.parameters_of(self.hidden(given)).float()))


def split_encoder(encoder: nn.Module) -> tuple[nn.Module, nn.Linear]:
    """
    Cut an encoder of :func:`~mm_perception.model.networks.build_pair` before its last layer.

    :returns: the layers up to the hidden representation h_m, and the one that makes the
        parameters of the unimodal posterior of it.
    """
    layers = cast(nn.Sequential, encoder)
    return layers[:-1], cast(nn.Linear, layers[-1])
