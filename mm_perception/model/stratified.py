"""The stratified objective of MMVAE, with its estimators of the bound and of its gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from mm_perception.errors import ConfigError
from mm_perception.model.distributions import mapped
from mm_perception.model.experts import ExpertEncoder
from mm_perception.model.objectives import Batch, Level, Loss, log_likelihoods, weighted


@dataclass(frozen=True)
class StratifiedOptions:
    """
    Options of :func:`stratified_elbo`.

    :param importance_samples: K, samples per expert and row.
    :param estimator: ``elbo``, ``iwae`` or ``dreg``.
    :param posterior: ``gaussian`` or ``laplace``; the prior is of the same kind.
    """

    importance_samples: int = 1
    estimator: str = 'elbo'
    posterior: str = 'gaussian'

    def __post_init__(self) -> None:
        if self.estimator not in ESTIMATORS:
            known = ', '.join(ESTIMATORS)
            raise ConfigError(
                f'model.options.estimator: unknown "{self.estimator}"; known: {known}'
            )
        if self.importance_samples < 1:
            raise ConfigError('model.options.importance_samples: must be at least 1')


def average_weight(log_weights: Tensor, sample: Tensor) -> Tensor:
    """Mean of the log weights: a looser bound, one per sample."""
    return log_weights.mean(0)


def importance_weighted(log_weights: Tensor, sample: Tensor) -> Tensor:
    """
    Log of the mean weight over ``float[K, ...]``.

    Burda et al. 2015, eq. 8; Shi et al. 2019, eq. 3.
    """
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def doubly_reparametrised(log_weights: Tensor, sample: Tensor) -> Tensor:
    """
    The importance-weighted bound, with the doubly reparametrised gradient.

    :param log_weights: of a density q without gradient in its own parameters, ``[K, ...]``.
    :param sample: the samples, whose gradient is weighted once more.

    Tucker et al. 2019, eq. 8; Shi et al. 2019, section 3.
    """
    share = log_weights.detach().softmax(0)
    if sample.requires_grad:
        sample.register_hook(lambda gradient: gradient * share[..., None])
    surrogate = (share * log_weights).sum(0)
    bound = importance_weighted(log_weights.detach(), sample)
    return surrogate + (bound - surrogate).detach()


ESTIMATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    'elbo': average_weight,
    'iwae': importance_weighted,
    'dreg': doubly_reparametrised,
}


def stratified_elbo(level: Level, batch: Batch, options: StratifiedOptions) -> Loss:
    """
    Bound under the mixture of experts, with as many samples from each expert.

    Shi et al. 2019, eq. 3 and 5; Vasco et al. 2022, eq. 12.
    """
    encoder, present = level.joint, batch.present
    assert isinstance(encoder, ExpertEncoder)
    experts = encoder.experts(batch.codes, present)
    rows, modalities = present.shape
    count = options.importance_samples
    wide = mapped(experts, lambda p: p.transpose(0, 1).expand(count, modalities, rows, -1))
    sample = wide.sample(batch.generator)  # [K, M, B, D]
    detached = options.estimator == 'dreg'
    density = encoder.combine(mapped(experts, Tensor.detach) if detached else experts, present)
    log_prior = density.log_prior(sample)
    log_density = density.log_prob(sample)
    drawn = present.t().expand(count, modalities, rows)
    wanted = (present & drawn[..., None]).flatten(0, 2)
    found = log_likelihoods(level, batch, sample.flatten(0, 2), wanted)
    likelihood = weighted(level, found).view(count, modalities, rows)
    factor = level.spec.alpha * batch.warm_up
    bound = ESTIMATORS[options.estimator](likelihood + factor * (log_prior - log_density), sample)
    shares = present.t() / present.sum(1)  # a stratum per present expert
    means = found.sum(0) / wanted.sum(0).clamp_min(1)
    kl = ((log_density - log_prior).mean(0) * shares).sum(0).mean()
    terms = {'kl': kl, **dict(zip(level.spec.names, means))}
    return -(bound * shares).sum(0).mean(), terms
