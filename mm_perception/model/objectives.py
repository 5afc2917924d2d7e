"""
The objectives of the families, each a pure function of a level and a batch.

A level is what turns codes into targets through one joint latent: the top level of a
hierarchical model (codes and targets are unimodal latents) or a flat model (targets are data).
Kullback-Leibler terms are weighted by alpha and the warm-up, log likelihoods by the level's
weight of their modality. Only what was recorded is encoded and reconstructed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from mm_perception.model.base import Posterior
from mm_perception.model.joint_encoder import JointEncoder, forced_perceptual_dropout
from mm_perception.spec import ModelSpec

Loss = tuple[Tensor, dict[str, Tensor]]


class Level(Protocol):
    """What an objective needs to know of a model."""

    spec: ModelSpec
    joint: JointEncoder
    training: bool

    def log_likelihood(self, name: str, joint: Tensor, target: Tensor) -> Tensor:
        """Log density of one modality's targets given ``float[B, D]``: ``float[B]``."""
        ...

    def weight(self, name: str) -> float:
        """Weight of a modality's log likelihood."""
        ...


@dataclass(frozen=True)
class Batch:
    """
    What is trained on.

    :param codes: what the joint encoder takes, ``float[B, C_m]`` per modality.
    :param targets: what is reconstructed, ``float[B, ...]`` per modality.
    :param present: what was recorded, ``bool[B, M]``.
    :param warm_up: factor on the KL weight, 0..1.
    """

    codes: Mapping[str, Tensor]
    targets: Mapping[str, Tensor]
    present: Tensor
    warm_up: float = 1.0
    generator: torch.Generator | None = None


Objective = Callable[[Level, Batch, Any], Loss]


@dataclass(frozen=True)
class NoOptions:
    """A family without options."""


def elbo(level: Level, batch: Batch, options: NoOptions) -> Loss:
    """
    Evidence lower bound of all that was recorded.

    With a mixture of products it is that of MoPoE: the joint latent is drawn from the whole
    mixture and its KL divergence is bounded by the average over the subsets.

    Sutter et al. 2021, eq. 7.
    """
    return _elbo_of(level, batch, level.joint(batch.codes, batch.present))


def dropout_elbo(level: Level, batch: Batch, options: NoOptions) -> Loss:
    """
    Evidence lower bound under forced perceptual dropout: all is generated from a part.

    Vasco et al. 2022, eq. 15, 18-19 and the second sum of eq. 21.
    """
    seen = forced_perceptual_dropout(batch.present, level.spec.dropout, batch.generator)
    return _elbo_of(level, batch, level.joint(batch.codes, seen))


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``float[B]`` over the rows of a mask; zero if there is none."""
    return (values * mask).sum() / mask.sum().clamp_min(1)


def log_likelihoods(level: Level, batch: Batch, joint: Tensor, wanted: Tensor) -> Tensor:
    """
    Log likelihood of the batch's targets, zero where not wanted.

    Decoders see wanted rows alone, so that the others touch no batch statistics.

    :param joint: ``float[T * B, D]``, T joint latents for each row of the batch.
    :param wanted: ``bool[T * B, M]``.
    :returns: ``float[T * B, M]``, not weighted.
    """
    columns = []
    for column, name in enumerate(level.spec.names):
        rows = wanted[:, column].nonzero().squeeze(1)
        values = torch.zeros(len(joint), device=joint.device)
        if len(rows) > 1 or (len(rows) and not level.training):
            target = batch.targets[name][rows % len(batch.present)]
            found = level.log_likelihood(name, joint[rows], target)
            values = values.index_put((rows,), found)
        columns.append(values)
    return torch.stack(columns, dim=1)


def weighted(level: Level, found: Tensor) -> Tensor:
    """
    Weighted sum of log likelihoods ``float[..., M]`` over the modalities, ``float[...]``.

    Not a matrix product: that would be one of 16 bits in mixed precision, and lose nats.
    """
    weights = [level.weight(name) for name in level.spec.names]
    return (found * torch.tensor(weights, device=found.device)).sum(-1)


def _elbo_of(level: Level, batch: Batch, joint: Posterior) -> Loss:
    """Bound of one joint posterior; each term is averaged over the rows that have it."""
    kl = joint.kl_to_prior().mean()
    sample = joint.sample(batch.generator)
    found = log_likelihoods(level, batch, sample, batch.present)
    terms = {'kl': kl}
    loss = level.spec.alpha * batch.warm_up * kl
    for column, name in enumerate(level.spec.names):
        terms[name] = masked_mean(found[:, column], batch.present[:, column])
        loss = loss - level.weight(name) * terms[name]
    return loss, terms
