"""What makes an MHVAE: representation dropout, the conditional prior, two warm-ups."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from mm_perception.errors import ConfigError
from mm_perception.evaluation.likelihood import estimate_log_likelihood
from mm_perception.model.baselines.mhvae import MHVAE, representation_dropout
from mm_perception.model.build import build_model
from tests.helpers.tiny_models import (
    GRID,
    NAMES,
    SUBSETS,
    average_bound,
    average_log_weight,
    densities,
    fix_log_variance,
    integrate,
    likelihoods,
    rows,
    strong_model,
    symbols_spec,
    tiny_spec,
    train_on_pairs,
    what_is_generated,
)

BATCH = 16


def make(**options: object) -> tuple[MHVAE, dict[str, torch.Tensor], torch.Tensor]:
    torch.manual_seed(0)
    model = build_model(symbols_spec('mhvae', **options))
    assert isinstance(model, MHVAE)
    data = {name: torch.eye(3)[torch.randint(3, (BATCH,))] for name in NAMES}
    return model, data, torch.ones(BATCH, 2, dtype=torch.bool)


@pytest.mark.parametrize('rate', [0.2, 0.5, 0.9])
def test_dropout_is_bernoulli_given_that_one_is_kept(rate: float) -> None:
    count = 20_000
    present = torch.tensor([True, False, True, True]).expand(count, -1)
    seen = representation_dropout(present, rate, torch.Generator().manual_seed(0))
    found = Counter(map(tuple, seen.tolist()))
    possible = [key for key in found if any(key) and not key[1]]
    assert len(possible) == len(found) == 7
    for key in possible:
        expected = (1 - rate) ** sum(key) * rate ** (3 - sum(key)) / (1 - rate**3)
        assert found[key] / count == pytest.approx(expected, abs=0.015)


def test_dropout_of_rate_zero_keeps_all_and_one_alone_is_always_kept() -> None:
    present = torch.rand(500, 3) < 0.5
    assert torch.equal(representation_dropout(present, 0.0), present)
    alone = torch.eye(3, dtype=torch.bool).repeat(500, 1)
    assert torch.equal(representation_dropout(alone, 0.99), alone)


def test_dropout_of_nothing_recorded_is_nothing() -> None:
    nothing = torch.zeros(4, 3, dtype=torch.bool)
    assert not representation_dropout(nothing, 0.5).any()


def test_core_network_sees_zeros_for_what_is_absent() -> None:
    model, data, present = make()
    model.eval()
    codes = {name: model.encode(name, data[name]) for name in NAMES}
    present[:, 1] = False
    masked = model.fuse({**codes, 'right': torch.full_like(codes['right'], torch.nan)}, present)
    left_and_zeros = torch.cat((codes['left'], torch.zeros_like(codes['right'])), dim=1)
    torch.testing.assert_close(masked.mean, model.core(left_and_zeros).mean)
    assert not torch.equal(masked.mean, model.core(torch.cat(tuple(codes.values()), 1)).mean)


@pytest.mark.parametrize(('warm_up', 'factor'), [(0.0, 0.0), (0.1, 0.4), (0.25, 1.0), (1.0, 1.0)])
def test_loss_is_equation_13_with_two_warm_ups(warm_up: float, factor: float) -> None:
    spec = symbols_spec('mhvae', modality_warm_up_ratio=0.25)
    left, right = spec.modalities
    left, right = replace(left, likelihood_weight=2.0), replace(right, beta=3.0)
    model = build_model(replace(spec, modalities=(left, right), alpha=0.5))
    _, data, present = make()
    loss, terms = model.loss(data, present, warm_up)
    expected = (
        0.5 * warm_up * terms['kl']
        + factor * (terms['left.kl'] + 3.0 * terms['right.kl'])
        - 2.0 * terms['left.log_likelihood']
        - terms['right.log_likelihood']
    )
    torch.testing.assert_close(loss, expected)


def test_kl_to_the_conditional_prior_moves_both_sides_and_the_core() -> None:
    model, data, present = make()
    _, terms = model.loss(data, present)
    terms['left.kl'].backward()
    parts = (model.trunk('left'), model.conditionals['left'], model.core, model.trunk('right'))
    for part in parts:
        assert all(p.grad.abs().sum() > 0 for p in part.parameters() if p.dim() > 1)
    assert all(p.grad is None for p in model.conditionals['right'].parameters())


def test_what_was_not_recorded_adds_nothing_to_the_loss() -> None:
    model, data, present = make()
    present[: BATCH // 2, 1] = False
    garbage = {**data, 'right': data['right'].clone()}
    garbage['right'][: BATCH // 2] = 1e3
    found = []
    for version in (data, garbage):
        found.append(model.loss(version, present, 1.0, torch.Generator().manual_seed(1)))
    torch.testing.assert_close(found[0], found[1])


def test_a_modality_recorded_once_in_a_batch_waits_for_another_batch() -> None:
    model, data, present = make()
    present[1:, 1] = False
    loss, terms = model.loss(data, present)
    assert loss.isfinite() and 'right.kl' not in terms
    loss.backward()
    model.eval()
    assert 'right.kl' in model.loss(data, present)[1]


def test_sampling_below_the_core_varies_and_the_mean_does_not() -> None:
    model, _, _ = make()
    model.eval()
    joint = torch.randn(1, 4).expand(5, -1)
    assert torch.equal(*model.decode('left', joint)[:2])
    samples = model.decode_sample('left', joint, torch.Generator().manual_seed(0))
    assert samples.std(0).min() > 0


def test_training_lowers_the_loss_and_joins_the_modalities() -> None:
    model, _, _ = make()
    before, after = train_on_pairs(model)
    assert after < 0.9 * before
    for source, target in (NAMES, NAMES[::-1]):
        assert what_is_generated(model, source, target) == [0, 1, 2]


def wide_posteriors(**options: object) -> MHVAE:
    model = strong_model(tiny_spec('mhvae', **options))
    assert isinstance(model, MHVAE)
    fix_log_variance(model.core.parameters_of, 1.0)
    for name in NAMES:
        fix_log_variance(model.unimodal[name].encoder[-1], 1.0)
        fix_log_variance(model.conditionals[name].parameters_of, 0.0)
    return model


@pytest.mark.parametrize('observed', SUBSETS)
@pytest.mark.parametrize('evaluated', SUBSETS)
def test_importance_weights_give_the_integrated_likelihood(
    observed: tuple[str, ...], evaluated: tuple[str, ...]
) -> None:
    model, data = wide_posteriors(), rows()
    given_joint = {
        name: densities(model.conditional(name, GRID))
        @ likelihoods(model.unimodal[name].decoder, data[name])
        for name in NAMES
    }
    truth = integrate(given_joint, evaluated)
    found = estimate_log_likelihood(
        model, data, observed, evaluated, 20_000, torch.Generator().manual_seed(0)
    )
    torch.testing.assert_close(found, truth, rtol=0, atol=0.04)


def test_loss_is_the_average_importance_weight() -> None:
    model = wide_posteriors(dropout_rate=0.0)
    torch.manual_seed(0)
    found, expected = (f(model, rows(), 40_000) for f in (average_bound, average_log_weight))
    assert found == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'dropout_rate': 1.0}, 'dropout_rate: must be at least 0 and less than 1'),
        ({'modality_warm_up_ratio': 0.0}, 'modality_warm_up_ratio: must be more than 0'),
        ({'dropout': 0.5}, 'model.options.dropout: unknown key'),
    ],
)
def test_options_that_do_not_fit_are_explained(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        build_model(symbols_spec('mhvae', **options))
    assert '\n' not in str(error.value)
