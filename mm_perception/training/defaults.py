"""What a configuration leaves open, found from the kinds of its modalities and the data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from mm_perception.data.dataset import Dataset
from mm_perception.data.preprocessing import constant_elements
from mm_perception.modalities import build_modality
from mm_perception.model.build import is_separable
from mm_perception.model.distributions import default_likelihood
from mm_perception.model.joint_encoder import DEFAULT_JOINT_ENCODER, LEAST_VARIANCE, SKIP
from mm_perception.model.networks import LINEAR
from mm_perception.spec import ModalitySpec, ModelSpec, StageSpec, TrainingSpec

LATENT_DIMS = {'image': 32, 'sound': 32, 'trajectory': 16, 'vector': 8, 'symbol': 8}
"""Most numbers of a kind's own latent; no more than the data have."""
LABELS_WEIGHT = 50.0
"""Of the likelihood of a symbol, whose few nats would be worth less than the KL divergence."""
LINEAR_ELEMENTS = 64
"""Vectors up to this size pass the bottom level without loss."""
LINEAR_IMAGES = 5000
"""Of fewer images principal components generalise better than convolutions."""
JOINT_LATENT_DIM = 32
"""Of families that train in one step."""
LEAST_JOINT, MOST_JOINT = 8, 64
EXPLAINED = 0.999
UNIMODAL = StageSpec(batch_size=64)
"""Stage of an autoencoder that the configuration does not name."""
EPOCHS = 25
"""Most epochs where the configuration says nothing: few samples are shown again instead."""


def completed(spec: TrainingSpec, dataset: Dataset) -> TrainingSpec:
    """
    Fill in all that is left open, but for the joint latent of a top level that trains apart.

    :param dataset: the training set.
    :returns: the specification with likelihoods, networks, latent sizes and stages.
    """
    apart = is_separable(spec.model.family) and not spec.joint
    modalities = tuple(_completed_modality(m, dataset, apart) for m in spec.model.modalities)
    joint = spec.model.joint_latent_dim or (0 if apart else JOINT_LATENT_DIM)
    nexus = apart and spec.model.family == 'nexus'
    encoder = spec.model.joint_encoder or (SKIP if nexus else DEFAULT_JOINT_ENCODER)
    model = replace(
        spec.model, modalities=modalities, joint_latent_dim=joint, joint_encoder=encoder
    )
    stages = {name: spec.unimodal.get(name, UNIMODAL) for name in model.names}
    return replace(spec, model=model, unimodal=stages if apart else spec.unimodal)


def _completed_modality(modality: ModalitySpec, dataset: Dataset, apart: bool) -> ModalitySpec:
    kind = modality.kind
    if not modality.likelihood:
        weight = modality.likelihood_weight * (LABELS_WEIGHT if kind == 'symbol' else 1.0)
        likelihood = default_likelihood(kind)
        modality = replace(modality, likelihood=likelihood, likelihood_weight=weight)
    elements = math.prod(build_modality(modality).shape)
    few = len(dataset.values[modality.name]) < LINEAR_IMAGES
    linear = few if kind == 'image' else kind == 'vector' and elements <= LINEAR_ELEMENTS
    if apart and linear and not modality.network:
        modality = replace(modality, network={'type': LINEAR})
    if modality.latent_dim:
        return modality
    if kind == 'vector' and modality.network.get('type') == LINEAR:
        size = max(1, elements - len(constant_elements(dataset, modality.name)))
    else:
        size = min(LATENT_DIMS.get(kind, elements), elements)
    return replace(modality, latent_dim=size)


def sized(model: ModelSpec, latents: Mapping[str, Tensor]) -> ModelSpec:
    """
    Choose the size of the joint latent, if it is left open.

    Room for every component that the joint encoder ``skip`` keeps, else as many principal
    components of all standardised unimodal latents as explain 99.9 % of their variance.

    :param latents: of the training set's rows, ``float[N, d_m]`` per modality.
    """
    if model.joint_latent_dim:
        return model
    if model.joint_encoder == SKIP:
        needed = sum(int((_variances(z) > LEAST_VARIANCE).sum()) for z in latents.values())
    else:
        share = _variances(torch.cat(list(latents.values()), dim=1)).flip(0).cumsum(0)
        needed = 1 + int((share < EXPLAINED * share[-1]).sum())
    return replace(model, joint_latent_dim=min(max(needed, LEAST_JOINT), MOST_JOINT))


def _variances(latents: Tensor) -> Tensor:
    """Variances of the principal components of ``float[N, d]``, ascending."""
    centred = latents.double() - latents.double().mean(0)
    return torch.linalg.eigvalsh(centred.t() @ centred / len(centred)).clamp_min(0.0)


def paced(stage: StageSpec, samples: int) -> tuple[StageSpec, int]:
    """
    Fix the epochs of a stage, so that it takes enough steps.

    :param samples: how many there are to train on.
    :returns: the stage with its epochs, and how often each of them shows a sample: more than
        once where the samples do not fill a batch, or where the configuration gives no epochs
        and :data:`EPOCHS` of them would be too few steps.
    """
    times = -(-stage.batch_size // samples)
    if stage.epochs:
        return stage, times
    steps = -(-times * samples // stage.batch_size)
    epochs = min(EPOCHS, -(-stage.steps // steps))
    times *= -(-stage.steps // (steps * epochs))
    warm_up = stage.warm_up_epochs or epochs // 5
    return replace(stage, epochs=epochs, warm_up_epochs=warm_up), times
