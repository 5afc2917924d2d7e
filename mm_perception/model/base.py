"""What every family of models offers: codes of single modalities, one joint latent, data back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mm_perception.model.distributions import Posterior
from mm_perception.spec import ModelSpec


class MultimodalModel(nn.Module, ABC):
    """
    A trained or trainable model over any subset of its modalities.

    :param spec: modalities, sizes and the family's options.
    """

    fuses: bool = True
    """Whether several present modalities all shape the joint posterior's mean."""
    own_latents: ClassVar[bool] = False
    """Whether every modality has a latent of its own, with which its code begins."""
    separable: ClassVar[bool] = False
    """Whether the autoencoders and the top level share no gradient, so can train apart."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec

    @property
    @abstractmethod
    def code_dims(self) -> dict[str, int]:
        """Size C_m of each modality's code."""

    @abstractmethod
    def infer(self, name: str, data: Tensor) -> Any:
        """What a modality's own networks say of ``float[B, *shape_m]``, in the model's terms."""

    def code(self, name: str, inferred: Any) -> Tensor:
        """What :meth:`fuse` needs of what :meth:`infer` says: ``float[B, C_m]``."""
        code: Tensor = inferred
        return code

    def encode(self, name: str, data: Tensor) -> Tensor:
        """Code ``float[B, C_m]`` of one modality's data, ``float[B, *shape_m]``."""
        return self.code(name, self.infer(name, data))

    @abstractmethod
    def fuse(self, codes: Mapping[str, Tensor], present: Tensor) -> Posterior:
        """
        Joint posterior of the present modalities.

        :param codes: ``float[B, C_m]`` of every modality; rows that are absent are ignored.
        :param present: ``bool[B, M]``, modalities in the spec's order; at least one per row.
        """

    @property
    def noise_dims(self) -> dict[str, int]:
        """Size E_m of the noise that :meth:`decode` takes, for modalities with any."""
        return {}

    @abstractmethod
    def decode(self, name: str, joint: Tensor, noise: Tensor | None = None) -> Tensor:
        """
        Data of one modality given ``float[B, D]``: ``float[B, *shape_m]``.

        :param noise: standard normal ``float[B, E_m]``, for a sample of the latents below the
            joint one where the model has :attr:`noise_dims`; None for what is expected.
        """

    def decode_sample(
        self, name: str, joint: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """
        Like :meth:`decode`, with the latents below the joint one sampled, not averaged.

        A model without such latents gives :meth:`decode`.
        """
        size = self.noise_dims.get(name)
        if size is None:
            return self.decode(name, joint)
        noise = torch.randn(len(joint), size, generator=generator, device=joint.device)
        return self.decode(name, joint, noise)

    @abstractmethod
    def loss(
        self,
        data: Mapping[str, Tensor],
        present: Tensor,
        warm_up: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """
        The family's objective, to be minimised, averaged over the batch.

        :param data: ``float[B, *shape_m]`` of every modality, zeros where absent.
        :param present: which modalities were recorded, ``bool[B, M]``; only they count.
        :param warm_up: factor on the KL weights, 0..1.
        :returns: the loss and the batch means of its terms.
        """

    @abstractmethod
    def log_weight(
        self,
        name: str,
        joint: Tensor,
        data: Tensor,
        inferred: Any,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """
        Log importance weight of one modality given a draw of the joint latent, ``float[B]``.

        That is log p(x_m, z_m | joint) - log q(z_m), with one draw of the latents z_m below.

        :param joint: ``float[B, D]``.
        :param data: ``float[B, *shape_m]``.
        :param inferred: of :meth:`infer`, for q; None for the conditional prior p(z_m | joint),
            where the modality is not observed.
        """

    def log_weights(
        self,
        data: Mapping[str, Tensor],
        observed: Collection[str],
        evaluated: Collection[str],
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """
        Log importance weight of one draw of all latents per row, ``float[B]``.

        The latents come from the model's own posterior given the observed modalities; the
        weight is log p(x_evaluated, latents) - log q(latents | x_observed). The mean of its
        exponential over many draws estimates p(x_evaluated). Latents of modalities that are
        not evaluated integrate to one and are left out.

        :param observed: at least one modality.

        Vasco et al. 2020, appendix; HMVAE, appendix B.
        """
        inferred = {name: self.infer(name, data[name]) for name in observed}
        codes = {name: self.code(name, found) for name, found in inferred.items()}
        like = next(iter(codes.values()))
        absent = {n: like.new_zeros(len(like), d) for n, d in self.code_dims.items()}
        present = torch.tensor([n in codes for n in self.spec.names], device=like.device)
        posterior = self.fuse({**absent, **codes}, present.expand(len(like), -1))
        joint = posterior.sample(generator)
        total = posterior.log_prior(joint) - posterior.log_prob(joint)
        for name in evaluated:
            found = inferred.get(name)
            total = total + self.log_weight(name, joint, data[name], found, generator)
        return total
