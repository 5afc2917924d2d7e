"""Diagonal distributions and likelihoods: the only KL and likelihoods of the project."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from mm_perception.errors import ConfigError

LOG_2PI = math.log(2.0 * math.pi)


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


class DiagonalLaplace(NamedTuple):
    """
    Independent Laplace distributions.

    :param mean: ``float[..., D]``.
    :param log_scale: natural logarithm of the scales, ``float[..., D]``.
    """

    mean: Tensor
    log_scale: Tensor

    @property
    def std(self) -> Tensor:
        """Standard deviations, ``float[..., D]``."""
        return math.sqrt(2.0) * self.log_scale.exp()

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw one reparametrised sample, ``float[..., D]``."""
        uniform = torch.empty_like(self.mean).uniform_(-1.0, 1.0, generator=generator)
        tail = torch.log1p(-uniform.abs().clamp_max(1.0 - 1e-7))
        return self.mean - self.log_scale.exp() * uniform.sign() * tail

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density, summed over the last axis, ``float[...]``."""
        scaled = (value - self.mean).abs() * (-self.log_scale).exp()
        return -(scaled + self.log_scale + math.log(2.0)).sum(-1)

    def entropy(self) -> Tensor:
        """Differential entropy, summed over the last axis, ``float[...]``."""
        return (1.0 + math.log(2.0) + self.log_scale).sum(-1)

    @staticmethod
    def log_prior(value: Tensor) -> Tensor:
        """Log density under Laplace(0, 1), summed over the last axis, ``float[...]``."""
        return -(value.abs() + math.log(2.0)).sum(-1)

    def kl_to_prior(self) -> Tensor:
        """KL divergence to Laplace(0, 1), summed over the last axis, ``float[...]``."""
        distance, scale = self.mean.abs(), self.log_scale.exp()
        return (distance + scale * (-distance / scale).exp() - 1.0 - self.log_scale).sum(-1)


Diagonal: TypeAlias = DiagonalGaussian | DiagonalLaplace
POSTERIORS: dict[str, type[Diagonal]] = {
    'gaussian': DiagonalGaussian,
    'laplace': DiagonalLaplace,
}
DiagonalT = TypeVar('DiagonalT', bound=Diagonal)


def mapped(distribution: DiagonalT, function: Callable[[Tensor], Tensor]) -> DiagonalT:
    """Apply a function (a choice of rows, say) to every parameter of a distribution."""
    return type(distribution)(*(function(part) for part in distribution))


class Likelihood(ABC):
    """How a decoder's raw outputs describe the data."""

    @staticmethod
    @abstractmethod
    def mean(outputs: Tensor) -> Tensor:
        """Expected data, same shape as the outputs."""

    @staticmethod
    @abstractmethod
    def log_prob(outputs: Tensor, data: Tensor) -> Tensor:
        """Log-likelihood of the data, summed over all axes but the first: ``float[B]``."""


class Gaussian(Likelihood):
    """Unit-variance Gaussian around the sigmoid of the outputs."""

    @staticmethod
    def mean(outputs: Tensor) -> Tensor:
        """Sigmoid of the outputs."""
        return torch.sigmoid(outputs)

    @staticmethod
    def log_prob(outputs: Tensor, data: Tensor) -> Tensor:
        """Sum of log N(x; sigmoid(outputs), 1)."""
        error = (torch.sigmoid(outputs) - data).square()
        return -0.5 * (error + LOG_2PI).flatten(1).sum(1)


class OptimalSigma(Gaussian):
    """
    Gaussian whose one variance is the maximum-likelihood one of the batch.

    Rybkin et al. 2020, "Simple and effective VAE training with calibrated decoders", eq. 5.
    """

    @staticmethod
    def log_prob(outputs: Tensor, data: Tensor) -> Tensor:
        """Sum of log N(x; sigmoid(outputs), sigma^2), sigma^2 the batch's mean squared error."""
        error = (torch.sigmoid(outputs) - data).square().flatten(1)
        variance = error.mean().clamp_min(1e-6)
        return -0.5 * (error / variance + variance.log() + LOG_2PI).sum(1)


class Bernoulli(Likelihood):
    """Independent Bernoulli variables, outputs are logits; data may lie between 0 and 1."""

    @staticmethod
    def mean(outputs: Tensor) -> Tensor:
        """Sigmoid of the outputs."""
        return torch.sigmoid(outputs)

    @staticmethod
    def log_prob(outputs: Tensor, data: Tensor) -> Tensor:
        """Negative binary cross-entropy."""
        entropy = functional.binary_cross_entropy_with_logits(outputs, data, reduction='none')
        return -entropy.flatten(1).sum(1)


class Categorical(Likelihood):
    """One out of n classes, outputs are logits, data one-hot or probabilities."""

    @staticmethod
    def mean(outputs: Tensor) -> Tensor:
        """Class probabilities."""
        return torch.softmax(outputs, dim=-1)

    @staticmethod
    def log_prob(outputs: Tensor, data: Tensor) -> Tensor:
        """Log probability of the class."""
        return (torch.log_softmax(outputs, dim=-1) * data).flatten(1).sum(1)


LIKELIHOODS: dict[str, type[Likelihood]] = {
    'gaussian': Gaussian,
    'optimal_sigma': OptimalSigma,
    'bernoulli': Bernoulli,
    'categorical': Categorical,
}


def find_likelihood(name: str) -> type[Likelihood]:
    """
    Find a likelihood by name.

    :raises ConfigError: if there is none of that name.
    """
    if name not in LIKELIHOODS:
        known = ', '.join(LIKELIHOODS)
        raise ConfigError(f'unknown likelihood "{name}"; known: {known}')
    return LIKELIHOODS[name]
