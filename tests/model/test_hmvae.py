"""What makes an HMVAE: depth, top-down posteriors, a mixture of experts above them."""

import math
from dataclasses import replace

import pytest
import torch

from mm_perception.errors import ConfigError
from mm_perception.evaluation.likelihood import estimate_log_likelihood
from mm_perception.model.baselines.hmvae import HMVAE
from mm_perception.model.build import build_model
from mm_perception.model.distributions import DiagonalGaussian
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
DEEP = {'left': 3, 'right': 2}


def make(**options: object) -> tuple[HMVAE, dict[str, torch.Tensor], torch.Tensor]:
    torch.manual_seed(0)
    model = build_model(symbols_spec('hmvae', **options))
    assert isinstance(model, HMVAE)
    data = {name: torch.eye(3)[torch.randint(3, (BATCH,))] for name in NAMES}
    return model, data, torch.ones(BATCH, 2, dtype=torch.bool)


@pytest.mark.parametrize(
    ('options', 'levels'),
    [({}, (1, 1)), ({'depth': 4}, (3, 3)), ({'depth': DEEP}, (2, 1)), ({'depth': {}}, (1, 1))],
)
def test_depth_counts_the_shared_latent(options: dict, levels: tuple[int, int]) -> None:
    model, data, present = make(**options)
    assert tuple(len(model.ladders[name].levels) for name in NAMES) == levels
    model.loss(data, present)[0].backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ('depth', 'message'),
    [
        (1, 'model.options.depth: left needs a whole number from 2 on, not 1'),
        ({'right': 2.5}, 'model.options.depth: right needs a whole number from 2 on, not 2.5'),
        (True, 'not True'),
        ('deep', "not 'deep'"),
        ({'nose': 2}, 'no modality "nose"'),
    ],
)
def test_a_depth_that_cannot_be_built_is_explained(depth: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        build_model(symbols_spec('hmvae', depth=depth))
    assert '\n' not in str(error.value)


def test_prior_and_posterior_share_the_top_down_network() -> None:
    model, _, _ = make()
    level = model.ladders['left'].levels[0]
    above, bottom_up = torch.randn(2, 4), torch.randn(2, 16)
    before = level(above, bottom_up)
    torch.testing.assert_close(before[1], level.prior(above))
    with torch.no_grad():
        for parameter in level.top_down.parameters():
            parameter += 0.1
    after = level(above, bottom_up)
    for old, new in zip(before, after):
        assert not torch.allclose(old.mean, new.mean)
    torch.testing.assert_close(after[1], level.prior(above))


def test_posteriors_depend_on_what_is_above_and_on_the_data() -> None:
    model, data, _ = make(depth=DEEP)
    model.eval()
    ladder = model.ladders['left']
    states, others = (ladder.states(x) for x in (data['left'], data['left'].flip(1)))
    joint = torch.randn(BATCH, 4)

    def infer(joint: torch.Tensor, states: list[torch.Tensor]) -> list[torch.Tensor]:
        steps = ladder.infer(joint, states, torch.Generator().manual_seed(0))
        return [step.posterior.mean for step in steps]

    reference = infer(joint, states)
    assert len(reference) == 2
    for changed in (infer(joint + 1.0, states), infer(joint, others)):
        for old, new in zip(reference, changed):
            assert not torch.allclose(old, new)


def test_one_modality_shapes_the_latents_of_another() -> None:
    model, data, present = make(depth=DEEP)
    right = data['right'].requires_grad_()
    _, terms = model.loss(data, present)
    terms['left.kl'].backward()
    assert right.grad is not None and right.grad.abs().sum() > 0


def test_the_most_certain_expert_is_published() -> None:
    model, data, present = make()
    model.eval()
    codes = {name: model.encode(name, data[name]) for name in NAMES}
    codes['right'][:, 4:] = -9.0
    assert not model.fuses
    torch.testing.assert_close(model.fuse(codes, present).mean, codes['right'][:, :4])
    present[:, 1] = False
    torch.testing.assert_close(model.fuse(codes, present).mean, codes['left'][:, :4])


def test_loss_is_the_weighted_bound() -> None:
    spec = symbols_spec('hmvae')
    left, right = spec.modalities
    left, right = replace(left, likelihood_weight=2.0), replace(right, beta=3.0)
    model = build_model(replace(spec, modalities=(left, right), alpha=0.5))
    _, data, present = make()
    loss, terms = model.loss(data, present, 0.5)
    expected = (
        0.5 * 0.5 * terms['kl']
        + 0.5 * (terms['left.kl'] + 3.0 * terms['right.kl'])
        - 2.0 * terms['left.log_likelihood']
        - terms['right.log_likelihood']
    )
    torch.testing.assert_close(loss, expected)


def test_kl_of_the_shared_latent_is_that_of_the_whole_mixture() -> None:
    model, data, _ = make()
    for name, mean in zip(NAMES, (3.0, -3.0)):
        head = model.ladders[name].expert.parameters_of
        torch.nn.init.zeros_(head.weight)
        head.bias.data = torch.tensor([mean] * 4 + [-4.0] * 4)
    data = {name: value.repeat(200, 1) for name, value in data.items()}
    present = torch.ones(200 * BATCH, 2, dtype=torch.bool)
    _, terms = model.loss(data, present, generator=torch.Generator().manual_seed(0))
    one = DiagonalGaussian(torch.full((4,), 3.0), torch.full((4,), -4.0)).kl_to_prior()
    assert terms['kl'].item() == pytest.approx(float(one) - math.log(2.0), abs=0.05)
    present[:, 0] = False
    _, terms = model.loss(data, present, generator=torch.Generator().manual_seed(0))
    assert terms['kl'].item() == pytest.approx(float(one), abs=0.05)


def test_what_was_not_recorded_adds_nothing_to_the_loss() -> None:
    model, data, present = make(depth=DEEP)
    present[: BATCH // 2, 1] = False
    garbage = {**data, 'right': data['right'].clone()}
    garbage['right'][: BATCH // 2] = torch.nan
    found = []
    for version in (data, garbage):
        found.append(model.loss(version, present, 1.0, torch.Generator().manual_seed(1)))
    torch.testing.assert_close(found[0], found[1])


def test_a_row_whose_modality_is_alone_in_its_batch_waits() -> None:
    model, data, present = make()
    present[:, 1] = False
    present[0] = torch.tensor([False, True])
    loss, terms = model.loss(data, present)
    loss.backward()
    assert 'right.kl' not in terms
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    present[:, 0] = False
    assert model.loss(data, present)[0] == 0.0
    model.eval()
    assert 'right.kl' in model.loss(data, present)[1]


def test_sampling_down_the_hierarchy_varies_and_means_do_not() -> None:
    model, _, _ = make(depth=DEEP)
    model.eval()
    joint = torch.randn(1, 4).expand(5, -1)
    for name in NAMES:
        assert torch.equal(*model.decode(name, joint)[:2])
        samples = model.decode_sample(name, joint, torch.Generator().manual_seed(0))
        assert samples.std(0).min() > 0


@pytest.mark.parametrize('depth', [2, 3])
def test_training_lowers_the_loss_and_joins_the_modalities(depth: int) -> None:
    model, _, _ = make(depth=depth)
    before, after = train_on_pairs(model)
    assert after < 0.75 * before
    for source, target in (NAMES, NAMES[::-1]):
        assert what_is_generated(model, source, target) == [0, 1, 2]


def wide_posteriors() -> HMVAE:
    model = strong_model(tiny_spec('hmvae', depth=DEEP))
    assert isinstance(model, HMVAE)
    for name in NAMES:
        fix_log_variance(model.ladders[name].expert.parameters_of, 1.0)
        for level in model.ladders[name].levels:
            fix_log_variance(level.merge.parameters_of, 1.0)
            fix_log_variance(level.prior_of.parameters_of, 0.0)
    return model


@pytest.mark.parametrize('observed', SUBSETS)
@pytest.mark.parametrize('evaluated', SUBSETS)
def test_importance_weights_give_the_integrated_likelihood(
    observed: tuple[str, ...], evaluated: tuple[str, ...]
) -> None:
    model, data = wide_posteriors(), rows()
    given_joint = {}
    for name in NAMES:
        ladder = model.ladders[name]
        given = likelihoods(ladder.decoder, data[name])
        for level in ladder.levels:  # from z_1 up
            given = densities(level.prior(GRID)) @ given
        given_joint[name] = given
    truth = integrate(given_joint, evaluated)
    found = estimate_log_likelihood(
        model, data, observed, evaluated, 20_000, torch.Generator().manual_seed(0)
    )
    torch.testing.assert_close(found, truth, rtol=0, atol=0.04)


def test_loss_is_the_average_importance_weight() -> None:
    model = wide_posteriors()
    torch.manual_seed(0)
    found, expected = (f(model, rows(), 40_000) for f in (average_bound, average_log_weight))
    assert found == pytest.approx(expected, abs=0.03)
