"""Joint encoders: from the latents of any subset of modalities to the joint posterior."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from mm_perception.errors import ConfigError
from mm_perception.model.distributions import DiagonalGaussian
from mm_perception.model.networks import dense, split_posterior
from mm_perception.spec import ModelSpec


def aggregate_mean(messages: Tensor, present: Tensor) -> Tensor:
    """
    Average the messages of the present modalities.

    :param messages: one message per modality, ``float[B, M, K]``.
    :param present: which modalities were observed, ``bool[B, M]``; a row with none gives 0.
    :returns: the aggregated message, ``float[B, K]``.

    Vasco et al. 2022, section 5.1, eq. 17.
    """
    total = messages.masked_fill(~present[:, :, None], 0.0).sum(1)
    return total / present.sum(1, keepdim=True).clamp_min(1)


class MeanAggregator(nn.Module):
    """Mapping networks, mean of the messages, joint encoder."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.names = spec.names
        self.mapping = nn.ModuleDict(
            {m.name: nn.Linear(m.latent_dim, spec.message_dim) for m in spec.modalities}
        )
        sizes = (spec.message_dim, *spec.joint_hidden)
        self.hidden = dense(sizes, 'leaky_relu', True)
        self.posterior = nn.Linear(sizes[-1], 2 * spec.joint_latent_dim)

    def forward(self, latents: Mapping[str, Tensor], present: Tensor) -> DiagonalGaussian:
        """
        Joint posterior of the present modalities.

        :param latents: ``float[B, d_m]`` per modality; rows that are absent are ignored.
        :param present: ``bool[B, M]``.
        """
        messages = torch.stack([self.mapping[n](latents[n]) for n in self.names], dim=1)
        aggregated = aggregate_mean(messages, present)
        return DiagonalGaussian(*split_posterior(self.posterior(self.hidden(aggregated))))


JOINT_ENCODERS: dict[str, Callable[[ModelSpec], nn.Module]] = {'mean': MeanAggregator}


def build_joint_encoder(spec: ModelSpec) -> nn.Module:
    """
    Build the joint encoder that the spec names.

    :raises ConfigError: if there is none of that name.
    """
    if spec.joint_encoder not in JOINT_ENCODERS:
        known = ', '.join(JOINT_ENCODERS)
        raise ConfigError(f'model.joint_encoder: unknown "{spec.joint_encoder}"; known: {known}')
    return JOINT_ENCODERS[spec.joint_encoder](spec)
