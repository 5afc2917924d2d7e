"""Objectives of the baseline families: MoPoE, MVAE, JMVAE, associative VAE and MMVAE."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mm_perception.errors import ConfigError
from mm_perception.model.baselines.experts import Diagonal, ExpertEncoder, Surrogates
from mm_perception.model.distributions import DiagonalGaussian, mapped
from mm_perception.model.family import (
    Batch,
    Level,
    Loss,
    NoOptions,
    elbo_of,
    log_likelihoods,
    masked_mean,
    weighted,
)
from mm_perception.model.joint_encoder import forced_perceptual_dropout


@dataclass(frozen=True)
class SubsampledOptions:
    """
    Options of :func:`subsampled_elbo`.

    :param random_subsets: random subsets per step beside all and each alone; used with more
        than two modalities.
    """

    random_subsets: int = 1


@dataclass(frozen=True)
class SurrogateOptions:
    """Options of :func:`surrogate_elbo`: weight of the KL divergences to the surrogates."""

    alpha_surrogate: float = 0.1


@dataclass(frozen=True)
class AssociationOptions:
    """Options of :func:`association_loss`: lambda, the weight of the symmetric KL divergence."""

    association_weight: float = 1.0


def elbo(level: Level, batch: Batch, options: NoOptions) -> Loss:
    """
    Evidence lower bound of all that was recorded.

    With a mixture of products it is that of MoPoE: the joint latent is drawn from the whole
    mixture and its KL divergence is bounded by the average over the subsets.

    Sutter et al. 2021, eq. 7.
    """
    return elbo_of(level, batch, level.joint(batch.codes, batch.present))


def subsampled_elbo(level: Level, batch: Batch, options: SubsampledOptions) -> Loss:
    """
    Sum of the lower bounds of all modalities, of each alone, and of random subsets.

    Wu and Goodman 2018, section 2.3; Vasco et al. 2022, eq. 9-11.
    """
    subsets = [batch.present]
    if batch.present.shape[1] > 1:
        subsets += _alone(batch.present)
    if batch.present.shape[1] > 2:
        subsets += [
            forced_perceptual_dropout(batch.present, 1.0, batch.generator)
            for _ in range(options.random_subsets)
        ]
    _, loss, terms = _elbo_of_subsets(level, batch, subsets)
    return loss, terms


def surrogate_elbo(level: Level, batch: Batch, options: SurrogateOptions) -> Loss:
    """
    Lower bound under the joint encoder, and its KL divergences to the unimodal surrogates.

    Rows with one modality give the lower bound under its surrogate.

    Suzuki et al. 2016, eq. 8; Suzuki and Matsuo 2022, eq. 14.
    """
    encoder = level.joint
    assert isinstance(encoder, Surrogates)
    joint = encoder(batch.codes, batch.present)
    loss, terms = elbo_of(level, batch, joint)
    experts = encoder.experts(batch.codes, batch.present)
    assert isinstance(experts, DiagonalGaussian)
    gap = mapped(joint, lambda part: part[:, None]).kl_to(experts).sum(1)
    terms['surrogate'] = masked_mean(gap, batch.present.all(1))
    return loss + batch.warm_up * options.alpha_surrogate * terms['surrogate'], terms


def association_loss(level: Level, batch: Batch, options: AssociationOptions) -> Loss:
    """
    Sum of the unimodal lower bounds, and the symmetric KL divergence of the two posteriors.

    Yin et al. 2017; Vasco et al. 2022, eq. 6-8.
    """
    experts, loss, terms = _elbo_of_subsets(level, batch, _alone(batch.present))
    assert isinstance(experts, DiagonalGaussian)
    gap = experts.kl_to(mapped(experts, lambda part: part.flip(1))).sum(1)
    terms['association'] = masked_mean(gap, batch.present.all(1))
    return loss + batch.warm_up * options.association_weight * terms['association'], terms


def _alone(present: Tensor) -> list[Tensor]:
    columns = torch.eye(present.shape[1], dtype=torch.bool, device=present.device)
    return [present & column for column in columns]


def _elbo_of_subsets(
    level: Level, batch: Batch, subsets: list[Tensor]
) -> tuple[Diagonal, Tensor, dict[str, Tensor]]:
    """Sum over subsets ``bool[B, M]`` of the bound of what is in them, from one pass."""
    encoder = level.joint
    assert isinstance(encoder, ExpertEncoder)
    experts = encoder.experts(batch.codes, batch.present)
    wanted, count = torch.cat(subsets), len(subsets)
    joint = encoder.combine(mapped(experts, lambda part: part.repeat(count, 1, 1)), wanted)
    found = log_likelihoods(level, batch, joint.sample(batch.generator), wanted)
    rows = len(batch.present)
    kl = (joint.kl_to_prior() * wanted.any(1)).sum() / rows
    likelihood = weighted(level, found).sum() / rows
    means = found.sum(0) / wanted.sum(0).clamp_min(1)
    terms = {'kl': kl, **dict(zip(level.spec.names, means))}
    return experts, level.spec.alpha * batch.warm_up * kl - likelihood, terms


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
