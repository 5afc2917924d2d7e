"""The published standard deviations: honest on held-out data, wide for what is unheard of."""

import math

import pytest
import torch

from mm_perception.errors import ConfigError
from mm_perception.model.build import build_model
from mm_perception.model.distributions import DiagonalGaussian
from mm_perception.model.nexus import Nexus
from mm_perception.model.uncertainty import PROTOTYPES, Novelty, Uncertainty
from tests.helpers.model_specs import family_spec

SPEC = family_spec('nexus', calibrated=True)
SIZE = SPEC.joint_latent_dim


def codes_of(rows, generator):
    return {m.name: torch.randn(rows, m.latent_dim, generator=generator) for m in SPEC.modalities}


def fitted(generator):
    """An uncertainty that knows standard normal latents."""
    module = Uncertainty(SPEC)
    for m in SPEC.modalities:
        known = torch.randn(2000, m.latent_dim, generator=generator)
        module.novelty[m.name].fit(known, torch.zeros(m.latent_dim), known[:300] + 0.01)
    return module


def test_untrained_uncertainty_changes_nothing():
    generator = torch.Generator().manual_seed(0)
    model = build_model(SPEC).eval()
    assert isinstance(model, Nexus)
    codes = codes_of(5, generator)
    present = torch.ones(5, len(SPEC.names), dtype=torch.bool)
    posteriors = {n: DiagonalGaussian(c, torch.zeros_like(c)) for n, c in codes.items()}
    plain = model.top.joint(model.top.codes(posteriors), present)
    published = model.fuse({n: model.code(n, p) for n, p in posteriors.items()}, present)
    torch.testing.assert_close(published.mean, plain.mean)
    torch.testing.assert_close(published.std, plain.std)


def test_novelty_grows_from_none_at_known_data_to_one_far_away():
    generator = torch.Generator().manual_seed(1)
    known = torch.randn(PROTOTYPES, 3, generator=generator)
    novelty = Novelty(3)
    held_out = known + torch.randn(known.shape, generator=generator)
    novelty.fit(known, torch.zeros(3), held_out)
    assert novelty(known).max() == 0.0
    away = torch.stack([torch.full((3,), place) for place in (0.0, 3.0, 50.0)])
    values = novelty(away)
    assert values.diff().min() > 0
    assert values[-1] == pytest.approx(1.0, abs=1e-3)


def test_novelty_ignores_dimensions_that_carry_nothing():
    generator = torch.Generator().manual_seed(2)
    known = torch.randn(600, 2, generator=generator)
    novelty = Novelty(2)
    novelty.fit(known, torch.tensor([0.0, 1.0]), known)
    moved = known + torch.tensor([0.0, 30.0])
    torch.testing.assert_close(novelty(moved), novelty(known))


def test_uncertainty_returns_to_the_prior_for_unknown_data():
    generator = torch.Generator().manual_seed(3)
    module = fitted(generator)
    posterior = DiagonalGaussian(torch.zeros(4, SIZE), torch.full((4, SIZE), math.log(0.01)))
    present = torch.ones(4, len(SPEC.names), dtype=torch.bool)
    near = module(posterior, {n: c * 0 for n, c in codes_of(4, generator).items()}, present)
    far = module(posterior, {n: c + 90 for n, c in codes_of(4, generator).items()}, present)
    assert near.std.max().item() == pytest.approx(0.1, rel=1e-3)
    assert far.std.min().item() == pytest.approx(1.0, rel=1e-3)


def test_absent_modalities_do_not_count_as_unknown():
    generator = torch.Generator().manual_seed(4)
    module = fitted(generator)
    posterior = DiagonalGaussian(torch.zeros(4, SIZE), torch.full((4, SIZE), -2.0))
    latents = {n: c * 0 for n, c in codes_of(4, generator).items()}
    present = torch.ones(4, len(SPEC.names), dtype=torch.bool)
    present[:, 0] = False
    wild = {**latents, SPEC.names[0]: latents[SPEC.names[0]] + 90}
    torch.testing.assert_close(
        module(posterior, wild, present), module(posterior, latents, present)
    )


def test_calibrated_std_learns_how_far_the_complete_latent_lies():
    generator = torch.Generator().manual_seed(5)
    module = Uncertainty(SPEC)
    rows, count = 512, len(SPEC.names)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    posterior = DiagonalGaussian(torch.zeros(rows, SIZE), torch.zeros(rows, SIZE) - 1.0)

    def draw():
        """The complete mean lies 2 away where the first modality is absent, 0.2 elsewhere."""
        present = torch.ones(rows, count, dtype=torch.bool)
        present[:, 0] = torch.rand(rows, generator=generator) < 0.5
        width = torch.where(present[:, :1], 0.2, 2.0)
        mean = torch.randn(rows, SIZE, generator=generator) * width
        return present, DiagonalGaussian(mean, torch.full_like(mean, -12.0))

    latents = {n: c * 0 for n, c in codes_of(rows, generator).items()}
    for _ in range(400):
        present, complete = draw()
        loss = module.loss(posterior, latents, present, complete)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    present, _ = draw()
    std = module(posterior, latents, present).std
    assert std[present[:, 0]].mean().item() == pytest.approx(0.2, rel=0.1)
    assert std[~present[:, 0]].mean().item() == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize('family', ['mmvae', 'mopoe', 'nexus_flat', 'mhvae'])
def test_calibration_is_refused_where_it_does_not_apply(family):
    with pytest.raises(ConfigError, match=r'model\.calibrated: .*leave it out'):
        build_model(family_spec(family, calibrated=True))
