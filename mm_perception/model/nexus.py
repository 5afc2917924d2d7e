"""Two levels that share no gradient: unimodal autoencoders below, one joint latent above."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from mm_perception.modalities import build_modality
from mm_perception.model.base import MultimodalModel, Posterior
from mm_perception.model.distributions import DiagonalGaussian, find_likelihood, mapped
from mm_perception.model.family import Family
from mm_perception.model.networks import build_pair, dense, split_posterior
from mm_perception.model.objectives import Batch
from mm_perception.model.uncertainty import Uncertainty
from mm_perception.spec import ModalitySpec, ModelSpec


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


class UnimodalVAE(nn.Module):
    """
    Variational autoencoder of one modality.

    :param spec: kind, latent size, networks, likelihood and weights.

    Vasco et al. 2022, section 5, eq. 14.
    """

    def __init__(self, spec: ModalitySpec) -> None:
        super().__init__()
        self.spec = spec
        self.shape = build_modality(spec).shape
        self.encoder, self.decoder = build_pair(spec, self.shape)
        self.likelihood = find_likelihood(spec.likelihood)

    def encode(self, data: Tensor) -> DiagonalGaussian:
        """Unimodal posterior q(z_m | x_m) of ``float[B, *shape]``: ``[B, latent_dim]``."""
        return DiagonalGaussian(*split_posterior(self.encoder(data)))

    def decode(self, latent: Tensor) -> Tensor:
        """Expected data given ``float[B, latent_dim]``: ``float[B, *shape]``."""
        return self.likelihood.mean(self.decoder(latent))

    def log_likelihood(self, latent: Tensor, data: Tensor) -> Tensor:
        """Log density of data given ``float[B, latent_dim]``: ``float[B]``."""
        return self.likelihood.log_prob(self.decoder(latent).float(), data)

    def forward(
        self, data: Tensor, generator: torch.Generator | None = None
    ) -> tuple[DiagonalGaussian, dict[str, Tensor]]:
        """
        Posterior and terms of the bottom-level evidence lower bound, per sample.

        :param data: ``float[B, *shape]``.
        :returns: q(z_m | x_m), and ``log_likelihood`` and ``kl``, unweighted, ``float[B]``.
        """
        posterior = self.encode(data)
        return posterior, {
            'log_likelihood': self.log_likelihood(posterior.sample(generator), data),
            'kl': posterior.kl_to_prior(),
        }

    def loss(
        self, data: Tensor, warm_up: float = 1.0, generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor], DiagonalGaussian]:
        """
        Negative weighted evidence lower bound, averaged over the batch.

        :param warm_up: factor on the KL weight, 0..1.
        :returns: the loss, the batch means of its terms, and the posterior.

        Vasco et al. 2022, first sum of eq. 21, with weights lambda and beta.
        """
        posterior, values = self(data, generator)
        terms = {name: value.mean() for name, value in values.items()}
        likelihood = self.spec.likelihood_weight * terms['log_likelihood']
        return self.spec.beta * warm_up * terms['kl'] - likelihood, terms, posterior


class TopLevel(nn.Module):
    """
    Joint encoder over any subset of the unimodal latents, and a decoder back to each.

    :param recipe: the family's joint encoder and objective.

    Vasco et al. 2022, section 5, eq. 15-17.
    """

    def __init__(self, spec: ModelSpec, recipe: Family) -> None:
        super().__init__()
        self.spec = spec
        self._objective = recipe.bind_objective(spec)
        self.scale = nn.ModuleDict({m.name: LatentScale(m.latent_dim) for m in spec.modalities})
        self.joint = recipe.find_encoder(spec)(
            spec, {m.name: m.latent_dim for m in spec.modalities}
        )
        hidden = (spec.joint_latent_dim, *spec.decoder_hidden)
        self.decoders = nn.ModuleDict(
            {
                m.name: nn.Sequential(
                    dense(hidden, 'leaky_relu', True), nn.Linear(hidden[-1], m.latent_dim)
                )
                for m in spec.modalities
            }
        )

    def encode(self, latents: Mapping[str, Tensor], present: Tensor) -> Posterior:
        """
        Joint posterior q(z_sigma | z_1:M) of the present modalities.

        :param latents: unimodal latents, ``float[B, d_m]`` each.
        :param present: ``bool[B, M]``, modalities in the spec's order.
        """
        posterior: Posterior = self.joint(self.scaled(latents), present)
        return posterior

    def scaled(self, latents: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Standardised unimodal latents, ``float[B, d_m]`` each."""
        return {name: self.scale_of(name)(latent) for name, latent in latents.items()}

    def conditional(self, name: str, joint: Tensor) -> DiagonalGaussian:
        """Distribution p(z_m | z_sigma) of a modality's standardised latent, ``[B, d_m]``."""
        mean = self.decoders[name](joint).float()
        return DiagonalGaussian(mean, torch.zeros_like(mean))

    def log_likelihood(self, name: str, joint: Tensor, target: Tensor) -> Tensor:
        """Log density of a standardised latent given the joint latent, ``float[B]``."""
        return self.conditional(name, joint).log_prob(target)

    def weight(self, name: str) -> float:
        """Weight gamma of a modality's log likelihood."""
        return self.spec.modality(name).latent_weight

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
        Negative weighted top-level bound of the family, averaged over the batch.

        The expectation of log p(z_m | z_sigma) over q(z_m | x_m) is taken in closed form:
        for a Gaussian of fixed variance, that of the posterior mean less a constant.

        :param unimodal: unimodal posteriors (no gradient flows into them).
        :param present: which modalities were recorded, ``bool[B, M]``; only they are targets.
        :param warm_up: factor on the KL weight, 0..1.
        :returns: the loss and the batch means of its terms.

        Vasco et al. 2022, eq. 15 and the second sum of eq. 21, weights gamma and alpha.
        """
        posteriors = {name: mapped(p, Tensor.detach) for name, p in unimodal.items()}
        codes = {n: self.scale_of(n)(p.sample(generator)) for n, p in posteriors.items()}
        targets = {n: self.scale_of(n)(p.mean) for n, p in posteriors.items()}
        return self._objective(self, Batch(codes, targets, present, warm_up, generator))


class Nexus(MultimodalModel):
    """
    Both levels together: Nexus and the other families over the same hierarchy.

    :param spec: any number and kinds of modalities.
    :param recipe: the family's joint encoder and objective.
    """

    own_latents: ClassVar[bool] = True
    separable: ClassVar[bool] = True

    def __init__(self, spec: ModelSpec, recipe: Family) -> None:
        super().__init__(spec)
        top = TopLevel(spec, recipe)  # first: its weights start as those trained apart
        self.unimodal = nn.ModuleDict({m.name: UnimodalVAE(m) for m in spec.modalities})
        self.top = top
        self.fuses = top.joint.fuses
        self.uncertainty = Uncertainty(spec) if spec.calibrated else None

    @property
    def code_dims(self) -> dict[str, int]:
        """Sizes of latent, message and (where calibrated) novelty together."""
        more = self.top.joint.message_dim + (self.uncertainty is not None)
        return {m.name: m.latent_dim + more for m in self.spec.modalities}

    def vae(self, name: str) -> UnimodalVAE:
        """Autoencoder of one modality."""
        return cast(UnimodalVAE, self.unimodal[name])

    def encode(self, name: str, data: Tensor) -> Tensor:
        """Code of the mean of the unimodal posterior, see :meth:`code`."""
        return self.code(name, self.vae(name).encode(data).mean)

    def code(self, name: str, latent: Tensor) -> Tensor:
        """
        All of one modality that the joint posterior depends on, ``float[B, C_m]``.

        :param latent: unimodal latent, ``float[B, d_m]``.
        :returns: the standardised latent, its message and its novelty (where calibrated).
        """
        scaled = self.top.scale_of(name)(latent)
        parts = [scaled, self.top.joint.message(name, scaled)]
        if self.uncertainty is not None:
            parts.append(self.uncertainty.novelty_of(name)(scaled)[:, None])
        return torch.cat(parts, dim=1)

    def fuse(self, codes: Mapping[str, Tensor], present: Tensor) -> Posterior:
        """Joint posterior given what :meth:`encode` says of each modality."""
        joint, extra = self.top.joint, int(self.uncertainty is not None)
        parts = [
            codes[m.name].split([m.latent_dim, joint.message_dim, extra][: 2 + extra], dim=1)
            for m in self.spec.modalities
        ]
        messages = {name: part[1] for name, part in zip(self.spec.names, parts)}
        posterior: Posterior = joint.fuse(messages, present)
        if self.uncertainty is None:
            return posterior
        assert isinstance(posterior, DiagonalGaussian)
        novelty = torch.cat([part[2] for part in parts], dim=1)
        return self.uncertainty.correct(posterior, novelty, present)

    @property
    def noise_dims(self) -> dict[str, int]:
        """Sizes of the unimodal latents, where what the joint one leaves open is calibrated."""
        return (
            {}
            if self.uncertainty is None
            else {m.name: m.latent_dim for m in self.spec.modalities}
        )

    def decode(self, name: str, joint: Tensor, noise: Tensor | None = None) -> Tensor:
        """Data given the unimodal latent that the joint one expects, see the base class."""
        latent = self.top.conditional(name, joint).mean
        if noise is not None and self.uncertainty is not None:
            latent = latent + self.uncertainty.spread_of(name)(noise)
        return self.vae(name).decode(self.top.scale_of(name).inverse(latent))

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
            loss, parts, posterior = vae.loss(data[name][recorded], warm_up, generator)
            total = total + loss
            terms.update({f'{name}.{key}': value for key, value in parts.items()})
            posteriors[name] = DiagonalGaussian(
                *(zeros.index_put((recorded,), part.detach().float()) for part in posterior)
            )
        loss, parts = self.top.loss(posteriors, present, warm_up, generator)
        terms.update({f'top.{key}': value for key, value in parts.items()})
        return total + loss, terms

    def log_weights(
        self,
        data: Mapping[str, Tensor],
        observed: Collection[str],
        evaluated: Collection[str],
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """
        Log importance weights of one draw, see :class:`MultimodalModel`.

        The joint latent is drawn given the means of the unimodal posteriors, as when the
        model runs. Unimodal latents of modalities that are not evaluated integrate to one
        and are left out.
        """
        posteriors = {name: self.vae(name).encode(data[name]) for name in observed}
        codes = {name: self.code(name, p.mean) for name, p in posteriors.items()}
        joint, log_weight = self.draw_joint(codes, generator)
        for name in evaluated:
            vae, scale = self.vae(name), self.top.scale_of(name)
            conditional = self.top.conditional(name, joint)
            if name in posteriors:
                latent = posteriors[name].sample(generator)
                density = conditional.log_prob(scale(latent)) - scale.std.log().sum()
                log_weight = log_weight + density - posteriors[name].log_prob(latent)
            else:
                latent = scale.inverse(conditional.sample(generator))
            log_weight = log_weight + vae.log_likelihood(latent, data[name])
        return log_weight
