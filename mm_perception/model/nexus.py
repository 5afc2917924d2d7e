"""The Nexus model: unimodal autoencoders below, one joint latent above."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from mm_perception.model.distributions import LOG_2PI, DiagonalGaussian
from mm_perception.model.dropout import forced_perceptual_dropout
from mm_perception.model.joint import build_joint_encoder
from mm_perception.model.networks import dense
from mm_perception.model.unimodal import UnimodalVAE
from mm_perception.spec import ModelSpec


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


class TopLevel(nn.Module):
    """
    Joint encoder over any subset of the unimodal latents, and a decoder back to each.

    Vasco et al. 2022, section 5, eq. 15-17.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.scale = nn.ModuleDict({m.name: LatentScale(m.latent_dim) for m in spec.modalities})
        self.joint = build_joint_encoder(spec)
        hidden = (spec.joint_latent_dim, *spec.decoder_hidden)
        self.decoders = nn.ModuleDict(
            {
                m.name: nn.Sequential(
                    dense(hidden, 'leaky_relu', True), nn.Linear(hidden[-1], m.latent_dim)
                )
                for m in spec.modalities
            }
        )

    def encode(self, latents: Mapping[str, Tensor], present: Tensor) -> DiagonalGaussian:
        """
        Joint posterior q(z_sigma | z_1:M) of the present modalities.

        :param latents: unimodal latents, ``float[B, d_m]`` each.
        :param present: ``bool[B, M]``, modalities in the spec's order.
        """
        scaled = {name: self.scale_of(name)(latent) for name, latent in latents.items()}
        posterior: DiagonalGaussian = self.joint(scaled, present)
        return posterior

    def decode(self, joint: Tensor, name: str) -> Tensor:
        """Unimodal latent of one modality expected under ``float[B, D]``: ``[B, d_m]``."""
        return self.scale_of(name).inverse(self.decoders[name](joint))

    def scale_of(self, name: str) -> LatentScale:
        """Scale of a modality's latent."""
        return cast(LatentScale, self.scale[name])

    def loss(
        self,
        unimodal: Mapping[str, DiagonalGaussian],
        present: Tensor,
        warm_up: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """
        Negative weighted top-level evidence lower bound, averaged over the batch.

        The expectation of log p(z_m | z_sigma) over q(z_m | x_m) is taken in closed form:
        for a Gaussian of fixed variance, that of the posterior mean less a constant.

        :param unimodal: unimodal posteriors (no gradient flows into them).
        :param present: which modalities were recorded, ``bool[B, M]``; only they are targets.
        :param warm_up: factor on the KL weight, 0..1.
        :returns: the loss and the batch means of its terms.

        Vasco et al. 2022, eq. 15 and the second sum of eq. 21, weights gamma and alpha.
        """
        posteriors = {
            name: DiagonalGaussian(p.mean.detach(), p.log_variance.detach())
            for name, p in unimodal.items()
        }
        seen = forced_perceptual_dropout(present, self.spec.dropout, generator)
        latents = {name: p.sample(generator) for name, p in posteriors.items()}
        joint = self.encode(latents, seen)
        sample = joint.sample(generator)
        kl = joint.kl_to_standard().mean()
        terms = {'kl': kl}
        loss = self.spec.alpha * warm_up * kl
        for column, modality in enumerate(self.spec.modalities):
            target = self.scale_of(modality.name)(posteriors[modality.name].mean)
            error = (self.decoders[modality.name](sample).float() - target).square()
            log_likelihood = -0.5 * (error + LOG_2PI).sum(1)
            recorded = present[:, column]
            mean = (log_likelihood * recorded).sum() / recorded.sum().clamp_min(1)
            terms[modality.name] = mean
            loss = loss - modality.latent_weight * mean
        return loss, terms


class Nexus(nn.Module):
    """
    Both levels together.

    :param spec: any number and kinds of modalities.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.unimodal = nn.ModuleDict({m.name: UnimodalVAE(m) for m in spec.modalities})
        self.top = TopLevel(spec)

    def vae(self, name: str) -> UnimodalVAE:
        """Autoencoder of one modality."""
        return cast(UnimodalVAE, self.unimodal[name])

    def encode(self, data: Mapping[str, Tensor], present: Tensor) -> DiagonalGaussian:
        """
        Joint posterior given the means of the unimodal posteriors.

        :param data: ``float[B, *shape_m]`` per modality; rows that are absent are ignored.
        :param present: ``bool[B, M]``.
        """
        latents = {name: self.vae(name).encode(data[name]).mean for name in self.spec.names}
        return self.top.encode(latents, present)

    def decode(self, joint: Tensor) -> dict[str, Tensor]:
        """Expected data of every modality given ``float[B, D]``."""
        return {n: self.vae(n).decode(self.top.decode(joint, n)) for n in self.spec.names}

    def forward(self, data: Mapping[str, Tensor], present: Tensor) -> dict[str, Tensor]:
        """Expected data of every modality, given the present ones."""
        return self.decode(self.encode(data, present).mean)

    def loss(
        self,
        data: Mapping[str, Tensor],
        present: Tensor,
        warm_up: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """
        Joint loss of both levels; the levels share no gradient.

        Absent modalities (``present`` false) add nothing to either level.

        Vasco et al. 2022, eq. 21.
        """
        total = torch.zeros((), device=present.device)
        terms: dict[str, Tensor] = {}
        posteriors = {}
        for column, name in enumerate(self.spec.names):
            vae, recorded = self.vae(name), present[:, column]
            zeros = torch.zeros(len(present), vae.spec.latent_dim, device=present.device)
            posteriors[name] = DiagonalGaussian(zeros, zeros)
            if recorded.sum() < 2:  # too few for batch statistics
                continue
            loss, parts, posterior = vae.loss(data[name][recorded], warm_up)
            total = total + loss
            terms.update({f'{name}.{key}': value for key, value in parts.items()})
            posteriors[name] = DiagonalGaussian(
                *(zeros.index_put((recorded,), part.detach().float()) for part in posterior)
            )
        loss, parts = self.top.loss(posteriors, present, warm_up, generator)
        terms.update({f'top.{key}': value for key, value in parts.items()})
        return total + loss, terms
