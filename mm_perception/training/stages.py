"""The stages of a training run: unimodal autoencoders, classifiers, top level, or all jointly."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mm_perception.model.build import build_model
from mm_perception.model.classifier import Classifier
from mm_perception.model.distributions import DiagonalGaussian
from mm_perception.model.nexus import Nexus
from mm_perception.model.unimodal import UnimodalVAE
from mm_perception.spec import ModalitySpec, ModelSpec, StageSpec, TrainingSpec
from mm_perception.training.augmentation import Augmentation, build_augmentation
from mm_perception.training.loop import Loss, Stage, use_bfloat16
from mm_perception.training.source import TensorSource, split_positions

Posteriors = dict[str, DiagonalGaussian]


def unimodal_stage(spec: TrainingSpec, name: str, source: TensorSource) -> Stage:
    """Train one modality's autoencoder on its unique values."""
    seed_weights(spec, name)
    module = UnimodalVAE(spec.model.modality(name)).to(source.present.device)
    stage = spec.unimodal[name]
    augment = _augmentation(spec, name)

    def loss(positions: Tensor, warm_up: float) -> tuple[Tensor, dict[str, Tensor]]:
        data = source.values(name, positions)
        data = augment(data) if module.training else data
        total, terms, _ = module.loss(data, warm_up)
        return total, terms

    identity = repr(autoencoder_part(spec.model.modality(name)))
    return build_stage(spec, name, module, stage, loss, source.unique(name), source, identity)


def classifier_stage(
    spec: TrainingSpec, name: str, source: TensorSource, labels: Tensor, classes: int
) -> Stage:
    """
    Train an independent classifier on one modality's unique values.

    :param labels: label index of every unique value, ``int64[U]``; negative ones are left out.
    """
    labelled = torch.nonzero(labels >= 0)[:, 0]
    seed_weights(spec, f'{name}.classifier')
    module = Classifier(spec.model.modality(name), classes).to(source.present.device)
    augment = _augmentation(spec, name)

    def loss(positions: Tensor, _: float) -> tuple[Tensor, dict[str, Tensor]]:
        known = labelled[positions]
        data = source.values(name, known)
        logits = module(augment(data) if module.training else data).float()
        truth = labels[known]
        accuracy = (logits.argmax(1) == truth).float().mean()
        return functional.cross_entropy(logits, truth), {'accuracy': accuracy}

    identity = repr(
        (autoencoder_part(spec.model.modality(name)), _augmentation_options(spec, name))
    )
    return build_stage(
        spec,
        f'{name}.classifier',
        module,
        spec.classifiers,
        loss,
        len(labelled),
        source,
        identity,
    )


def top_stage(spec: TrainingSpec, posteriors: Posteriors, source: TensorSource) -> Stage:
    """Train the top level on the cached unimodal posteriors of the training set."""
    seed_weights(spec, 'top')
    model = build_model(spec.model)
    assert isinstance(model, Nexus)
    module = model.top.to(source.present.device)
    for name, posterior in posteriors.items():
        module.scale_of(name).fit(posterior)

    def loss(rows: Tensor, warm_up: float) -> tuple[Tensor, dict[str, Tensor]]:
        batch = {}
        for name, posterior in posteriors.items():
            positions = source.index[name][rows]
            batch[name] = DiagonalGaussian(*(part[positions] for part in posterior))
        return module.loss(batch, source.present[rows], warm_up)

    identity = repr((_top_part(spec.model), spec.unimodal))
    return build_stage(spec, 'top', module, spec.top, loss, source.rows, source, identity)


def joint_stage(spec: TrainingSpec, source: TensorSource) -> Stage:
    """
    Train a whole model in one step, with the stage ``top``.

    Both levels at once, as in the Nexus paper (latents keep their own scale), or a model that
    does not come apart. Data are augmented as the unimodal stages say.
    """
    seed_weights(spec, 'joint')
    module = build_model(spec.model).to(source.present.device)
    augment = {name: _augmentation(spec, name) for name in source.names}

    def loss(rows: Tensor, warm_up: float) -> tuple[Tensor, dict[str, Tensor]]:
        data = {name: source.row_values(name, rows) for name in source.names}
        if module.training:
            data = {name: augment[name](values) for name, values in data.items()}
        return module.loss(data, source.present[rows], warm_up)

    augmented = {name: _augmentation_options(spec, name) for name in source.names}
    identity = repr((spec.model, augmented))
    return build_stage(spec, 'joint', module, spec.top, loss, source.rows, source, identity)


@torch.no_grad()
def cache_posteriors(modules: dict[str, UnimodalVAE], source: TensorSource) -> Posteriors:
    """Unimodal posteriors of every unique value, ``[U_m, d_m]`` per modality."""
    result: Posteriors = {}
    for name, module in modules.items():
        module.eval()
        positions = torch.arange(source.unique(name), device=source.present.device)
        parts = [module.encode(source.values(name, p)) for p in positions.split(1024)]
        result[name] = DiagonalGaussian(
            torch.cat([p.mean for p in parts]), torch.cat([p.log_variance for p in parts])
        )
    return result


def autoencoder_part(modality: ModalitySpec) -> ModalitySpec:
    """What of a modality decides how it is trained alone."""
    return replace(
        modality, latent_weight=1.0, data_weight=0.0, topic='', message='', max_age_s=1.0
    )


def _top_part(model: ModelSpec) -> ModelSpec:
    """What of a model decides how its top level is trained, once the autoencoders are."""
    kept = (
        replace(m, data_weight=0.0, topic='', message='', max_age_s=1.0) for m in model.modalities
    )
    return replace(model, calibrated=False, modalities=tuple(kept))


def _augmentation_options(spec: TrainingSpec, name: str) -> Mapping[str, Any]:
    stage = spec.unimodal.get(name)
    return {} if stage is None else stage.augmentation


def _augmentation(spec: TrainingSpec, name: str) -> Augmentation:
    path = f'unimodal.{name}.augmentation'
    return build_augmentation(_augmentation_options(spec, name), path)


def seed_weights(spec: TrainingSpec, name: str) -> None:
    """Make a stage's first weights depend on the run's seed and its own name alone."""
    torch.manual_seed(spec.seed * 100_003 + zlib.crc32(name.encode()))


def build_stage(
    spec: TrainingSpec,
    name: str,
    module: torch.nn.Module,
    stage: StageSpec,
    loss: Loss,
    count: int,
    source: TensorSource,
    identity: str,
) -> Stage:
    """
    Fill in what every stage of a run shares: its split, seed and device.

    :param count: how many positions there are to train and validate on.
    :param identity: what besides ``stage`` decides the result.
    """
    training, validation = split_positions(count, spec.validation_fraction, spec.seed)
    # A symbol has only few values: repeated, they fill a batch and its norm is that of many.
    training = np.tile(training, -(-stage.batch_size // len(training)))

    def tensor(positions: np.ndarray) -> Tensor:
        return torch.from_numpy(positions).to(source.present.device)

    return Stage(
        name=name,
        module=module,
        spec=stage,
        loss=loss,
        training=tensor(training),
        validation=tensor(validation),
        seed=spec.seed,
        identity=identity,
        bfloat16=use_bfloat16(spec.precision, source.present.device),
    )
