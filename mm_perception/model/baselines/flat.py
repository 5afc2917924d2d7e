"""Flat models: one joint latent straight above the data of every modality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from mm_perception.errors import ConfigError
from mm_perception.modalities import build_modality
from mm_perception.model.base import MultimodalModel
from mm_perception.model.distributions import Posterior, likelihood_of
from mm_perception.model.family import Batch, Family
from mm_perception.model.joint_encoder import on_rows
from mm_perception.model.networks import build_pair
from mm_perception.spec import ModelSpec


class FlatModel(MultimodalModel):
    """
    Encoders that give messages or experts, a joint encoder, decoders from the joint latent.

    :param spec: any kinds of modalities; their ``latent_dim`` and ``beta`` are not used.
    :param family: the family's joint encoder and objective.
    """

    def __init__(self, spec: ModelSpec, family: Family) -> None:
        super().__init__(spec)
        encoder = family.find_encoder(spec)
        self.fuses = encoder.fuses
        self._objective = family.bind_objective(spec)
        self._code_dim = encoder.code_dim(spec)
        if self._code_dim % 2:
            raise ConfigError(f'model.message_dim: must be even for {spec.family}')
        self.joint = encoder(spec, None)
        self.encoders, self.decoders = nn.ModuleDict(), nn.ModuleDict()
        for m in spec.modalities:
            shape = build_modality(m).shape
            below = replace(m, latent_dim=self._code_dim // 2)
            above = replace(m, latent_dim=spec.joint_latent_dim)
            self.encoders[m.name], _ = build_pair(below, shape)
            _, self.decoders[m.name] = build_pair(above, shape)
        self._likelihoods = {m.name: likelihood_of(m) for m in spec.modalities}

    @property
    def code_dims(self) -> dict[str, int]:
        """Size of a message or of an expert."""
        return dict.fromkeys(self.spec.names, self._code_dim)

    def infer(self, name: str, data: Tensor) -> Tensor:
        """Message or expert, which is the code, ``float[B, C_m]``."""
        return self.encoders[name](data)

    def fuse(self, codes: Mapping[str, Tensor], present: Tensor) -> Posterior:
        """Joint posterior, see :class:`MultimodalModel`."""
        return self.joint(codes, present)

    def decode(self, name: str, joint: Tensor, noise: Tensor | None = None) -> Tensor:
        """Expected data given the joint latent, see :class:`MultimodalModel`."""
        return self._likelihoods[name].mean(self.decoders[name](joint))

    def log_likelihood(self, name: str, joint: Tensor, target: Tensor) -> Tensor:
        """Log density of data given the joint latent, ``float[B]``."""
        return self._likelihoods[name].log_prob(self.decoders[name](joint).float(), target)

    def weight(self, name: str) -> float:
        """Weight lambda of a modality's log likelihood."""
        return self.spec.modality(name).likelihood_weight

    def loss(
        self,
        data: Mapping[str, Tensor],
        present: Tensor,
        warm_up: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Objective of the family, see :class:`MultimodalModel`."""
        codes = {
            name: on_rows(self.encoders[name], data[name], present[:, column], self._code_dim)
            for column, name in enumerate(self.spec.names)
        }
        return self._objective(self, Batch(codes, data, present, warm_up, generator))

    def log_weight(
        self,
        name: str,
        joint: Tensor,
        data: Tensor,
        inferred: Tensor | None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Log density of the data: there is no latent below the joint one."""
        return self.log_likelihood(name, joint, data)
