"""The joint encoder that weighs its sensors, on modalities that show one of a few classes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mm_perception.model.build import build_model
from mm_perception.model.distributions import DiagonalGaussian
from mm_perception.model.nexus import Nexus, TopLevel
from mm_perception.spec import ModalitySpec, ModelSpec
from mm_perception.training.strangeness import Strangers

NAMES = ('a', 'b', 'c')
CLASSES, SIZE, ROWS = 4, 4, 2000
NOISE = 0.2


def latents(labels: Tensor, seed: int) -> dict[str, Tensor]:
    """Each modality has a place for every class, and noise of its own."""
    generator = torch.Generator().manual_seed(7)
    places = torch.randn(len(NAMES), CLASSES, SIZE, generator=generator)
    generator.manual_seed(seed)
    return {
        name: places[k, labels] + NOISE * torch.randn(len(labels), SIZE, generator=generator)
        for k, name in enumerate(NAMES)
    }


def spec(encoder: str) -> ModelSpec:
    limits = {'low': (-4.0,) * SIZE, 'high': (4.0,) * SIZE}
    return ModelSpec(
        tuple(ModalitySpec(n, 'vector', SIZE, limits, latent_weight=10.0) for n in NAMES),
        joint_latent_dim=4,
        message_dim=32,
        joint_encoder=encoder,
        joint_hidden=(32,),
        decoder_hidden=(32,),
    )


def trained(encoder: str, share: float) -> TopLevel:
    torch.manual_seed(0)
    model = build_model(spec(encoder))
    assert isinstance(model, Nexus)
    top = model.top
    labels = torch.randint(CLASSES, (ROWS,))
    narrow = torch.full((ROWS, SIZE), -6.0)
    clean = {n: DiagonalGaussian(z, narrow) for n, z in latents(labels, 1).items()}
    top.fit(clean)
    noisy = {
        n: DiagonalGaussian(p.mean + 2.0 * torch.randn(3, ROWS, SIZE), narrow.expand(3, -1, -1))
        for n, p in clean.items()
    }
    strangers = Strangers(share, clean, noisy)
    optimizer = torch.optim.Adam(top.parameters(), 3e-3)
    for _ in range(400):
        rows = torch.randint(ROWS, (128,))
        batch = {n: DiagonalGaussian(*(part[rows] for part in p)) for n, p in clean.items()}
        shown = strangers(dict.fromkeys(NAMES, rows))
        present = torch.ones(len(rows), len(NAMES), dtype=torch.bool)
        loss = top.loss(batch, present, shown=shown)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return top.eval()


@pytest.fixture(scope='module')
def weighed() -> TopLevel:
    return trained('weighed', 0.3)


@pytest.fixture(scope='module')
def blind() -> TopLevel:
    return trained('mean', 0.0)


def codes(top: TopLevel, means: dict[str, Tensor]) -> dict[str, Tensor]:
    return top.codes({n: DiagonalGaussian(mean, mean) for n, mean in means.items()})


def told(top: TopLevel, seen: dict[str, Tensor], present: Tensor) -> Tensor:
    """Class whose place is nearest to what is generated of ``c``."""
    with torch.no_grad():
        joint = top.joint(codes(top, seen), present.expand(len(seen['a']), -1)).mean
        made = top.scale['c'].inverse(top.conditional('c', joint).mean)
        places = latents(torch.arange(CLASSES), 0)['c']
    return torch.cdist(made, places).argmin(1)


def accuracy(top: TopLevel, strange: str) -> tuple[float, ...]:
    """From a and b with b strange, and from a alone."""
    labels = torch.randint(CLASSES, (500,), generator=torch.Generator().manual_seed(3))
    seen = latents(labels, 4)
    others = torch.Generator().manual_seed(5)
    if strange == 'far':
        seen['b'] = 3.0 * torch.randn(seen['b'].shape, generator=others)
    else:
        seen['b'] = seen['b'] + 2.0 * torch.randn(seen['b'].shape, generator=others)
    both, alone = torch.tensor([True, True, False]), torch.tensor([True, False, False])
    return tuple(
        (told(top, seen, present) == labels).float().mean().item() for present in (both, alone)
    )


@pytest.mark.parametrize('strange', ['far', 'noisy'])
def test_a_strange_sensor_beside_a_good_one_costs_next_to_nothing(
    weighed: TopLevel, blind: TopLevel, strange: str
) -> None:
    both, alone = accuracy(weighed, strange)
    assert alone > 0.95 and both > alone - 0.06
    without, _ = accuracy(blind, strange)
    assert both > without + 0.05


def test_masking_equals_omission(weighed: TopLevel) -> None:
    """What an absent modality holds, however strange it is, changes nothing."""
    seen = codes(weighed, latents(torch.arange(CLASSES), 6))
    present = torch.tensor([[True, False, True]]).expand(CLASSES, -1)
    with torch.no_grad():
        expected = weighed.joint(seen, present)
        found = weighed.joint({**seen, 'b': 100.0 * torch.randn(CLASSES, SIZE)}, present)
    torch.testing.assert_close(found.mean, expected.mean)
    torch.testing.assert_close(found.log_variance, expected.log_variance)
