"""Diagonal Gaussians and the likelihoods of data: the only ones of the project."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from mm_perception.errors import ConfigError
from mm_perception.spec import ModalitySpec

LOG_2PI = math.log(2.0 * math.pi)


class Posterior(Protocol):
    """A distribution over a latent, with its prior."""

    @property
    def mean(self) -> Tensor:
        """What is published and generated from, ``float[B, D]``."""
        ...

    @property
    def std(self) -> Tensor:
        """Standard deviations around :attr:`mean`, ``float[B, D]``."""
        ...

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw one reparametrised sample per row, ``float[B, D]``."""
        ...

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of ``float[B, D]``, summed over D: ``float[B]``."""
        ...

    def log_prior(self, value: Tensor) -> Tensor:
        """Log density of ``float[B, D]`` under the prior, summed over D: ``float[B]``."""
        ...

    def kl_to_prior(self) -> Tensor:
        """KL divergence to the prior, ``float[B]``."""
        ...


class DiagonalGaussian(NamedTuple):
    """
    Independent normal distributions.

    :param mean: ``float[..., D]``.
    :param log_variance: natural logarithm of the variances, ``float[..., D]``.
    """

    mean: Tensor
    log_variance: Tensor

    @property
    def std(self) -> Tensor:
        """Standard deviations, ``float[..., D]``."""
        return torch.exp(0.5 * self.log_variance)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw one reparametrised sample, ``float[..., D]``."""
        noise = torch.empty_like(self.mean).normal_(generator=generator)
        return self.mean + self.std * noise

    def entropy(self) -> Tensor:
        """Differential entropy, summed over the last axis, ``float[...]``."""
        return 0.5 * (1.0 + LOG_2PI + self.log_variance).sum(-1)

    @staticmethod
    def log_prior(value: Tensor) -> Tensor:
        """Log density under N(0, 1), summed over the last axis, ``float[...]``."""
        return -0.5 * (value.square() + LOG_2PI).sum(-1)

    def kl_to_prior(self) -> Tensor:
        """
        KL divergence to N(0, 1), summed over the last axis, ``float[...]``.

        Kingma and Welling 2013, appendix B.
        """
        variance = self.log_variance.exp()
        return 0.5 * (variance + self.mean.square() - 1.0 - self.log_variance).sum(-1)

    def kl_to(self, other: DiagonalGaussian) -> Tensor:
        """KL divergence to another diagonal Gaussian, summed over the last axis."""
        ratio = (self.log_variance - other.log_variance).exp()
        distance = (self.mean - other.mean).square() / other.log_variance.exp()
        return 0.5 * (ratio + distance - 1.0 + other.log_variance - self.log_variance).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density, summed over the last axis, ``float[...]``."""
        scaled = (value - self.mean).square() * (-self.log_variance).exp()
        return -0.5 * (scaled + self.log_variance + LOG_2PI).sum(-1)


DistributionT = TypeVar('DistributionT', bound=tuple[Tensor, ...])


def mapped(distribution: DistributionT, function: Callable[[Tensor], Tensor]) -> DistributionT:
    """Apply a function (a choice of rows, say) to every parameter of a distribution."""
    return type(distribution)(*map(function, distribution))


def scatter_rows(values: Tensor, rows: Tensor) -> Tensor:
    """
    Put values back to the rows that they belong to; the others are zero.

    :param values: ``[K, ...]``, of the K rows that are true.
    :param rows: ``bool[B]``.
    :returns: ``float[B, ...]``.
    """
    zeros = torch.zeros(len(rows), *values.shape[1:], device=values.device)
    return zeros.index_put((rows,), values.float())


@dataclass(frozen=True)
class Likelihood:
    """
    How a decoder's raw outputs describe the data.

    :param mean: expected data, of outputs ``float[B, ...]``, of the same shape.
    :param log_prob: log density of data given outputs, summed over all axes but the first:
        ``float[B]``.
    """

    mean: Callable[[Tensor], Tensor]
    log_prob: Callable[[Tensor, Tensor], Tensor]


def _gaussian(outputs: Tensor, data: Tensor) -> Tensor:
    """Sum of log N(x; sigmoid(outputs), 1)."""
    error = (torch.sigmoid(outputs) - data).square()
    return -0.5 * (error + LOG_2PI).flatten(1).sum(1)


def _optimal_sigma(outputs: Tensor, data: Tensor) -> Tensor:
    """
    Sum of log N(x; sigmoid(outputs), sigma^2), sigma^2 the batch's mean squared error.

    Rybkin et al. 2020, "Simple and effective VAE training with calibrated decoders", eq. 5.
    """
    error = (torch.sigmoid(outputs) - data).square().flatten(1)
    variance = error.mean().clamp_min(1e-6)
    return -0.5 * (error / variance + variance.log() + LOG_2PI).sum(1)


def _bernoulli(outputs: Tensor, data: Tensor) -> Tensor:
    """Negative binary cross-entropy of logits; data may lie between 0 and 1."""
    entropy = functional.binary_cross_entropy_with_logits(outputs, data, reduction='none')
    return -entropy.flatten(1).sum(1)


def _categorical(outputs: Tensor, data: Tensor) -> Tensor:
    """Log probability of the class, of logits; data one-hot or probabilities."""
    return (torch.log_softmax(outputs, dim=-1) * data).flatten(1).sum(1)


LIKELIHOODS = {
    'gaussian': Likelihood(torch.sigmoid, _gaussian),
    'optimal_sigma': Likelihood(torch.sigmoid, _optimal_sigma),
    'bernoulli': Likelihood(torch.sigmoid, _bernoulli),
    'categorical': Likelihood(partial(torch.softmax, dim=-1), _categorical),
}


def default_likelihood(kind: str) -> str:
    """Name of the likelihood of a kind of modality where the configuration names none."""
    return 'categorical' if kind == 'symbol' else 'optimal_sigma'


def likelihood_of(spec: ModalitySpec) -> Likelihood:
    """Likelihood of a modality, see :func:`find_likelihood`."""
    return find_likelihood(spec.likelihood or default_likelihood(spec.kind))


def find_likelihood(name: str) -> Likelihood:
    """
    Find a likelihood by name.

    :raises ConfigError: if there is none of that name.
    """
    if name not in LIKELIHOODS:
        known = ', '.join(LIKELIHOODS)
        raise ConfigError(f'unknown likelihood "{name}"; known: {known}')
    return LIKELIHOODS[name]
