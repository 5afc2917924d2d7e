"""The MHVAE, and Gaussians whose parameters are computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from mm_perception.config import from_plain
from mm_perception.errors import ConfigError
from mm_perception.model.base import MultimodalModel
from mm_perception.model.distributions import DiagonalGaussian
from mm_perception.model.joint_encoder import on_rows
from mm_perception.model.networks import ByName, dense, split_posterior
from mm_perception.model.unimodal import UnimodalVAE
from mm_perception.spec import ModelSpec


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


@dataclass(frozen=True)
class MHVAEOptions:
    """
    Options of the ``mhvae`` family.

    :param dropout_rate: w, the probability that a modality's representation is hidden from
        the core network while training, 0..1 (1 excluded).
    :param modality_warm_up_ratio: U_m / U_c, 0..1 (0 excluded). The stage's warm-up epochs
        are U_c, over which the weight of the core latent's KL divergence rises; that of the
        unimodal ones rises over this share of them.
    """

    dropout_rate: float = 0.5
    modality_warm_up_ratio: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.dropout_rate < 1.0:
            raise ConfigError('model.options.dropout_rate: must be at least 0 and less than 1')
        if not 0.0 < self.modality_warm_up_ratio <= 1.0:
            raise ConfigError(
                'model.options.modality_warm_up_ratio: must be more than 0 and at most 1'
            )


def representation_dropout(
    present: Tensor, rate: float, generator: torch.Generator | None = None
) -> Tensor:
    """
    Hide each present modality with the same probability, but never all of a row.

    The draw is that of independent Bernoulli variables under the condition that one is kept:
    modality by modality, given what the row has kept so far.

    :param present: which modalities were recorded, ``bool[B, M]``.
    :param rate: w, the probability that a modality is hidden, less than 1.
    :returns: which modalities the core network may see, ``bool[B, M]``.

    Vasco et al. 2020, section 2.1.2, eq. 10-12.
    """
    uniform = torch.rand(present.shape, generator=generator, device=present.device)
    seen = torch.zeros_like(present)
    left = present.sum(1)
    for column in range(present.shape[1]):
        first = ((1.0 - rate) / (1.0 - rate**left)).masked_fill(left <= 1, 1.0)
        chance = torch.where(seen.any(1), 1.0 - rate, first)
        seen[:, column] = present[:, column] & (uniform[:, column] < chance)
        left = left - present[:, column].long()
    return seen


class MHVAE(MultimodalModel):
    """
    Autoencoders of single modalities whose latents have a core latent as their prior.

    The core network sees the hidden representations h_m of the encoders side by side, zeros
    where absent. Core network and top decoders have batch norm: without it, the core latent
    learns far less in as many steps.

    :param spec: ``joint_hidden`` and ``decoder_hidden`` are the layers of the core network and
        of each p(z_m | z_c); the weights lambda_m, beta_m and beta_c of the objective are
        ``likelihood_weight``, ``beta`` and ``alpha``.

    Vasco et al. 2020, section 2.1.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.options = from_plain(MHVAEOptions, dict(spec.options), 'model.options')
        self.unimodal = ByName[UnimodalVAE]({m.name: UnimodalVAE(m) for m in spec.modalities})
        size = spec.joint_latent_dim
        self.core = ConditionalGaussian(sum(self.code_dims.values()), spec.joint_hidden, size)
        self.conditionals = ByName[ConditionalGaussian](
            {
                m.name: ConditionalGaussian(size, spec.decoder_hidden, m.latent_dim)
                for m in spec.modalities
            }
        )

    @property
    def code_dims(self) -> dict[str, int]:
        """Sizes of the hidden representations h_m."""
        encoders = {name: vae.encoder for name, vae in self.unimodal.items()}
        return {name: split_encoder(e)[1].in_features for name, e in encoders.items()}

    def trunk(self, name: str) -> nn.Module:
        """Layers of a modality's encoder up to its hidden representation."""
        return split_encoder(self.unimodal[name].encoder)[0]

    def infer(self, name: str, data: Tensor) -> Tensor:
        """Hidden representation h_m, which is the code, ``float[B, C_m]``."""
        return self.trunk(name)(data)

    def unimodal_posterior(self, name: str, code: Tensor) -> DiagonalGaussian:
        """Posterior q(z_m | x_m) given h_m, ``float[B, C_m]``: ``[B, d_m]``."""
        outputs = split_encoder(self.unimodal[name].encoder)[1](code)
        return DiagonalGaussian(*split_posterior(outputs.float()))

    def conditional(self, name: str, joint: Tensor) -> DiagonalGaussian:
        """Conditional prior p(z_m | z_c) given ``float[B, D]``: ``[B, d_m]``."""
        return self.conditionals[name](joint)

    def fuse(self, codes: Mapping[str, Tensor], present: Tensor) -> DiagonalGaussian:
        """Core posterior q(z_c | h_d), see :class:`MultimodalModel`."""
        masked = [
            codes[name].masked_fill(~present[:, column, None], 0.0)
            for column, name in enumerate(self.spec.names)
        ]
        return self.core(torch.cat(masked, dim=1))

    def decode(self, name: str, joint: Tensor, noise: Tensor | None = None) -> Tensor:
        """Expected data given the mean of p(z_m | z_c), see :class:`MultimodalModel`."""
        return self.unimodal[name].decode(self.conditional(name, joint).mean)

    def decode_sample(
        self, name: str, joint: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Expected data given a sample of p(z_m | z_c), see :class:`MultimodalModel`."""
        return self.unimodal[name].decode(self.conditional(name, joint).sample(generator))

    def loss(
        self,
        data: Mapping[str, Tensor],
        present: Tensor,
        warm_up: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """
        Negative evidence lower bound under representation dropout, averaged over the batch.

        The KL divergences of the unimodal posteriors are exact at one sample of z_c.

        Vasco et al. 2020, eq. 13.
        """
        if self.training:  # batch norm needs two
            present = present & (present.sum(0) > 1)
        codes = {
            name: on_rows(self.trunk(name), data[name], present[:, column], size)
            for column, (name, size) in enumerate(self.code_dims.items())
        }
        seen = representation_dropout(present, self.options.dropout_rate, generator)
        core = self.fuse(codes, seen)
        joint = core.sample(generator)
        terms = {'kl': core.kl_to_prior().mean()}
        loss = self.spec.alpha * warm_up * terms['kl']
        factor = min(1.0, warm_up / self.options.modality_warm_up_ratio)
        for column, modality in enumerate(self.spec.modalities):
            rows = present[:, column]
            if not rows.any():
                continue
            name = modality.name
            posterior = self.unimodal_posterior(name, codes[name][rows])
            kl = posterior.kl_to(self.conditional(name, joint[rows]))
            latent = posterior.sample(generator)
            likelihood = self.unimodal[name].log_likelihood(latent, data[name][rows])
            bound = modality.likelihood_weight * likelihood - factor * modality.beta * kl
            loss = loss - bound.sum() / len(present)
            terms[f'{name}.log_likelihood'], terms[f'{name}.kl'] = likelihood.mean(), kl.mean()
        return loss, terms

    def log_weight(
        self,
        name: str,
        joint: Tensor,
        data: Tensor,
        inferred: Tensor | None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Log importance weight of one modality, with a draw of z_m."""
        prior, vae = self.conditional(name, joint), self.unimodal[name]
        if inferred is None:
            return vae.log_likelihood(prior.sample(generator), data)
        posterior = self.unimodal_posterior(name, inferred)
        latent = posterior.sample(generator)
        density = prior.log_prob(latent) - posterior.log_prob(latent)
        return vae.log_likelihood(latent, data) + density
