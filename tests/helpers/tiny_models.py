"""Models of two small sensors, and what they say of data, integrated over a grid."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor

from mm_perception.model.base import MultimodalModel
from mm_perception.model.build import build_model
from mm_perception.model.distributions import DiagonalGaussian
from mm_perception.spec import ModalitySpec, ModelSpec

NAMES = ('left', 'right')
LABELS = ('a', 'b', 'c')
SUBSETS = (('left',), ('right',), NAMES)
GRID = torch.linspace(-16.0, 16.0, 1601)[:, None]
STEP = float(GRID[1, 0] - GRID[0, 0])


def tiny_spec(family: str, latent_dim: int = 1, **options: object) -> ModelSpec:
    """Two vectors of three Bernoulli variables; no batch norm."""
    modalities = tuple(
        ModalitySpec(
            name,
            'vector',
            latent_dim,
            preprocessing={'low': (0.0,) * 3, 'high': (1.0,) * 3},
            network={'hidden': (8,), 'batch_norm': False},
            likelihood='bernoulli',
        )
        for name in NAMES
    )
    return ModelSpec(
        modalities,
        family=family,
        joint_latent_dim=latent_dim,
        joint_hidden=(8,),
        decoder_hidden=(8,),
        options=options,
    )


def symbols_spec(family: str, **options: object) -> ModelSpec:
    """Two symbols of three labels; batch norm as by default."""
    modalities = tuple(
        ModalitySpec(
            name,
            'symbol',
            2,
            preprocessing={'labels': LABELS},
            network={'hidden': (16,)},
            likelihood='categorical',
        )
        for name in NAMES
    )
    return ModelSpec(
        modalities,
        family=family,
        joint_latent_dim=4,
        joint_hidden=(32,),
        decoder_hidden=(32,),
        options=options,
    )


def strong_model(spec: ModelSpec, seed: int = 0) -> MultimodalModel:
    """Random weights, larger than usual, so that every latent matters."""
    torch.manual_seed(seed)
    model = build_model(spec).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter *= 1.5 if parameter.dim() > 1 else 1.0
    return model


def fix_log_variance(layer: torch.nn.Linear, value: float) -> None:
    """
    Make the variance of a Gaussian with 1-d mean the same everywhere.

    Posteriors wider than the priors let importance samples converge fast.
    """
    layer.weight[1] = 0.0
    layer.bias[1] = value


def rows() -> dict[str, Tensor]:
    """Four rows of both modalities of :func:`tiny_spec`."""
    left = torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 1, 0], [0, 0, 1]])
    return {'left': left, 'right': torch.tensor([[0.0, 1, 0], [1, 0, 1], [0, 1, 1], [1, 0, 0]])}


def train_on_pairs(model: MultimodalModel, steps: int = 300) -> tuple[float, float]:
    """Train on pairs of the same symbol; gives the loss of new pairs before and after."""
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    present = torch.ones(32, 2, dtype=torch.bool)
    before = average_bound(model.eval(), pairs(torch.arange(3)), 100)
    model.train()
    for step in range(steps):
        data = pairs(torch.randint(len(LABELS), (32,)))
        loss, _ = model.loss(data, present, min(1.0, 2.0 * step / steps))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return -before, -average_bound(model.eval(), pairs(torch.arange(3)), 100)


def pairs(labels: Tensor) -> dict[str, Tensor]:
    """Both modalities showing the same labels."""
    symbols = torch.nn.functional.one_hot(labels, len(LABELS)).float()
    return dict.fromkeys(NAMES, symbols)


@torch.no_grad()
def what_is_generated(model: MultimodalModel, source: str, target: str) -> list[int]:
    """Label of one modality that is generated from each label of another."""
    data = pairs(torch.arange(len(LABELS)))
    codes = {name: model.encode(name, data[name]) for name in NAMES}
    present = torch.tensor([name == source for name in NAMES]).expand(len(LABELS), -1)
    joint = model.fuse(codes, present).mean
    return model.decode(target, joint).argmax(1).tolist()


@torch.no_grad()
def average_bound(model: MultimodalModel, data: dict[str, Tensor], draws: int) -> float:
    """Average of the model's bound, from its loss."""
    data = {name: value.repeat(draws, 1) for name, value in data.items()}
    present = torch.ones(len(data['left']), 2, dtype=torch.bool)
    return -float(model.loss(data, present)[0])


@torch.no_grad()
def average_log_weight(model: MultimodalModel, data: dict[str, Tensor], draws: int) -> float:
    """Average of the model's bound, from its importance weights."""
    data = {name: value.repeat(draws, 1) for name, value in data.items()}
    return float(model.log_weights(data, NAMES, NAMES).mean())


def densities(conditional: DiagonalGaussian) -> Tensor:
    """Probability of each cell of the grid, of a latent given each: ``float64[G, G]``."""
    mean, std = conditional.mean.double(), conditional.std.double()
    scaled = (GRID.double().T - mean) / std
    return torch.exp(-0.5 * scaled.square()) / (std * math.sqrt(2.0 * math.pi)) * STEP


def likelihoods(decoder: torch.nn.Module, data: Tensor) -> Tensor:
    """
    Likelihood of each row of data under each latent of the grid.

    :returns: ``float64[G, B + 1]``, last that of anything at all, which is 1.
    """
    logits = decoder(GRID).double()[:, None]
    chance = torch.where(data > 0.5, logits.sigmoid(), (-logits).sigmoid()).prod(-1)
    return torch.cat((chance, torch.ones_like(chance[:, :1])), dim=1)


def integrate(given_joint: dict[str, Tensor], evaluated: Collection[str]) -> Tensor:
    """
    Log-likelihood of the evaluated modalities; the grid must hold all that is probable.

    :param given_joint: likelihood of each modality's rows (and of anything) under each joint
        latent, ``float64[G, B + 1]``.
    """
    prior = torch.exp(-0.5 * GRID.double().square()) / math.sqrt(2.0 * math.pi) * STEP
    product = torch.stack([given_joint[name] for name in evaluated]).prod(0)
    total = (prior * product).sum(0)
    assert abs(float(total[-1]) - 1.0) < 1e-3
    return total[:-1].log()
