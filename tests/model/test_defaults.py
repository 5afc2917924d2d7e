"""Networks that are fitted, variances that are learned, a joint latent that copies."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mm_perception.errors import ConfigError
from mm_perception.model.build import build_model
from mm_perception.model.distributions import DiagonalGaussian
from mm_perception.model.nexus import LEAST_VARIANCE, LearnedVariance, Nexus
from mm_perception.model.unimodal import UnimodalVAE
from mm_perception.spec import ModalitySpec, ModelSpec

ELEMENTS, ROWS = 5, 200


def vectors(seed: int = 0) -> Tensor:
    """Four elements that move together in pairs, and one that never does."""
    generator = torch.Generator().manual_seed(seed)
    left, right = torch.rand(2, ROWS, 1, generator=generator) * 0.4 + 0.3
    noise = 0.002 * torch.randn(ROWS, 4, generator=generator)
    moving = torch.cat([left, 1.0 - left, right, 0.5 * right], dim=1) + noise
    return torch.cat([moving, torch.full((ROWS, 1), 0.25)], dim=1)


def linear(latent_dim: int) -> ModalitySpec:
    ranges = {'low': (0.0,) * ELEMENTS, 'high': (1.0,) * ELEMENTS}
    return ModalitySpec('joints', 'vector', latent_dim, ranges, {'type': 'linear'})


@pytest.mark.parametrize(('latent_dim', 'tolerance'), [(4, 1e-4), (6, 1e-4), (2, 0.01)])
def test_a_linear_pair_loses_what_has_no_place(latent_dim: int, tolerance: float) -> None:
    module = UnimodalVAE(linear(latent_dim))
    module.fit(vectors())
    data = vectors(1)
    posterior = module.encode(data)
    assert posterior.mean.shape == (ROWS, latent_dim)
    torch.testing.assert_close(module.decode(posterior.mean), data, atol=tolerance, rtol=0.0)
    used = posterior.std[0] < 0.02
    assert int(used.sum()) == min(latent_dim, ELEMENTS - 1)


def test_a_linear_pair_stays_in_range_beyond_the_data() -> None:
    module = UnimodalVAE(linear(4))
    module.fit(vectors())
    far = torch.tensor([[-0.5, 0.0, 1.0, 1.5, 0.25]])
    given = module.decode(module.encode(far).mean)
    torch.testing.assert_close(given, far.clamp(0.0, 1.0), atol=1e-4, rtol=0.0)


def test_a_linear_pair_has_no_labels() -> None:
    with pytest.raises(ConfigError, match=r'joints\.network\.type: linear gives values in 0\.\.1'):
        UnimodalVAE(replace(linear(4), likelihood='categorical'))


def test_a_learned_variance_is_that_of_the_errors() -> None:
    variance = LearnedVariance(3)
    noise = torch.tensor([0.04, 0.0, 0.0])
    variance.fit(noise, torch.ones(3))
    scale = torch.tensor([0.1, 0.5, 0.0])
    for _ in range(300):
        batch = variance(scale * torch.randn(256, 3))
    expected = (scale.square() + noise).clamp_min(LEAST_VARIANCE)
    torch.testing.assert_close(batch, expected, rtol=0.4, atol=0.0)
    torch.testing.assert_close(variance.running, expected, rtol=0.1, atol=0.005)
    assert variance.eval()(torch.ones(4, 3)) is variance.running


def small(**changes: object) -> ModelSpec:
    dense = {'type': 'dense', 'hidden': (8,)}
    options = {'preprocessing': {'low': (0.0,) * 6, 'high': (1.0,) * 6}, 'network': dense}
    spec = ModelSpec(
        tuple(ModalitySpec(name, 'vector', 3, **options) for name in 'abc'),
        joint_latent_dim=9,
        message_dim=8,
        joint_hidden=(8,),
        decoder_hidden=(8,),
        joint_encoder='skip',
    )
    return replace(spec, **changes)  # type: ignore[arg-type]


def fitted(spec: ModelSpec) -> tuple[Nexus, dict[str, DiagonalGaussian]]:
    torch.manual_seed(0)
    model = build_model(spec)
    assert isinstance(model, Nexus)
    narrow = torch.full((ROWS, 3), -9.0)
    posteriors = {name: DiagonalGaussian(torch.randn(ROWS, 3), narrow) for name in spec.names}
    model.top.fit(posteriors)
    return model.eval(), posteriors


def test_what_is_observed_is_given_back_whatever_else_is() -> None:
    model, posteriors = fitted(small())
    codes = model.top.codes(posteriors)
    for mask in itertools.product((False, True), repeat=3):
        present = torch.tensor(mask).expand(ROWS, -1)
        joint = model.top.joint(codes, present).mean
        for name, shown in zip(codes, mask):
            error = (model.top.conditional(name, joint).mean - codes[name]).abs().max()
            assert (error < 1e-4) == shown


def test_too_small_a_joint_latent_keeps_the_leading_components() -> None:
    model, posteriors = fitted(small(joint_latent_dim=4))
    codes = model.top.codes(posteriors)
    kept = sum(part.kept for part in model.top.joint.components.values())
    assert kept.tolist() == [1.0] * 4
    joint = model.top.joint(codes, torch.ones(ROWS, 3, dtype=torch.bool)).mean
    assert all((model.top.conditional(n, joint).mean - codes[n]).abs().max() > 0.1 for n in codes)


def test_a_skip_needs_latents_below() -> None:
    with pytest.raises(ConfigError, match='skip copies latents, and nexus_flat has none below'):
        build_model(small(family='nexus_flat'))


def test_a_size_that_is_left_open_is_explained() -> None:
    with pytest.raises(ConfigError, match=r'model\.joint_latent_dim: 0 is no size; training'):
        build_model(small(joint_latent_dim=0))


def test_a_learned_variance_is_a_density() -> None:
    model, _ = fitted(small())
    model.top.variance['a'].running.fill_(0.25)
    joint = torch.zeros(1, 9)
    mean = model.top.conditional('a', joint).mean
    density = model.top.log_likelihood('a', joint, mean)
    assert density.item() == pytest.approx(-1.5 * math.log(2 * math.pi * 0.25), rel=1e-5)


def test_a_linear_pair_keeps_the_components_of_images() -> None:
    torch.manual_seed(0)
    strength = torch.rand(ROWS, 2, 1)
    patterns = torch.rand(1, 2, 64) * 0.4
    images = (0.1 + (strength * patterns).sum(1)).reshape(ROWS, 1, 8, 8)
    options = {'height': 8, 'width': 8}
    module = UnimodalVAE(ModalitySpec('camera', 'image', 3, options, {'type': 'linear'}))
    module.fit(images)
    given = module.decode(module.encode(images).mean)
    torch.testing.assert_close(given, images, atol=1e-3, rtol=0.0)
