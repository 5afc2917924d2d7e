"""The HMVAE: a hierarchy of latents per modality below one shared latent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from mm_perception.config import from_plain
from mm_perception.errors import ConfigError
from mm_perception.modalities import build_modality
from mm_perception.model.base import MultimodalModel
from mm_perception.model.baselines.experts import Mixture, most_certain
from mm_perception.model.baselines.mhvae import ConditionalGaussian, split_encoder
from mm_perception.model.distributions import DiagonalGaussian, likelihood_of, scatter_rows
from mm_perception.model.networks import ByName, build_pair, dense
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
        return self.prior_of(self.top_down(above))

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
        self.likelihood = likelihood_of(modality)
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

    def descend(self, joint: Tensor, choose: Callable[[DiagonalGaussian], Tensor]) -> Tensor:
        """
        Get from g to z_1 by way of the conditional priors, ``float[B, D]``.

        :param choose: of each prior, a latent: its mean, or a sample.
        """
        latent = joint
        for level in self._top_down():
            latent = choose(level.prior(latent))
        return latent

    def decode(self, joint: Tensor, choose: Callable[[DiagonalGaussian], Tensor]) -> Tensor:
        """Expected data given z_1, see :meth:`descend`: ``float[B, *shape]``."""
        return self.likelihood.mean(self.decoder(self.descend(joint, choose)))

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


@dataclass(frozen=True)
class HMVAEOptions:
    """
    Options of the ``hmvae`` family.

    :param depth: L(m), how many levels of latents a modality has, the shared one included; a
        number for all modalities, or numbers by name (2 for those not named).
    """

    depth: Any = 2

    def of(self, spec: ModelSpec) -> dict[str, int]:
        """
        Depth of every modality.

        :raises ConfigError: if one is no whole number of at least 2, or has no modality.
        """
        given = self.depth
        named = given if isinstance(given, Mapping) else dict.fromkeys(spec.names, given)
        for name, depth in named.items():
            spec.modality(name)
            if type(depth) is not int or depth < 2:
                raise ConfigError(
                    f'model.options.depth: {name} needs a whole number from 2 on, not {depth!r}'
                )
        return {name: named.get(name, 2) for name in spec.names}


class HMVAE(MultimodalModel):
    """
    Latents of every modality in L(m) - 1 levels below one shared latent g, trained end to end.

    The posterior over g is a mixture of experts, one per present modality: it does not fuse.
    The mean that is published is that of the most certain expert. What all modalities do shape are
    the latents below, whose posteriors depend on g and on their own modality.

    :param spec: ``joint_hidden`` are the layers of bottom-up networks and experts,
        ``decoder_hidden`` those of the top-down networks; the bound's terms are weighted by
        ``likelihood_weight``, ``beta`` (latents of a modality) and ``alpha`` (g).

    HMVAE, section 3.
    """

    fuses = False

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        depths = from_plain(HMVAEOptions, dict(spec.options), 'model.options').of(spec)
        self.ladders = ByName[LatentLadder](
            {m.name: LatentLadder(m, depths[m.name], spec) for m in spec.modalities}
        )

    @property
    def code_dims(self) -> dict[str, int]:
        """Size of an expert's mean and log variance."""
        return dict.fromkeys(self.spec.names, 2 * self.spec.joint_latent_dim)

    def infer(self, name: str, data: Tensor) -> list[Tensor]:
        """Bottom-up states of z_1 to z_L-1."""
        return self.ladders[name].states(data)

    def code(self, name: str, inferred: list[Tensor]) -> Tensor:
        """Mean and log variance of the expert q(g | x_m), ``float[B, 2 * D]``."""
        return self.ladders[name].code(inferred)

    def fuse(self, codes: Mapping[str, Tensor], present: Tensor) -> Mixture:
        """Mixture of the present experts, see :class:`MultimodalModel`."""
        stacked = torch.stack([codes[name] for name in self.spec.names], dim=1)
        stacked = stacked.masked_fill(~present[:, :, None], 0.0)
        experts = DiagonalGaussian(*stacked.chunk(2, dim=-1))
        return Mixture(experts, present, most_certain(experts, present))

    def decode(self, name: str, joint: Tensor, noise: Tensor | None = None) -> Tensor:
        """Expected data given g, by way of the means of the conditional priors."""
        return self.ladders[name].decode(joint, lambda prior: prior.mean)

    def decode_sample(
        self, name: str, joint: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Expected data by way of samples of the conditional priors."""
        return self.ladders[name].decode(joint, lambda prior: prior.sample(generator))

    def loss(
        self,
        data: Mapping[str, Tensor],
        present: Tensor,
        warm_up: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """
        Negative evidence lower bound, averaged over the batch.

        g is drawn once from every present expert, and each draw explains all that was
        recorded; the KL divergences of the latents below are exact given those above.

        HMVAE, eq. 6; Shi et al. 2019, section 3.
        """
        count = len(present)
        data, present = self._usable(data, present)
        states, codes = self._encode_recorded(data, present)
        posterior = self.fuse(codes, present)
        joint = posterior.components.sample(generator).transpose(0, 1)  # [M, B, D]
        shares = present.t() / present.sum(1) / count
        log_ratio = posterior.log_prob(joint) - posterior.log_prior(joint)
        terms = {'kl': (log_ratio * shares).sum()}
        loss = self.spec.alpha * warm_up * terms['kl']
        for column, modality in enumerate(self.spec.modalities):
            stratum, row = (present.t() & present[:, column]).nonzero(as_tuple=True)
            if not len(row):
                continue
            name, share = modality.name, shares[stratum, row]
            position = present[:, column].cumsum(0)[row] - 1
            below = [state[position] for state in states[name]]
            likelihood, kl = self.ladders[name].bound(
                joint[stratum, row], below, data[name][row], generator
            )
            bound = modality.likelihood_weight * likelihood - modality.beta * warm_up * kl
            loss = loss - (bound * share).sum()
            terms[f'{name}.log_likelihood'] = (likelihood * share).sum() / share.sum()
            terms[f'{name}.kl'] = (kl * share).sum() / share.sum()
        return loss, terms

    def _usable(
        self, data: Mapping[str, Tensor], present: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Rows with some modality that can be encoded."""
        if self.training:  # batch norm needs two
            present = present & (present.sum(0) > 1)
        kept = present.any(1)
        return {name: value[kept] for name, value in data.items()}, present[kept]

    def _encode_recorded(
        self, data: Mapping[str, Tensor], present: Tensor
    ) -> tuple[dict[str, list[Tensor]], dict[str, Tensor]]:
        """Bottom-up states of recorded rows alone, and codes of all, zero where absent."""
        states, codes = {}, {}
        for column, (name, size) in enumerate(self.code_dims.items()):
            rows = present[:, column]
            codes[name] = torch.zeros(len(rows), size, device=rows.device)
            if rows.any():
                states[name] = self.infer(name, data[name][rows])
                codes[name] = scatter_rows(self.code(name, states[name]), rows)
        return states, codes

    def log_weight(
        self,
        name: str,
        joint: Tensor,
        data: Tensor,
        inferred: list[Tensor] | None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """
        Log importance weight of one modality, with a draw of its latents.

        HMVAE, eq. 9 and 13, with the density of the whole mixture.
        """
        ladder = self.ladders[name]
        if inferred is None:
            latent = ladder.descend(joint, lambda prior: prior.sample(generator))
            return ladder.log_likelihood(latent, data)
        steps = ladder.infer(joint, inferred, generator)
        total = ladder.log_likelihood(steps[-1].latent, data)
        for step in steps:
            total = total + step.prior.log_prob(step.latent) - step.posterior.log_prob(step.latent)
        return total
