"""Products and mixtures of experts against their definitions."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from scipy.special import logsumexp
from scipy.stats import laplace, norm

from mm_perception.model.baselines.experts import (
    Diagonal,
    DiagonalLaplace,
    Mixture,
    MixtureOfExperts,
    MixtureOfProducts,
    MostCertainExpert,
    ProductOfExperts,
    Surrogates,
)
from mm_perception.model.distributions import DiagonalGaussian
from tests.helpers.model_specs import family_spec

SPEC = family_spec('mopoe')
ROWS, COUNT, SIZE = 5, 4, 3


def experts(kind: type[Diagonal] = DiagonalGaussian) -> Diagonal:
    generator = torch.Generator().manual_seed(0)
    shape = (ROWS, COUNT, SIZE)
    return kind(
        torch.randn(shape, generator=generator), 0.5 * torch.randn(shape, generator=generator)
    )


PRESENT = torch.tensor(
    [[1, 1, 1, 1], [1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0], [1, 1, 1, 0]], dtype=torch.bool
)


def test_product_of_experts_is_the_normalised_product() -> None:
    joint = ProductOfExperts(SPEC, None).combine(experts(), PRESENT)
    grid = np.linspace(-8, 8, 40_001)
    for row, column in itertools.product(range(ROWS), range(SIZE)):
        density = norm.pdf(grid)
        for m in PRESENT[row].nonzero().flatten().tolist():
            expert = experts()
            density = density * norm.pdf(
                grid, expert.mean[row, m, column], expert.std[row, m, column]
            )
        density /= np.trapezoid(density, grid)
        mean = np.trapezoid(grid * density, grid)
        variance = np.trapezoid((grid - mean) ** 2 * density, grid)
        np.testing.assert_allclose(joint.mean[row, column], mean, atol=1e-5)
        np.testing.assert_allclose(joint.std[row, column] ** 2, variance, rtol=1e-4)


def test_product_of_experts_is_surer_with_every_expert() -> None:
    encoder, before = ProductOfExperts(SPEC, None), torch.ones(ROWS, SIZE)
    for count in range(1, COUNT + 1):
        present = (torch.arange(COUNT) < count).expand(ROWS, -1)
        std = encoder.combine(experts(), present).std
        assert (std < before).all()
        before = std


def test_product_of_no_expert_is_the_prior() -> None:
    joint = ProductOfExperts(SPEC, None).combine(experts(), torch.zeros_like(PRESENT))
    torch.testing.assert_close(joint.mean, torch.zeros(ROWS, SIZE))
    torch.testing.assert_close(joint.std, torch.ones(ROWS, SIZE))


def test_mixture_density_equals_scipy() -> None:
    value = torch.randn(ROWS, SIZE, generator=torch.Generator().manual_seed(1))
    for kind, reference in ((DiagonalGaussian, norm), (DiagonalLaplace, laplace)):
        expert = experts(kind)
        spread = expert.std if kind is DiagonalGaussian else expert.std / 2**0.5
        joint = MixtureOfExperts(SPEC, None).combine(expert, PRESENT)
        for row in range(ROWS):
            each = [
                reference.logpdf(value[row], expert.mean[row, m], spread[row, m]).sum()
                for m in PRESENT[row].nonzero().flatten()
            ]
            expected = logsumexp(each) - np.log(len(each))
            np.testing.assert_allclose(joint.log_prob(value)[row], expected, rtol=1e-5)
        expected = reference.logpdf(value).sum(1)
        np.testing.assert_allclose(joint.log_prior(value), expected, rtol=1e-5)


def test_mixture_samples_come_from_present_components_alike() -> None:
    count = 30_000
    means = torch.tensor([[-20.0], [0.0], [20.0]]).expand(count, 3, 1)
    present = torch.tensor([True, False, True]).expand(count, -1)
    components = DiagonalGaussian(means, torch.zeros_like(means))
    mixture = Mixture(components, present, torch.zeros(count, dtype=torch.long))
    sample = mixture.sample(torch.Generator().manual_seed(0))
    assert (sample.abs() > 10).all()
    assert abs((sample > 0).float().mean() - 0.5) < 0.02
    assert abs(sample[sample > 0].std() - 1.0) < 0.03


def test_mixture_kl_is_a_bound_on_monte_carlo() -> None:
    count = 50_000
    expert = DiagonalGaussian(*(part[:1].expand(count, -1, -1) for part in experts()))
    present = PRESENT[:1].expand(count, -1)
    mixture = MixtureOfExperts(SPEC, None).combine(expert, present)
    sample = mixture.sample(torch.Generator().manual_seed(0))
    estimate = (mixture.log_prob(sample) - mixture.log_prior(sample)).mean()
    assert estimate < mixture.kl_to_prior()[0]
    one = PRESENT[1:2].expand(count, -1)
    mixture = MixtureOfExperts(SPEC, None).combine(expert, one)
    sample = mixture.sample(torch.Generator().manual_seed(0))
    estimate = (mixture.log_prob(sample) - mixture.log_prior(sample)).mean()
    torch.testing.assert_close(estimate, mixture.kl_to_prior()[0], rtol=0.02, atol=0.02)


def test_mixture_publishes_its_most_certain_component() -> None:
    joint = MixtureOfExperts(SPEC, None).combine(experts(), PRESENT)
    alone = MostCertainExpert(SPEC, None).combine(experts(), PRESENT)
    for row in range(ROWS):
        seen = PRESENT[row].nonzero().flatten()
        best = seen[experts().log_variance[row, seen].sum(1).argmin()]
        for chosen in (joint, alone):
            torch.testing.assert_close(chosen.mean[row], experts().mean[row, best])
            torch.testing.assert_close(chosen.std[row], experts().std[row, best])


def product(row: int, members: tuple[int, ...]) -> DiagonalGaussian:
    expert = experts()
    precision = sum(1.0 / expert.std[row, m] ** 2 for m in members)
    mean = sum(expert.mean[row, m] / expert.std[row, m] ** 2 for m in members) / precision
    return DiagonalGaussian(mean, -precision.log())


def test_mixture_of_products_equals_a_loop_over_subsets() -> None:
    joint = MixtureOfProducts(SPEC, None).combine(experts(), PRESENT)
    value = torch.randn(ROWS, SIZE, generator=torch.Generator().manual_seed(1))
    for row in range(ROWS):
        seen = PRESENT[row].nonzero().flatten().tolist()
        parts = [
            product(row, members)
            for size in range(1, len(seen) + 1)
            for members in itertools.combinations(seen, size)
        ]
        density = torch.stack([part.log_prob(value[row]) for part in parts]).logsumexp(0)
        expected = density - np.log(len(parts))
        torch.testing.assert_close(joint.log_prob(value)[row], expected)
        torch.testing.assert_close(joint.mean[row], parts[-1].mean)
        torch.testing.assert_close(joint.std[row], parts[-1].std)


def test_surrogates_stand_in_only_where_a_modality_is_absent() -> None:
    torch.manual_seed(0)
    spec = family_spec('jmvae')
    encoder = Surrogates(spec, None).eval()
    codes = {name: torch.randn(3, spec.message_dim) for name in spec.names}
    present = torch.tensor([[True, True], [True, False], [False, True]])
    joint = encoder(codes, present)
    both = torch.ones_like(present)
    torch.testing.assert_close(joint.mean[0], encoder.together(codes, both).mean[0])
    alone = encoder.experts(codes, present)
    torch.testing.assert_close(joint.mean[1], alone.mean[1, 0])
    torch.testing.assert_close(joint.std[2], alone.std[2, 1])
