"""
Nexus: two levels that share no gradient, unimodal autoencoders below, one joint latent above.

To read on: ``unimodal`` (the level below), ``joint_encoder`` (how any subset of modalities is
fused, and the dropout that trains for it), ``family`` (the objective of the top level),
``networks`` (encoders and decoders) and ``distributions``. ``base`` is what every family offers,
``uncertainty`` what ``calibrated`` adds.

Vasco et al. 2022, "Leveraging hierarchy in multimodal generative models for effective
cross-modality inference", Neural Networks 146.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from mm_perception.model.base import MultimodalModel
from mm_perception.model.distributions import DiagonalGaussian, Posterior, mapped, scatter_rows
from mm_perception.model.family import Batch, Family
from mm_perception.model.networks import ByName, dense
from mm_perception.model.uncertainty import Uncertainty
from mm_perception.model.unimodal import Encoding, UnimodalVAE
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
    def fit(self, posterior: Encoding) -> None:
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


LEAST_VARIANCE = 1e-4
"""Of a standardised latent given the joint one; below, nothing is gained by being exact."""
_MOMENTUM = 0.02


class LearnedVariance(nn.Module):
    """
    Variance of a modality's standardised latent given the joint one, per dimension.

    While training it is that of the batch, which makes the likelihood half the sum of the
    logarithms of the mean squared errors: what is worth how much follows from the data. The
    running mean of it is the model's variance.

    :param latent_dim: size d of the latent.

    Rybkin et al. 2020, "Simple and effective VAE training with calibrated decoders", eq. 5.
    """

    noise: Tensor
    running: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer('noise', torch.zeros(latent_dim))
        self.register_buffer('running', torch.ones(latent_dim))

    @torch.no_grad()
    def fit(self, variance: Tensor, std: Tensor) -> None:
        """Take the posteriors' own mean variance, ``float[d]``; std: of the latent."""
        self.noise.copy_(variance / std.square())

    def forward(self, error: Tensor) -> Tensor:
        """Variance ``float[d]`` for errors ``float[B, d]`` of the posterior's mean."""
        if not self.training:
            return self.running
        variance = (error.square().mean(0) + self.noise).clamp_min(LEAST_VARIANCE)
        with torch.no_grad():
            self.running.lerp_(variance, _MOMENTUM)
        return variance


class TopLevel(nn.Module):
    """
    Joint encoder over any subset of the unimodal latents, and a decoder back to each.

    :param family: the family's joint encoder and objective.

    Vasco et al. 2022, section 5, eq. 15-17.
    """

    def __init__(self, spec: ModelSpec, family: Family) -> None:
        super().__init__()
        self.spec = spec
        self._objective = family.bind_objective(spec)
        sizes = {m.name: m.latent_dim for m in spec.modalities}
        self.scale = ByName[LatentScale]({n: LatentScale(size) for n, size in sizes.items()})
        codes = {m.name: m.latent_dim + m.shared_dim for m in spec.modalities}
        self.joint = family.find_encoder(spec)(spec, codes)
        hidden = (spec.joint_latent_dim, *spec.decoder_hidden)
        self.decoders = nn.ModuleDict(
            {
                name: nn.Sequential(dense(hidden, 'leaky_relu', True), nn.Linear(hidden[-1], size))
                for name, size in sizes.items()
            }
        )
        learned = {m.name: m.latent_dim for m in spec.modalities if m.latent_weight is None}
        self.variance = ByName[LearnedVariance](
            {name: LearnedVariance(size) for name, size in learned.items()}
        )

    @torch.no_grad()
    def fit(self, posteriors: Mapping[str, Encoding]) -> None:
        """Take all that is fitted from the training set's unimodal posteriors, ``[N, d_m]``."""
        for name, posterior in posteriors.items():
            self.scale[name].fit(posterior)
            if name in self.variance:
                variance = posterior.log_variance.exp().mean(0)
                self.variance[name].fit(variance, self.scale[name].std)
        self.joint.fit(self.codes(posteriors))

    def codes(
        self,
        encodings: Mapping[str, Encoding],
        sampled: bool = False,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """
        What the joint encoder takes of each modality, ``float[B, d_m + shared_dim]``.

        :param sampled: draw the latents, instead of their means.
        :returns: standardised latents, and what is shared beside them.
        """
        codes = {}
        for name, encoding in encodings.items():
            mean, log_variance, *shared = encoding
            drawn = DiagonalGaussian(mean, log_variance)
            latent = drawn.sample(generator) if sampled else mean
            codes[name] = torch.cat([self.scale[name](latent), *shared], dim=1)
        return codes

    def conditional(self, name: str, joint: Tensor) -> DiagonalGaussian:
        """Distribution p(z_m | z_sigma) of a modality's standardised latent, ``[B, d_m]``."""
        mean = self.joint.expected(name, joint, self.decoders[name](joint)).float()
        if name not in self.variance:
            return DiagonalGaussian(mean, torch.zeros_like(mean))
        return DiagonalGaussian(mean, self.variance[name].running.log().expand_as(mean))

    def log_likelihood(self, name: str, joint: Tensor, target: Tensor) -> Tensor:
        """Log density of a standardised latent given the joint latent, ``float[B]``."""
        conditional = self.conditional(name, joint)
        if name in self.variance:
            variance = self.variance[name](conditional.mean - target)
            conditional = conditional._replace(log_variance=variance.log().expand_as(target))
        return conditional.log_prob(target)

    def weight(self, name: str) -> float:
        """Weight gamma of a modality's log likelihood; 1 where its variance is learned."""
        weight = self.spec.modality(name).latent_weight
        return 1.0 if weight is None else weight

    def loss(
        self,
        unimodal: Mapping[str, Encoding],
        present: Tensor,
        warm_up: float = 1.0,
        generator: torch.Generator | None = None,
        shown: Mapping[str, Encoding] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """
        Negative weighted top-level bound of the family, averaged over the batch.

        The expectation of log p(z_m | z_sigma) over q(z_m | x_m) is taken in closed form:
        for a Gaussian of fixed variance, that of the posterior mean less a constant; a learned
        variance holds the posteriors' own (:class:`LearnedVariance`).

        :param unimodal: unimodal posteriors (no gradient flows into them).
        :param present: which modalities were recorded, ``bool[B, M]``; only they are targets.
        :param warm_up: factor on the KL weight, 0..1.
        :param shown: what the joint encoder sees instead, such as strange sensors' latents.
        :returns: the loss and the batch means of its terms.

        Vasco et al. 2022, eq. 15 and the second sum of eq. 21, weights gamma and alpha.
        """
        posteriors = {name: mapped(p, Tensor.detach) for name, p in unimodal.items()}
        seen = posteriors if shown is None else shown
        codes = self.codes(seen, sampled=True, generator=generator)
        targets = {n: self.scale[n](p.mean) for n, p in posteriors.items()}
        return self._objective(self, Batch(codes, targets, present, warm_up, generator))


class Nexus(MultimodalModel):
    """
    Both levels together: Nexus and the other families over the same hierarchy.

    :param spec: any number and kinds of modalities.
    :param family: the family's joint encoder and objective.
    """

    own_latents: ClassVar[bool] = True
    separable: ClassVar[bool] = True

    def __init__(self, spec: ModelSpec, family: Family) -> None:
        super().__init__(spec)
        top = TopLevel(spec, family)  # first: its weights start as those trained apart
        self.unimodal = ByName[UnimodalVAE]({m.name: UnimodalVAE(m) for m in spec.modalities})
        self.top = top
        self.fuses = top.joint.fuses
        self.uncertainty = Uncertainty(spec) if spec.calibrated else None

    @property
    def code_dims(self) -> dict[str, int]:
        """Sizes of latent, what is shared, message and (where calibrated) novelty together."""
        more = self.top.joint.message_dim + (self.uncertainty is not None)
        return {m.name: m.latent_dim + m.shared_dim + more for m in self.spec.modalities}

    def infer(self, name: str, data: Tensor) -> Encoding:
        """Unimodal posterior q(z_m | x_m), ``[B, d_m]``, and what is shared, if anything."""
        return self.unimodal[name].encode(data)

    def code(self, name: str, inferred: Encoding) -> Tensor:
        """
        All of one modality that the joint posterior depends on, ``float[B, C_m]``.

        :returns: the standardised latent (the posterior's mean), what is shared, the message of
            both to the joint encoder, and the latent's novelty (where calibrated).
        """
        seen = self.top.codes({name: inferred})[name]
        parts = [seen, self.top.joint.message(name, seen)]
        if self.uncertainty is not None:
            latent = seen[:, : self.spec.modality(name).latent_dim]
            parts.append(self.uncertainty.novelty[name](latent)[:, None])
        return torch.cat(parts, dim=1)

    def fuse(self, codes: Mapping[str, Tensor], present: Tensor) -> Posterior:
        """Joint posterior given what :meth:`encode` says of each modality."""
        joint, extra = self.top.joint, int(self.uncertainty is not None)
        parts = [
            codes[m.name].split(
                [m.latent_dim + m.shared_dim, joint.message_dim, extra][: 2 + extra], dim=1
            )
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
        if self.uncertainty is None:
            return {}
        return {m.name: m.latent_dim for m in self.spec.modalities}

    def decode(self, name: str, joint: Tensor, noise: Tensor | None = None) -> Tensor:
        """Data given the unimodal latent that the joint one expects, see the base class."""
        latent = self.top.conditional(name, joint).mean
        if noise is not None and self.uncertainty is not None:
            latent = latent + self.uncertainty.spread[name](noise)
        return self.unimodal[name].decode(self.top.scale[name].inverse(latent))

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
            vae, recorded = self.unimodal[name], present[:, column]
            zeros = torch.zeros(len(present), vae.spec.latent_dim, device=present.device)
            posteriors[name] = DiagonalGaussian(zeros, zeros)
            if recorded.sum() < 2:  # too few for batch statistics
                continue
            loss, parts, posterior = vae.loss(data[name][recorded], warm_up, generator)
            total = total + loss
            terms.update({f'{name}.{key}': value for key, value in parts.items()})
            posteriors[name] = DiagonalGaussian(
                *(scatter_rows(part.detach(), recorded) for part in posterior)
            )
        loss, parts = self.top.loss(posteriors, present, warm_up, generator)
        terms.update({f'top.{key}': value for key, value in parts.items()})
        return total + loss, terms

    def log_weight(
        self,
        name: str,
        joint: Tensor,
        data: Tensor,
        inferred: Encoding | None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Log importance weight of one modality, with a draw of its unimodal latent."""
        vae, scale = self.unimodal[name], self.top.scale[name]
        conditional = self.top.conditional(name, joint)
        if inferred is None:
            latent = scale.inverse(conditional.sample(generator))
            return vae.log_likelihood(latent, data)
        posterior = DiagonalGaussian(*inferred[:2])
        latent = posterior.sample(generator)
        density = conditional.log_prob(scale(latent)) - scale.std.log().sum()
        return vae.log_likelihood(latent, data) + density - posterior.log_prob(latent)
