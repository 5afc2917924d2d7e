"""The bottom level: a variational autoencoder per modality."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mm_perception.modalities import build_modality
from mm_perception.model.distributions import DiagonalGaussian, find_likelihood
from mm_perception.model.networks import build_pair, split_posterior
from mm_perception.spec import ModalitySpec


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
