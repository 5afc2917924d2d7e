"""Objectives and importance weights against known answers."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from mm_perception.model.base import MultimodalModel
from mm_perception.model.baselines.flat import FlatModel
from mm_perception.model.baselines.objectives import ESTIMATORS
from mm_perception.model.build import build_model
from mm_perception.model.distributions import DiagonalGaussian
from mm_perception.model.family import weighted
from mm_perception.model.nexus import Nexus
from mm_perception.spec import ModalitySpec, ModelSpec
from tests.helpers.model_specs import family_spec

ROWS = 12
TWO_LEVELS = ('nexus', 'nexus0', 'mvae', 'mmvae', 'mopoe')
FLAT = ('nexus_flat', 'mvae_flat', 'mmvae_flat', 'mopoe_flat', 'jmvae', 'avae')


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def two_numbers(family: str) -> ModelSpec:
    """Two vectors below latents of one number each: integrals are sums over a grid."""
    dense = {'type': 'dense', 'hidden': (8,), 'batch_norm': False}
    options = {
        'preprocessing': {'low': (0.0,) * 2, 'high': (1.0,) * 2},
        'network': dense,
        'likelihood': 'gaussian',
    }
    return ModelSpec(
        (ModalitySpec('a', 'vector', 1, **options), ModalitySpec('b', 'vector', 1, **options)),
        family=family,
        joint_latent_dim=1,
        message_dim=8,
        joint_hidden=(8,),
        decoder_hidden=(8,),
    )


def make(family: str, **options: object) -> tuple[MultimodalModel, dict[str, Tensor], Tensor]:
    torch.manual_seed(0)
    model = build_model(family_spec(family, options=options))
    data = {
        m.name: torch.rand(
            ROWS, *model.decode(m.name, torch.zeros(2, model.spec.joint_latent_dim)).shape[1:]
        )
        for m in model.spec.modalities
    }
    return model.eval(), data, torch.ones(ROWS, len(data), dtype=torch.bool)


def test_mixed_precision_does_not_round_log_likelihoods() -> None:
    """Of thousands of nats 16 bits leave tens, as much as samples differ by."""
    model, _, _ = make('mvae_flat')
    assert isinstance(model, FlatModel)
    found = -1e4 * torch.rand(ROWS, len(model.spec.names), generator=seeded())
    with torch.autocast('cpu', dtype=torch.bfloat16):
        mixed = weighted(model, found)
    torch.testing.assert_close(mixed, weighted(model, found))


def test_subsampled_elbo_is_the_sum_of_the_bounds_of_its_subsets() -> None:
    model, data, present = make('mvae_flat', random_subsets=0)
    assert isinstance(model, FlatModel)
    codes = {name: model.encode(name, values) for name, values in data.items()}
    expected = torch.zeros(())
    for seen in (present, *(present & column for column in torch.eye(4).bool())):
        kl = model.fuse(codes, seen).kl_to_prior().mean()
        expected = expected + model.spec.alpha * 0.5 * kl
    loss, terms = model.loss(data, present, 0.5, seeded())
    torch.testing.assert_close(0.5 * terms['kl'], expected)
    likelihood = sum(2 * terms[name] for name in data)  # each in all and alone
    torch.testing.assert_close(loss, expected - likelihood)


def test_subsampled_elbo_does_not_reconstruct_what_is_not_in_the_subset() -> None:
    model, data, present = make('mvae_flat', random_subsets=2)
    present[:, 1:] = False
    _, terms = model.loss(data, present, 1.0, seeded())
    assert all(terms[name] == 0 for name in model.spec.names[1:])
    assert terms[model.spec.names[0]] < 0


@pytest.mark.parametrize('posterior', ['gaussian', 'laplace'])
@pytest.mark.parametrize('family', ['mmvae', 'mmvae_flat'])
def test_importance_weighted_bound_is_tighter_than_the_elbo(family: str, posterior: str) -> None:
    losses = {}
    for estimator, samples in itertools.product(ESTIMATORS, (1, 8)):
        options = {
            'estimator': estimator, 'importance_samples': samples, 'posterior': posterior
        }  # fmt: skip
        model, data, present = make(family, **options)
        losses[estimator, samples] = model.loss(data, present, 1.0, seeded())[0].item()
    assert losses['iwae', 8] < losses['elbo', 8]
    assert losses['dreg', 8] == pytest.approx(losses['iwae', 8], rel=1e-5)
    for estimator in ESTIMATORS:
        assert losses[estimator, 1] == pytest.approx(losses['elbo', 1], rel=1e-5)


def linear_gaussian(estimator: str, seed: int) -> dict[str, Tensor]:
    """Gradients of log p(x) bounds per row for p(z) = N(0, 1), p(x | z) = N(w z, 1)."""
    rows, samples = 60_000, 4
    weight = torch.full((rows,), 1.3, requires_grad=True)
    mean = torch.full((rows, 1), 0.2, requires_grad=True)
    log_variance = torch.full((rows, 1), -0.6, requires_grad=True)
    q = DiagonalGaussian(mean, log_variance)
    wide = DiagonalGaussian(*(part.expand(samples, rows, 1) for part in q))
    sample = wide.sample(seeded(seed))
    density = DiagonalGaussian(*(p.detach() for p in q)) if estimator == 'dreg' else q
    likelihood = -0.5 * (1.5 - weight * sample[..., 0]).square()
    log_weights = likelihood + q.log_prior(sample) - density.log_prob(sample)
    ESTIMATORS[estimator](log_weights, sample).sum().backward()
    parameters = {'weight': weight, 'mean': mean, 'log_variance': log_variance}
    return {name: value.grad.flatten() for name, value in parameters.items()}  # type: ignore[union-attr]


def test_doubly_reparametrised_gradient_is_unbiased_and_calmer() -> None:
    dreg, iwae = linear_gaussian('dreg', 0), linear_gaussian('iwae', 1)
    for name in dreg:
        spread = math.sqrt((dreg[name].var() + iwae[name].var()) / len(dreg[name]))
        assert abs(dreg[name].mean() - iwae[name].mean()) < 4 * spread, name
        assert iwae[name].mean().abs() > 10 * spread, name
    for name in ('mean', 'log_variance'):
        assert dreg[name].var() < iwae[name].var()


def test_doubly_reparametrised_gradient_is_exactly_zero_at_the_true_posterior() -> None:
    variance = 1.0 / (1.0 + 1.3**2)
    mean = torch.full((50, 1), 1.3 * 1.5 * variance, requires_grad=True)
    log_variance = torch.full((50, 1), math.log(variance), requires_grad=True)
    q = DiagonalGaussian(mean, log_variance)
    sample = DiagonalGaussian(*(part.expand(6, 50, 1) for part in q)).sample(seeded())
    density = DiagonalGaussian(mean.detach(), log_variance.detach())
    likelihood = -0.5 * (1.5 - 1.3 * sample[..., 0]).square()
    log_weights = likelihood + q.log_prior(sample) - density.log_prob(sample)
    ESTIMATORS['dreg'](log_weights, sample).sum().backward()
    for parameter in (mean, log_variance):
        torch.testing.assert_close(parameter.grad, torch.zeros_like(parameter), atol=1e-5, rtol=0)


def test_surrogate_term_is_the_divergence_from_the_joint_posterior() -> None:
    model, data, present = make('jmvae', alpha_surrogate=0.7)
    codes = {name: model.encode(name, values) for name, values in data.items()}
    joint = model.fuse(codes, present)
    expected = torch.zeros(ROWS)
    for column in torch.eye(2).bool():
        expected = expected + joint.kl_to(model.fuse(codes, present & column))
    loss, terms = model.loss(data, present, 1.0, seeded())
    torch.testing.assert_close(terms['surrogate'], expected.mean())
    bound = terms['kl'] - sum(terms[name] for name in data)
    torch.testing.assert_close(loss, bound + 0.7 * terms['surrogate'])


def test_association_is_the_symmetric_divergence() -> None:
    model, data, present = make('avae', association_weight=0.3)
    codes = {name: model.encode(name, values) for name, values in data.items()}
    first, second = (model.fuse(codes, present & column) for column in torch.eye(2).bool())
    expected = (first.kl_to(second) + second.kl_to(first)).mean()
    loss, terms = model.loss(data, present, 1.0, seeded())
    torch.testing.assert_close(terms['association'], expected)
    bounds = terms['kl'] - sum(terms[name] for name in data)
    torch.testing.assert_close(loss, bounds + 0.3 * expected)
    torch.testing.assert_close(terms['kl'], (first.kl_to_prior() + second.kl_to_prior()).mean())


def log_evidence(model: MultimodalModel, data: dict[str, Tensor], names: tuple[str, ...]) -> float:
    """Log p(x) by sums over a fine grid of the joint latent, and of each unimodal one."""
    grid = torch.linspace(-7, 7, 701)[:, None]
    step = math.log(14 / 700)
    total = DiagonalGaussian.log_prior(grid) + step
    for name in names:
        if isinstance(model, FlatModel):
            total = total + model.log_likelihood(name, grid, data[name].expand(len(grid), -1))
            continue
        assert isinstance(model, Nexus)
        scale = model.top.scale[name]
        below = scale.inverse(grid)
        likelihood = model.unimodal[name].log_likelihood(below, data[name].expand(len(grid), -1))
        conditional = model.top.conditional(name, grid)
        inner = DiagonalGaussian(conditional.mean[:, None], conditional.log_variance[:, None])
        total = total + (inner.log_prob(grid[None]) + likelihood + step).logsumexp(1)
    return float(total.logsumexp(0))


@pytest.mark.parametrize('family', TWO_LEVELS + FLAT)
@torch.no_grad()
def test_importance_weights_estimate_the_evidence(family: str) -> None:
    torch.manual_seed(0)
    model = build_model(two_numbers(family)).eval()
    for name, parameter in model.named_parameters():
        # Data that depend on the latents, posteriors as wide as the priors: calm weights.
        parameter.mul_(2.0 if 'decoder' in name and not name.startswith('top') else 0.5)
    if isinstance(model, Nexus):
        model.top.scale['a'].mean.fill_(0.4)
        model.top.scale['a'].std.fill_(0.6)
    data = {'a': torch.tensor([[0.1, 0.9]]), 'b': torch.tensor([[0.8, 0.2]])}
    draws = 40_000
    many = {name: values.expand(draws, -1) for name, values in data.items()}
    names = ('a', 'b')
    for observed, evaluated in (
        (names, names), (('a',), names), (('b',), ('a',)), (('a',), ('a',)), (names, ('b',)),
    ):  # fmt: skip
        weights = model.log_weights(many, observed, evaluated, seeded())
        estimate = float(weights.logsumexp(0)) - math.log(draws)
        assert estimate == pytest.approx(log_evidence(model, data, evaluated), abs=0.03)
