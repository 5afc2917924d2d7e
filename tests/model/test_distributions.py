"""KL divergences and likelihoods against Monte Carlo and torch.distributions."""

import pytest
import torch
from torch import distributions

from mm_perception.errors import ConfigError
from mm_perception.model.baselines.experts import DiagonalLaplace
from mm_perception.model.distributions import DiagonalGaussian, find_likelihood


def gaussian(seed: int, rows: int = 4, size: int = 3) -> DiagonalGaussian:
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(rows, size, generator=generator)
    return DiagonalGaussian(mean, torch.randn(rows, size, generator=generator))


def test_kl_to_prior_equals_monte_carlo() -> None:
    torch.manual_seed(0)
    q = gaussian(1)
    standard = DiagonalGaussian(torch.zeros_like(q.mean), torch.zeros_like(q.mean))
    wide = DiagonalGaussian(*(part.expand(200_000, *part.shape) for part in q))
    sample = wide.sample()
    estimate = (wide.log_prob(sample) - standard.log_prob(sample)).mean(0)
    torch.testing.assert_close(q.kl_to_prior(), estimate, rtol=0.02, atol=0.02)


def test_laplace_equals_torch_and_monte_carlo() -> None:
    torch.manual_seed(0)
    q = DiagonalLaplace(*gaussian(1))
    reference = distributions.Laplace(q.mean, q.log_scale.exp())
    prior = distributions.Laplace(0.0, 1.0)
    value = torch.randn(4, 3)
    torch.testing.assert_close(q.std, reference.stddev)
    torch.testing.assert_close(q.entropy(), reference.entropy().sum(-1))
    torch.testing.assert_close(q.log_prob(value), reference.log_prob(value).sum(-1))
    torch.testing.assert_close(q.log_prior(value), prior.log_prob(value).sum(-1))
    wide = DiagonalLaplace(*(part.expand(200_000, *part.shape) for part in q))
    sample = wide.sample()
    torch.testing.assert_close(sample.mean(0) / q.std, q.mean / q.std, rtol=0.0, atol=0.01)
    torch.testing.assert_close(sample.std(0) / q.std, torch.ones(4, 3), rtol=0.0, atol=0.02)
    estimate = (wide.log_prob(sample) - wide.log_prior(sample)).mean(0)
    torch.testing.assert_close(q.kl_to_prior(), estimate, rtol=0.02, atol=0.02)


def test_gaussian_entropy_and_prior_equal_torch() -> None:
    q, value = gaussian(1), torch.randn(4, 3)
    reference = distributions.Normal(q.mean, q.std)
    torch.testing.assert_close(q.entropy(), reference.entropy().sum(-1))
    expected = distributions.Normal(0.0, 1.0).log_prob(value).sum(-1)
    torch.testing.assert_close(q.log_prior(value), expected)


def test_kl_between_gaussians_equals_torch() -> None:
    q, p = gaussian(1), gaussian(2)
    expected = distributions.kl_divergence(
        distributions.Normal(q.mean, q.std), distributions.Normal(p.mean, p.std)
    ).sum(-1)
    torch.testing.assert_close(q.kl_to(p), expected)


def test_log_prob_equals_torch() -> None:
    q, value = gaussian(1), torch.randn(4, 3)
    expected = distributions.Normal(q.mean, q.std).log_prob(value).sum(-1)
    torch.testing.assert_close(q.log_prob(value), expected)


def test_sample_has_the_mean_and_std() -> None:
    torch.manual_seed(0)
    q = gaussian(3)
    samples = torch.stack([q.sample() for _ in range(20_000)])
    torch.testing.assert_close(samples.mean(0), q.mean, rtol=0.05, atol=0.05)
    torch.testing.assert_close(samples.std(0), q.std, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('gaussian', lambda o, x: distributions.Normal(o.sigmoid(), 1.0).log_prob(x)),
        ('bernoulli', lambda o, x: distributions.Bernoulli(logits=o).log_prob(x.round())),
    ],
)
def test_likelihood_equals_torch(name: str, expected: object) -> None:
    outputs, data = torch.randn(5, 2, 3), torch.rand(5, 2, 3)
    data = data.round() if name == 'bernoulli' else data
    value = find_likelihood(name).log_prob(outputs, data)
    torch.testing.assert_close(value, expected(outputs, data).flatten(1).sum(1))


def test_categorical_likelihood_equals_torch() -> None:
    logits, classes = torch.randn(6, 4), torch.randint(4, (6,))
    value = find_likelihood('categorical').log_prob(logits, torch.eye(4)[classes])
    expected = distributions.Categorical(logits=logits).log_prob(classes)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(find_likelihood('categorical').mean(logits).sum(1), torch.ones(6))


def test_optimal_sigma_is_the_best_shared_variance() -> None:
    outputs, data = torch.randn(8, 5), torch.rand(8, 5)
    best = find_likelihood('optimal_sigma').log_prob(outputs, data).sum()
    optimum = (outputs.sigmoid() - data).square().mean().sqrt()
    for factor in (0.8, 0.99, 1.0, 1.01, 1.3):
        other = distributions.Normal(outputs.sigmoid(), factor * optimum).log_prob(data).sum()
        assert best >= other - 1e-3
        if factor == 1.0:
            torch.testing.assert_close(best, other)


def test_unknown_likelihood_lists_the_known() -> None:
    with pytest.raises(ConfigError, match='known: gaussian'):
        find_likelihood('laplace?')
