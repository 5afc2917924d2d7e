"""The latents of one modality below a shared one, inferred from top to bottom."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from mm_perception.modalities import build_modality
from mm_perception.model.conditional import ConditionalGaussian, split_encoder
from mm_perception.model.distributions import DiagonalGaussian, find_likelihood
from mm_perception.model.networks import build_pair, dense
from mm_perception.spec import ModalitySpec, ModelSpec


class LatentLevel(nn.Module):
    """
    One latent of a modality, given the latent above it.

    Prior and posterior share the top-down network; the posterior merges its state with the
    bottom-up state.

    :param above: size of the latent above.
    :param bottom_up: size of the bottom-up state.
    :param spec: ``decoder_hidden`` are the layers of the top-down network.

    HMVAE, appendix C.1, eq. 14-17.
    """

    def __init__(self, above: int, bottom_up: int, latent_dim: int, spec: ModelSpec) -> None:
        super().__init__()
        sizes = (above, *spec.decoder_hidden)
        self.top_down = dense(sizes, 'leaky_relu', True)
        self.prior_of = ConditionalGaussian(sizes[-1], (), latent_dim)
        merged = sizes[-1] + bottom_up
        self.merge = ConditionalGaussian(merged, sizes[-1:], latent_dim)

    def prior(self, above: Tensor) -> DiagonalGaussian:
        """Conditional prior p(z_i | z_i+1) given ``float[B, above]``."""
        prior: DiagonalGaussian = self.prior_of(self.top_down(above))
        return prior

    def forward(
        self, above: Tensor, bottom_up: Tensor
    ) -> tuple[DiagonalGaussian, DiagonalGaussian]:
        """Posterior q(z_i | z_i+1, x) and conditional prior p(z_i | z_i+1)."""
        state = self.top_down(above)
        return self.merge(torch.cat((state, bottom_up), dim=1)), self.prior_of(state)


class Step(NamedTuple):
    """Posterior, conditional prior and posterior sample of one latent."""

    posterior: DiagonalGaussian
    prior: DiagonalGaussian
    latent: Tensor


class LatentLadder(nn.Module):
    """
    All of one modality: bottom-up network, expert, its latents, decoder.

    The bottom-up state of z_1 is the hidden representation of the modality's encoder; each
    further one is computed from that below, the expert q(g | x) from the last. All networks
    have batch norm: without it, g is soon ignored where there are two levels below it or more
    (Sonderby et al. 2016 found the same).

    :param modality: every latent has its ``latent_dim``.
    :param depth: L(m), at least 2: there are L(m) - 1 latents below g.
    """

    def __init__(self, modality: ModalitySpec, depth: int, spec: ModelSpec) -> None:
        super().__init__()
        encoder, self.decoder = build_pair(modality, build_modality(modality).shape)
        self.likelihood = find_likelihood(modality.likelihood)
        self.trunk, last = split_encoder(encoder)
        hidden = spec.joint_hidden
        self.bottom_up, self.levels = nn.ModuleList(), nn.ModuleList()
        width = last.in_features
        for level in range(1, depth):
            if level > 1:
                sizes = (width, *hidden)
                self.bottom_up.append(dense(sizes, 'leaky_relu', True))
                width = sizes[-1]
            above = spec.joint_latent_dim if level == depth - 1 else modality.latent_dim
            self.levels.append(LatentLevel(above, width, modality.latent_dim, spec))
        self.expert = ConditionalGaussian(width, hidden, spec.joint_latent_dim)

    def states(self, data: Tensor) -> list[Tensor]:
        """Bottom-up states of z_1 to z_L-1 from ``float[B, *shape]``."""
        states: list[Tensor] = [self.trunk(data)]
        for network in self.bottom_up:
            states.append(network(states[-1]))
        return states

    def code(self, states: list[Tensor]) -> Tensor:
        """Mean and log variance of the expert q(g | x), ``float[B, 2 * D]``."""
        return torch.cat(self.expert(states[-1]), dim=1)

    def descend(self, joint: Tensor, generator: torch.Generator | None) -> Tensor:
        """Sample z_1 by way of the conditional priors from g, ``float[B, D]``."""
        latent = joint
        for level in self._top_down():
            latent = level.prior(latent).sample(generator)
        return latent

    def expect(self, joint: Tensor) -> Tensor:
        """Like :meth:`descend`, by the means of the conditional priors."""
        latent = joint
        for level in self._top_down():
            latent = level.prior(latent).mean
        return latent

    def infer(
        self, joint: Tensor, states: list[Tensor], generator: torch.Generator | None
    ) -> list[Step]:
        """
        Infer z_L-1 to z_1, in this order, each given the sample of that above.

        HMVAE, eq. 5.
        """
        steps: list[Step] = []
        latent = joint
        for level, state in zip(self._top_down(), reversed(states)):
            posterior, prior = level(latent, state)
            latent = posterior.sample(generator)
            steps.append(Step(posterior, prior, latent))
        return steps

    def bound(
        self,
        joint: Tensor,
        states: list[Tensor],
        data: Tensor,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        """Log likelihood and KL divergences of all latents, ``float[B]``, given g."""
        steps = self.infer(joint, states, generator)
        kl = torch.stack([step.posterior.kl_to(step.prior) for step in steps]).sum(0)
        return self.log_likelihood(steps[-1].latent, data), kl

    def log_likelihood(self, latent: Tensor, data: Tensor) -> Tensor:
        """Log density of data given z_1, ``float[B]``."""
        return self.likelihood.log_prob(self.decoder(latent).float(), data)

    def _top_down(self) -> Iterator[LatentLevel]:
        return (cast(LatentLevel, level) for level in reversed(self.levels))
