"""One suite over every family of the registry."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mm_perception.bundle import load_bundle, save_bundle
from mm_perception.engines.build import build_engine
from mm_perception.engines.torch_engine import load_model
from mm_perception.fusion.session import InferenceSession
from mm_perception.modalities import build_modality
from mm_perception.model.base import MultimodalModel
from mm_perception.model.build import FAMILIES, build_model
from mm_perception.model.distributions import Posterior
from tests.helpers.model_specs import PAIRS, family_spec
from tests.helpers.small_bundle import make_bundle

ROWS = 12
SINGLE = {'mmvae', 'mmvae_flat', 'avae', 'hmvae'}
every_family = pytest.mark.parametrize('family', FAMILIES)


def make(family: str, **changes: object) -> tuple[MultimodalModel, dict[str, Tensor]]:
    torch.manual_seed(0)
    spec = family_spec(family, **changes)
    data = {m.name: torch.rand(ROWS, *build_modality(m).shape) for m in spec.modalities}
    return build_model(spec), data


def everything(model: MultimodalModel) -> Tensor:
    return torch.ones(ROWS, len(model.spec.names), dtype=torch.bool)


def posterior(model: MultimodalModel, data: dict[str, Tensor], present: Tensor) -> Posterior:
    codes = {name: model.encode(name, values) for name, values in data.items()}
    return model.fuse(codes, present)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def subsets(count: int) -> list[tuple[bool, ...]]:
    return [s for s in itertools.product((False, True), repeat=count) if any(s)]


@every_family
def test_family_says_whether_it_fuses(family: str) -> None:
    model, data = make(family)
    model.eval()
    assert model.fuses == (family not in SINGLE)
    full = posterior(model, data, everything(model)).mean
    alone = [
        posterior(model, data, torch.eye(len(model.spec.names)).bool()[[i] * ROWS]).mean
        for i in range(len(model.spec.names))
    ]
    is_one = torch.stack([torch.isclose(full, mean).all(1) for mean in alone]).any(0)
    assert is_one.all() == (not model.fuses)


@every_family
def test_family_loss_falls(family: str) -> None:
    model, data = make(family)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for step in range(25):
        loss, terms = model.loss(data, everything(model), 1.0, seeded(step))
        assert loss.isfinite() and all(value.isfinite() for value in terms.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 1.0


@every_family
def test_family_takes_any_subset(family: str) -> None:
    model, data = make(family)
    model.eval()
    for subset in subsets(len(model.spec.names)):
        joint = posterior(model, data, torch.tensor(subset).expand(ROWS, -1))
        assert joint.mean.shape == joint.std.shape == (ROWS, model.spec.joint_latent_dim)
        assert (joint.std > 0).all()
        sample = joint.sample(seeded())
        for values in (joint.log_prob(sample), joint.log_prior(sample), joint.kl_to_prior()):
            assert values.shape == (ROWS,) and values.isfinite().all()
        for name, real in data.items():
            for made in (
                model.decode(name, joint.mean),
                model.decode_sample(name, joint.mean, seeded()),
            ):
                assert made.shape == real.shape
                assert made.min() >= 0 and made.max() <= 1


@every_family
def test_family_masking_equals_leaving_out(family: str) -> None:
    model, data = make(family)
    model.eval()
    for column, name in enumerate(data):
        present = everything(model)
        present[:, column] = False
        expected = posterior(model, data, present)
        masked = posterior(model, {**data, name: torch.full_like(data[name], torch.nan)}, present)
        torch.testing.assert_close(masked.mean, expected.mean)
        torch.testing.assert_close(masked.std, expected.std)
        value = torch.zeros_like(masked.mean)
        torch.testing.assert_close(masked.log_prob(value), expected.log_prob(value))


@every_family
def test_family_batch_of_mixed_subsets_equals_row_by_row(family: str) -> None:
    model, data = make(family)
    model.eval()
    present = torch.rand(ROWS, len(data), generator=seeded()) < 0.5
    present[:, 0] |= ~present.any(1)
    batch = posterior(model, data, present)
    for row in range(ROWS):
        single = {name: value[row : row + 1] for name, value in data.items()}
        alone = posterior(model, single, present[row : row + 1])
        for got, expected in ((batch.mean, alone.mean), (batch.std, alone.std)):
            torch.testing.assert_close(got[row : row + 1], expected, rtol=1e-4, atol=1e-5)


@every_family
def test_family_ignores_what_was_not_recorded(family: str) -> None:
    model, data = make(family)
    present, name = everything(model), model.spec.names[-1]
    present[: ROWS // 2, -1] = False
    losses = []
    for filling in (0.0, 1e3):
        values = {n: v.clone() for n, v in data.items()}
        values[name][: ROWS // 2] = filling
        losses.append(model.loss(values, present, 1.0, seeded())[0])
    torch.testing.assert_close(losses[0], losses[1])


@every_family
def test_family_gives_no_gradient_to_an_absent_modality(family: str) -> None:
    model, data = make(family)
    present, name = everything(model), model.spec.names[-1]
    present[:, -1] = False
    model.loss(data, present, 1.0, seeded())[0].backward()
    own = [p for path, p in model.named_parameters() if name in path.split('.')]
    assert own
    assert all(p.grad is None or not p.grad.any() for p in own)
    assert any(p.grad is not None and p.grad.any() for p in model.parameters())


@every_family
def test_family_draws_from_the_generator_alone(family: str) -> None:
    model, data = make(family)
    model.eval()
    names, present = model.spec.names, everything(model)
    with torch.no_grad():
        first, second, other = (
            (
                model.loss(data, present, 1.0, seeded(seed))[0],
                model.log_weights(data, names[:1], names, seeded(seed)).sum(),
                posterior(model, data, present).sample(seeded(seed)).sum(),
            )
            for seed in (1, 1, 2)
        )
    assert first == second
    assert all(a != b for a, b in zip(first, other))


@every_family
def test_family_survives_its_bundle(family: str, tmp_path: Path) -> None:
    bundle = save_bundle(make_bundle('b', spec=family_spec(family)), tmp_path / 'b', 'card')
    loaded = load_bundle(tmp_path / 'b')
    model, engine = load_model(bundle), build_engine(loaded, 'cpu')
    assert engine.fuses == model.fuses and engine.code_dims == model.code_dims
    session = InferenceSession(engine, loaded.spec)
    _, data = make(family)
    names = loaded.spec.names
    for name, values in data.items():
        session.update(name, values[0].numpy())
    for subset in subsets(len(names)):
        observed = [name for name, seen in zip(names, subset) if seen]
        result = session.infer(observed, names)
        with torch.no_grad():
            joint = posterior(model, {n: v[:1] for n, v in data.items()}, torch.tensor([subset]))
            np.testing.assert_allclose(result.mean, joint.mean, atol=1e-5)
            np.testing.assert_allclose(result.std, joint.std, atol=1e-5)
            for name in names:
                expected = model.decode(name, joint.mean)
                np.testing.assert_allclose(result.reconstructions[name], expected, atol=1e-4)
    joint = result.mean
    drawn = [engine.decode_sample(names[0], joint, seed) for seed in (3, 3)]
    np.testing.assert_array_equal(*drawn)


def test_families_for_pairs_are_in_the_registry() -> None:
    assert set(FAMILIES) > {*PAIRS, *SINGLE}
