"""Log-likelihoods where they are known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mm_perception.evaluation.likelihood import (
    Term,
    estimate_log_likelihood,
    measure_likelihood,
    paper_terms,
)
from tests.helpers.linear_gaussian import NAMES, LinearGaussianModel, log_density, sample_world

ROWS = 200


def tensors(dataset) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(values) for name, values in dataset.values.items()}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_likelihood_with_the_exact_posterior_needs_one_sample() -> None:
    _, dataset = sample_world(ROWS)
    found = estimate_log_likelihood(LinearGaussianModel(), tensors(dataset), NAMES, NAMES, 1)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, log_density(dataset.values, NAMES), atol=1e-4)


@pytest.mark.parametrize('evaluated', [('a',), ('a', 'b'), NAMES])
def test_likelihood_converges_to_the_closed_form(evaluated: tuple[str, ...]) -> None:
    _, dataset = sample_world(ROWS)
    found = estimate_log_likelihood(
        LinearGaussianModel(1.5), tensors(dataset), evaluated, evaluated, 2000, generator()
    )
    np.testing.assert_allclose(found, log_density(dataset.values, evaluated), atol=0.15)


def test_likelihood_is_a_lower_bound_that_tightens_with_samples() -> None:
    _, dataset = sample_world(1000)
    truth = log_density(dataset.values, ('a', 'b')).mean()
    bounds = [
        float(
            estimate_log_likelihood(
                LinearGaussianModel(1.5), tensors(dataset), ('a',), ('a', 'b'), k, generator()
            ).mean()
        )
        for k in (1, 5, 50, 1000)
    ]
    assert bounds == sorted(bounds)
    assert bounds[0] < truth - 1.0
    assert truth - 0.1 < bounds[-1] < truth + 0.02


def test_likelihood_does_not_depend_on_how_it_is_batched() -> None:
    _, dataset = sample_world(20)
    found = [
        estimate_log_likelihood(
            LinearGaussianModel(1.2), tensors(dataset), NAMES, NAMES, 3000, generator(), batch
        )
        for batch in (999, 7000, 10**6)
    ]
    np.testing.assert_allclose(found[0], found[1], atol=0.1)
    np.testing.assert_allclose(found[0], found[2], atol=0.1)


def test_likelihood_rows_are_those_of_the_paper() -> None:
    _, dataset = sample_world(ROWS)
    model = LinearGaussianModel(1.2)
    rows = measure_likelihood(model, dataset, paper_terms('a', 'b'), 2000)
    assert [(row.target, row.observed) for row in rows] == [
        ('a', ('a',)),
        ('a,b', ('a',)),
        ('a,b', ('b',)),
        ('a,b', ('a', 'b')),
        ('a|b', ('b',)),
    ]
    joint, second = (log_density(dataset.values, n) for n in (('a', 'b'), ('b',)))
    expected = [log_density(dataset.values, ('a',)), joint, joint, joint, joint - second]
    for row, values in zip(rows, expected):
        assert row.value == pytest.approx(values.mean(), abs=0.15)
        assert row.standard_error == pytest.approx(values.std() / np.sqrt(ROWS), rel=0.1)
        assert (row.metric, row.estimator, row.n) == ('log_likelihood', 'importance_2000', ROWS)


def test_likelihood_is_fixed_by_the_seed_and_not_by_other_terms() -> None:
    _, dataset = sample_world(30)
    model, term = LinearGaussianModel(1.5), Term(('a', 'b'), ('b',))
    alone = measure_likelihood(model, dataset, [term], 10, seed=3)[0].value
    among = measure_likelihood(model, dataset, [Term(('c',), ('c',)), term], 10, seed=3)[1].value
    other = measure_likelihood(model, dataset, [term], 10, seed=4)[0].value
    assert alone == among != other
