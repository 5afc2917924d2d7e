"""The level below: an autoencoder per modality, and what it tells of the others."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mm_perception.modalities import build_modality
from mm_perception.model.distributions import DiagonalGaussian, likelihood_of
from mm_perception.model.networks import LINEAR, build_pair, fit_linear, split_posterior
from mm_perception.spec import ModalitySpec


class SharedEncoder(nn.Sequential):
    """
    Tells what other modalities hold: ``float[B, shared_dim]`` of ``float[B, *shape]``.

    Its numbers have mean 0 and variance 1 over what it is trained on.

    :param spec: of the modality that it reads.
    """

    def __init__(self, spec: ModalitySpec) -> None:
        size, network = spec.shared_dim, spec.shared_network or spec.network
        reading = replace(spec, network=network, latent_dim=size)
        encoder, _ = build_pair(reading, build_modality(spec).shape)
        super().__init__(
            encoder,
            nn.LeakyReLU(0.01),
            nn.Dropout(0.3),
            nn.Linear(2 * size, size),
            nn.BatchNorm1d(size, affine=False),
        )


class SharedEncoding(NamedTuple):
    """
    A unimodal posterior, and what the modality tells of the others.

    :param mean: ``float[B, d_m]``, as ``log_variance``.
    :param shared: ``float[B, shared_dim]``.
    """

    mean: Tensor
    log_variance: Tensor
    shared: Tensor


Encoding = DiagonalGaussian | SharedEncoding


class UnimodalVAE(nn.Module):
    """
    Variational autoencoder of one modality, and where asked for a :class:`SharedEncoder` beside.

    :param spec: kind, latent size, networks, likelihood and weights.

    Vasco et al. 2022, section 5, eq. 14.
    """

    def __init__(self, spec: ModalitySpec) -> None:
        super().__init__()
        self.spec = spec
        self.shape = build_modality(spec).shape
        self.encoder, self.decoder = build_pair(spec, self.shape)
        self.likelihood = likelihood_of(spec)
        self.shared = SharedEncoder(spec) if spec.shared_dim else None

    @property
    def closed_form(self) -> bool:
        """Whether :meth:`fit` takes the place of training."""
        return self.spec.network.get('type') == LINEAR

    def fit(self, data: Tensor) -> None:
        """Fit the ``linear`` networks to training data, ``float[N, *shape]``."""
        fit_linear((self.encoder, self.decoder), data)

    def posterior(self, data: Tensor) -> DiagonalGaussian:
        """Unimodal posterior q(z_m | x_m) of ``float[B, *shape]``: ``[B, latent_dim]``."""
        return DiagonalGaussian(*split_posterior(self.encoder(data)))

    def encode(self, data: Tensor) -> Encoding:
        """All that the joint encoder needs of ``float[B, *shape]``."""
        posterior = self.posterior(data)
        return posterior if self.shared is None else SharedEncoding(*posterior, self.shared(data))

    def decode(self, latent: Tensor) -> Tensor:
        """Expected data given ``float[B, latent_dim]``: ``float[B, *shape]``."""
        return self.likelihood.mean(self.decoder(latent))

    def log_likelihood(self, latent: Tensor, data: Tensor) -> Tensor:
        """Log density of data given ``float[B, latent_dim]``: ``float[B]``."""
        return self.likelihood.log_prob(self.decoder(latent).float(), data)

    def loss(
        self,
        data: Tensor,
        warm_up: float = 1.0,
        generator: torch.Generator | None = None,
        target: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor], DiagonalGaussian]:
        """
        Negative weighted evidence lower bound, averaged over the batch.

        :param data: ``float[B, *shape]``.
        :param warm_up: factor on the KL weight, 0..1.
        :param target: what the decoder shall give, if not the data: the same without noise.
        :returns: the loss, the batch means of its terms, and the posterior q(z_m | x_m).

        Vasco et al. 2022, first sum of eq. 21, with weights lambda and beta.
        """
        posterior = self.posterior(data)
        wanted = data if target is None else target
        likelihood = self.log_likelihood(posterior.sample(generator), wanted).mean()
        kl = posterior.kl_to_prior().mean()
        loss = self.spec.beta * warm_up * kl - self.spec.likelihood_weight * likelihood
        return loss, {'log_likelihood': likelihood, 'kl': kl}, posterior
