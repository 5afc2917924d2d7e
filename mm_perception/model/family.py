"""
A family: a joint encoder, and an objective that trains it.

An objective is a pure function of a level and a batch. A level is what turns codes into targets
through one joint latent: the top level of a hierarchical model (codes and targets are unimodal
latents), or a model without levels (targets are data). Kullback-Leibler terms are weighted by
alpha and the warm-up, log likelihoods by the level's weight of their modality. Only what was
recorded is encoded and reconstructed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from mm_perception.config import from_plain
from mm_perception.errors import ConfigError
from mm_perception.model.distributions import Posterior, scatter_rows
from mm_perception.model.joint_encoder import (
    DEFAULT_JOINT_ENCODER,
    RENAMED,
    JointEncoder,
    find_joint_encoder,
    forced_perceptual_dropout,
)
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


@dataclass(frozen=True)
class Family:
    """
    Joint encoder and objective of a family.

    :param joint_encoder: its name; empty to take the spec's.
    :param options: what ``model.options`` is read into.
    :param modalities: how many the family takes; 0 for any number.
    """

    joint_encoder: str
    objective: Objective
    options: type[Any] = NoOptions
    modalities: int = 0

    def find_encoder(self, spec: ModelSpec) -> type[JointEncoder]:
        """
        Joint encoder to be built for a spec.

        :raises ConfigError: if the spec asks for what the family does not have.
        """
        if self.modalities and len(spec.modalities) != self.modalities:
            raise ConfigError(
                f'model.family: {spec.family} takes {self.modalities} modalities, not'
                f' {len(spec.modalities)}; list {self.modalities} or choose another family'
            )
        asked = RENAMED.get(spec.joint_encoder, spec.joint_encoder)
        if self.joint_encoder and asked not in (self.joint_encoder, DEFAULT_JOINT_ENCODER):
            raise ConfigError(
                f'model.joint_encoder: {spec.family} has its own ({self.joint_encoder}), not'
                f' "{asked}"; leave it out'
            )
        encoder = find_joint_encoder(self.joint_encoder or asked)
        if spec.calibrated and not encoder.gaussian:
            raise ConfigError(
                f'model.calibrated: the joint posterior of {spec.family} is no single Gaussian;'
                ' leave it out'
            )
        return encoder

    def bind_objective(self, spec: ModelSpec) -> Callable[[Level, Batch], Loss]:
        """
        Objective with the spec's options.

        :raises ConfigError: if an option does not fit.
        """
        options = from_plain(self.options, dict(spec.options), 'model.options')
        return lambda level, batch: self.objective(level, batch, options)


def dropout_elbo(level: Level, batch: Batch, options: NoOptions) -> Loss:
    """
    Evidence lower bound under forced perceptual dropout: all is generated from a part.

    A joint encoder may add a loss of its own.

    Vasco et al. 2022, eq. 15, 18-19 and the second sum of eq. 21.
    """
    seen = forced_perceptual_dropout(batch.present, level.spec.dropout, batch.generator)
    loss, terms = elbo_of(level, batch, level.joint(batch.codes, seen))
    own = level.joint.own_loss(batch.codes, batch.targets, seen, batch.present)
    if own is not None:
        terms['filling'] = own
        loss = loss + own
    return loss, terms


def elbo_of(level: Level, batch: Batch, joint: Posterior) -> Loss:
    """Evidence lower bound of one joint posterior; each term averaged over the rows with it."""
    kl = joint.kl_to_prior().mean()
    sample = joint.sample(batch.generator)
    found = log_likelihoods(level, batch, sample, batch.present)
    terms = {'kl': kl}
    loss = level.spec.alpha * batch.warm_up * kl
    for column, name in enumerate(level.spec.names):
        terms[name] = masked_mean(found[:, column], batch.present[:, column])
        loss = loss - level.weight(name) * terms[name]
    return loss, terms


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
        rows = wanted[:, column]
        index = rows.nonzero().squeeze(1)
        if len(index) > 1 or (len(index) and not level.training):
            target = batch.targets[name][index % len(batch.present)]
            found = level.log_likelihood(name, joint[index], target)
            columns.append(scatter_rows(found, rows))
        else:
            columns.append(torch.zeros(len(joint), device=joint.device))
    return torch.stack(columns, dim=1)


def weighted(level: Level, found: Tensor) -> Tensor:
    """
    Weighted sum of log likelihoods ``float[..., M]`` over the modalities, ``float[...]``.

    Not a matrix product: that would be one of 16 bits in mixed precision, and lose nats.
    """
    weights = [level.weight(name) for name in level.spec.names]
    return (found * torch.tensor(weights, device=found.device)).sum(-1)
