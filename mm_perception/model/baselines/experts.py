"""Joint encoders that combine experts, one posterior per modality, and mixtures of them."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from mm_perception.errors import ConfigError
from mm_perception.model.distributions import DiagonalGaussian, Posterior, mapped
from mm_perception.model.joint_encoder import (
    Codes,
    Concatenation,
    JointEncoder,
    Sizes,
    joint_encoder,
    on_rows,
)
from mm_perception.model.networks import dense, split_posterior
from mm_perception.spec import ModelSpec


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


def most_certain(components: Diagonal, present: Tensor) -> Tensor:
    """Which present component has the least entropy, ``int64[B]``."""
    return components.entropy().masked_fill(~present, torch.inf).argmin(1)


class ExpertEncoder(JointEncoder):
    """An expert per modality, each a Gaussian over the joint latent."""

    kind: type[Diagonal] = DiagonalGaussian

    def __init__(self, spec: ModelSpec, sizes: Sizes | None) -> None:
        super().__init__(spec, sizes)
        self.outputs = self.message_dim = 2 * spec.joint_latent_dim
        self.experts_of = nn.ModuleDict(
            {
                name: nn.Identity() if sizes is None else _head(spec, sizes[name])
                for name in spec.names
            }
        )

    @staticmethod
    def code_dim(spec: ModelSpec) -> int:
        """Size of an expert's mean and log variance."""
        return 2 * spec.joint_latent_dim

    def experts(self, codes: Codes, present: Tensor) -> Diagonal:
        """Each modality's own posterior, ``float[B, M, D]``; meaningless where absent."""
        return self._stack(
            on_rows(self.experts_of[name], codes[name], present[:, column], self.outputs)
            for column, name in enumerate(self.names)
        )

    def message(self, name: str, code: Tensor) -> Tensor:
        """Parameters of a modality's expert, see :class:`JointEncoder`."""
        return self.experts_of[name](code)

    def fuse(self, messages: Codes, present: Tensor) -> Posterior:
        """Joint posterior, see :class:`JointEncoder`."""
        shown = (
            messages[name].masked_fill(~present[:, column, None], 0.0)
            for column, name in enumerate(self.names)
        )
        return self.combine(self._stack(shown), present)

    @abstractmethod
    def combine(self, experts: Diagonal, present: Tensor) -> Posterior:
        """Joint posterior of the experts present, ``bool[B, M]``."""

    def forward(self, codes: Codes, present: Tensor) -> Posterior:
        """Joint posterior; where absent, experts touch no batch statistics."""
        return self.combine(self.experts(codes, present), present)

    def _stack(self, outputs: Iterable[Tensor]) -> Diagonal:
        return self.kind(*split_posterior(torch.stack(list(outputs), dim=1)))


def product_of_experts(experts: Diagonal, present: Tensor, prior: float) -> DiagonalGaussian:
    """
    Multiply the present Gaussian experts.

    :param experts: ``float[B, M, D]``.
    :param present: ``bool[..., B, M]``.
    :param prior: precision of a prior expert with mean 0; 0 for none.

    Wu and Goodman 2018, section 2.2.
    """
    assert isinstance(experts, DiagonalGaussian)
    weights = present[..., None] * (-experts.log_variance).exp()
    precision = prior + weights.sum(-2)
    return DiagonalGaussian((weights * experts.mean).sum(-2) / precision, -precision.log())


@joint_encoder('product')
class ProductOfExperts(ExpertEncoder):
    """Product of the present experts and a prior expert N(0, 1)."""

    def combine(self, experts: Diagonal, present: Tensor) -> DiagonalGaussian:
        """Multiply, see :class:`ExpertEncoder`."""
        return product_of_experts(experts, present, 1.0)


@joint_encoder('mixture')
class MixtureOfExperts(ExpertEncoder):
    """
    Uniform mixture of the present experts; the most certain one is published.

    Shi et al. 2019, section 3; ``options.posterior`` may be ``laplace``.
    """

    fuses = False
    gaussian = False

    def __init__(self, spec: ModelSpec, sizes: Sizes | None) -> None:
        super().__init__(spec, sizes)
        name = str(spec.options.get('posterior', 'gaussian'))
        if name not in POSTERIORS:
            known = ', '.join(POSTERIORS)
            raise ConfigError(f'model.options.posterior: unknown "{name}"; known: {known}')
        self.kind = POSTERIORS[name]

    def combine(self, experts: Diagonal, present: Tensor) -> Mixture:
        """Mix, see :class:`ExpertEncoder`."""
        return Mixture(experts, present, most_certain(experts, present))


@joint_encoder('mixture_of_products')
class MixtureOfProducts(ExpertEncoder):
    """
    Uniform mixture, over all non-empty subsets of those present, of products of experts.

    The product of all that are present is published.

    Sutter et al. 2021, "Generalized multimodal ELBO", eq. 8-9.
    """

    subsets: Tensor
    gaussian = False

    def __init__(self, spec: ModelSpec, sizes: Sizes | None) -> None:
        super().__init__(spec, sizes)
        count = len(spec.names)
        numbers = torch.arange(1, 2**count)[:, None]
        subsets = numbers.bitwise_and(2 ** torch.arange(count)) > 0
        self.register_buffer('subsets', subsets, persistent=False)

    def combine(self, experts: Diagonal, present: Tensor) -> Mixture:
        """Mix the products, see :class:`ExpertEncoder`."""
        products = product_of_experts(
            mapped(experts, lambda part: part[:, None]), self.subsets[None], 0.0
        )
        possible = (~self.subsets | present[:, None]).all(-1)
        largest = (possible * self.subsets.sum(1)).argmax(1)
        return Mixture(products, possible, largest)


@joint_encoder('most_certain')
class MostCertainExpert(ExpertEncoder):
    """The most certain of the present experts: there is no joint one."""

    fuses = False

    def combine(self, experts: Diagonal, present: Tensor) -> Diagonal:
        """Choose, see :class:`ExpertEncoder`."""
        return pick(experts, most_certain(experts, present))


@joint_encoder('surrogates')
class Surrogates(MostCertainExpert):
    """A joint encoder where all modalities are present, else a modality's surrogate expert."""

    fuses = True

    def __init__(self, spec: ModelSpec, sizes: Sizes | None) -> None:
        messages = sizes or dict.fromkeys(spec.names, spec.message_dim)
        super().__init__(spec, messages)
        self.together = Concatenation(spec, messages)
        self.message_dim = self.together.message_dim + self.outputs

    @staticmethod
    def code_dim(spec: ModelSpec) -> int:
        """Size of a message, which the joint encoder and the surrogates share."""
        return spec.message_dim

    def message(self, name: str, code: Tensor) -> Tensor:
        """Message to the joint encoder and the surrogate's parameters, side by side."""
        return torch.cat([self.together.message(name, code), super().message(name, code)], dim=1)

    def fuse(self, messages: Codes, present: Tensor) -> DiagonalGaussian:
        """Joint posterior, see :class:`JointEncoder`."""
        width = self.together.message_dim
        together = self.together.fuse({n: m[:, :width] for n, m in messages.items()}, present)
        alone = super().fuse({n: m[:, width:] for n, m in messages.items()}, present)
        return _choose(together, alone, present)

    def forward(self, codes: Codes, present: Tensor) -> DiagonalGaussian:
        """Joint posterior, see :class:`ExpertEncoder`."""
        return _choose(self.together(codes, present), super().forward(codes, present), present)


def _choose(together: Posterior, alone: Posterior, present: Tensor) -> DiagonalGaussian:
    assert isinstance(together, DiagonalGaussian) and isinstance(alone, DiagonalGaussian)
    complete = present.all(1, keepdim=True)
    return DiagonalGaussian(*(torch.where(complete, *part) for part in zip(together, alone)))


def _head(spec: ModelSpec, size: int) -> nn.Module:
    layers = (size, spec.message_dim, *spec.joint_hidden)
    return nn.Sequential(
        dense(layers, 'leaky_relu', True), nn.Linear(layers[-1], 2 * spec.joint_latent_dim)
    )
