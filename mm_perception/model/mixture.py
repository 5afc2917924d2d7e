"""Uniform mixtures of diagonal distributions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mm_perception.model.distributions import Diagonal, mapped


@dataclass(frozen=True)
class Mixture:
    """
    A uniform mixture of the present components of each row.

    A mixture's own mean would lie between its components, where it may have no mass. What is
    published is therefore one component: a mixture does not fuse, unless that component does.

    :param components: stacked distributions, parameters ``float[B, E, D]``.
    :param present: ``bool[B, E]``, at least one per row.
    :param published: component that gives mean and std, ``int64[B]``, a present one.
    """

    components: Diagonal
    present: Tensor
    published: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean of the published component, ``float[B, D]``."""
        return pick(self.components, self.published).mean

    @property
    def std(self) -> Tensor:
        """Standard deviation of the published component, ``float[B, D]``."""
        return pick(self.components, self.published).std

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw from one present component per row, chosen at random, ``float[B, D]``."""
        chosen = torch.multinomial(self.present.float(), 1, generator=generator)
        return pick(self.components, chosen.squeeze(1)).sample(generator)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of ``float[..., B, D]``, summed over D: ``float[..., B]``."""
        each = self.components.log_prob(value.unsqueeze(-2))
        total = each.masked_fill(~self.present, -torch.inf).logsumexp(-1)
        return total - self.present.sum(1).log()

    def log_prior(self, value: Tensor) -> Tensor:
        """Log density under the components' prior, summed over D."""
        return self.components.log_prior(value)

    def kl_to_prior(self) -> Tensor:
        """
        Average of the present components' KL divergences to the prior, ``float[B]``.

        An upper bound of the mixture's own, which has no closed form (Sutter et al. 2021,
        eq. 7).
        """
        each = self.components.kl_to_prior() * self.present
        return each.sum(1) / self.present.sum(1)


def pick(components: Diagonal, index: Tensor) -> Diagonal:
    """One component per row: of parameters ``float[B, E, D]`` by ``int64[B]``."""
    chosen = index[:, None, None]
    return mapped(components, lambda p: p.gather(1, chosen.expand(-1, 1, p.shape[-1]))[:, 0])


def surest(components: Diagonal, present: Tensor) -> Tensor:
    """Which present component has the least entropy, ``int64[B]``."""
    return components.entropy().masked_fill(~present, torch.inf).argmin(1)
