"""The stages of a run: data on the device, autoencoders, classifiers, top level, refinement."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mm_perception.data.dataset import Dataset, load_dataset
from mm_perception.errors import ConfigError
from mm_perception.modalities import build_modality
from mm_perception.model.build import build_model
from mm_perception.model.distributions import mapped
from mm_perception.model.joint_encoder import forced_perceptual_dropout
from mm_perception.model.networks import ByName, Classifier
from mm_perception.model.nexus import LatentScale, Nexus
from mm_perception.model.unimodal import Encoding, UnimodalVAE
from mm_perception.spec import ModalitySpec, ModelSpec, StageSpec, TrainingSpec
from mm_perception.training.augmentation import Augmentation, build_augmentation
from mm_perception.training.defaults import paced
from mm_perception.training.loop import Loss, Stage, use_bfloat16


class TensorSource:
    """
    A dataset's unique values per modality, on a device, as they are stored.

    :param dataset: values are gathered through its index, and scaled to 0..1 on the device.
    """

    def __init__(self, dataset: Dataset, device: torch.device) -> None:
        self.names = dataset.names
        self.device = device
        self.rows = len(dataset)
        self._values = {n: torch.from_numpy(dataset.values[n]).to(device) for n in self.names}
        self.index = {
            n: torch.from_numpy(dataset.index[n].astype(np.int64)).to(device) for n in self.names
        }
        self.present = torch.from_numpy(dataset.present).to(device)

    def unique(self, name: str) -> int:
        """How many unique values a modality has."""
        return len(self._values[name])

    def values(self, name: str, positions: Tensor) -> Tensor:
        """Unique values of a modality, ``float32[B, *shape]`` in 0..1."""
        values = self._values[name][positions]
        return values.float() / 255.0 if values.dtype == torch.uint8 else values.float()

    def of_rows(self, rows: Tensor) -> dict[str, Tensor]:
        """Which unique value of each modality some rows show, ``int64[B]``."""
        return {name: index[rows] for name, index in self.index.items()}

    def row_values(self, name: str, rows: Tensor) -> Tensor:
        """Values of a modality in some rows, ``float32[B, *shape]`` in 0..1."""
        return self.values(name, self.index[name][rows])


def load_split(spec: TrainingSpec, split: str) -> Dataset:
    """
    Read a split of the dataset to train on; values that no row shows are left out.

    :raises ConfigError: if it does not fit the configuration, or lacks a modality.
    """
    dataset = load_dataset(Path(spec.dataset), split)
    if dataset.names != spec.model.names:
        raise ConfigError(
            f'{spec.dataset} has modalities {", ".join(dataset.names)}, the configuration'
            f' {", ".join(spec.model.names)}; list them in that order'
        )
    for modality in spec.model.modalities:
        found, expected = dataset.values[modality.name].shape[1:], build_modality(modality).shape
        if found != expected:
            raise ConfigError(
                f'{spec.dataset}: {modality.name} has shape {found}, its preprocessing gives'
                f' {expected}; build the dataset again'
            )
    recorded = dataset.present.sum(axis=0)
    never = [name for name, count in zip(dataset.names, recorded.tolist()) if not count]
    if never:
        raise ConfigError(
            f'{spec.dataset}: split {split} has no row with {", ".join(never)}; record it, or'
            ' leave it out of the configuration'
        )
    return dataset.shown()


def split_positions(count: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split ``range(count)`` at random into training and validation positions."""
    order = np.random.default_rng(seed).permutation(count)
    held_out = int(count * fraction)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


Posteriors = dict[str, Encoding]


def unimodal_stage(spec: TrainingSpec, name: str, source: TensorSource) -> Stage:
    """Train one modality's autoencoder, without what is shared, on its unique values."""
    seed_weights(spec, name)
    identity = autoencoder_part(spec.model.modality(name))
    module = UnimodalVAE(identity).to(source.device)
    stage = spec.unimodal[name]
    if module.closed_form:
        return _closed_form_stage(spec, name, module, source)
    augment = _augmentation(spec, name)

    def loss(positions: Tensor, warm_up: float) -> tuple[Tensor, dict[str, Tensor]]:
        data = source.values(name, positions)
        shown, wanted = augment(data) if module.training else (data, data)
        total, terms, _ = module.loss(shown, warm_up, target=wanted)
        return total, terms

    return build_stage(spec, name, module, stage, loss, source.unique(name), source, identity)


def _closed_form_stage(
    spec: TrainingSpec, name: str, module: UnimodalVAE, source: TensorSource
) -> Stage:
    """Fit an autoencoder that takes no steps; the stage validates it and keeps it."""

    def loss(positions: Tensor, warm_up: float) -> tuple[Tensor, dict[str, Tensor]]:
        total, terms, _ = module.loss(source.values(name, positions), warm_up)
        return total, terms

    identity = autoencoder_part(spec.model.modality(name))
    once = StageSpec(epochs=1)
    stage = build_stage(spec, name, module, once, loss, source.unique(name), source, identity)
    module.fit(source.values(name, stage.training.unique()))
    return replace(stage, spec=replace(once, epochs=0))


def classifier_stage(
    spec: TrainingSpec, name: str, source: TensorSource, labels: Tensor, classes: int
) -> Stage:
    """
    Train an independent classifier on one modality's unique values.

    :param labels: label index of every unique value, ``int64[U]``; negative ones are left out.
    """
    labelled = torch.nonzero(labels >= 0)[:, 0]
    seed_weights(spec, f'{name}.classifier')
    module = Classifier(spec.model.modality(name), classes).to(source.device)
    augment = _augmentation(spec, name)

    def loss(positions: Tensor, _: float) -> tuple[Tensor, dict[str, Tensor]]:
        known = labelled[positions]
        data = source.values(name, known)
        logits = module(augment(data)[0] if module.training else data).float()
        truth = labels[known]
        accuracy = (logits.argmax(1) == truth).float().mean()
        return functional.cross_entropy(logits, truth), {'accuracy': accuracy}

    identity = (autoencoder_part(spec.model.modality(name)), _augmentation_options(spec, name))
    title, count = f'{name}.classifier', len(labelled)
    return build_stage(spec, title, module, spec.classifiers, loss, count, source, identity)


def top_stage(
    spec: TrainingSpec,
    posteriors: Posteriors,
    source: TensorSource,
    strangers: Callable[[Mapping[str, Tensor]], Posteriors] | None = None,
) -> Stage:
    """
    Train the top level on the cached unimodal posteriors of the training set.

    :param strangers: latents that the joint encoder sees, given which unique value each row
        shows; None: those of the rows.
    """
    seed_weights(spec, 'top')
    model = build_model(spec.model)
    assert isinstance(model, Nexus)
    module = model.top.to(source.device)
    module.fit(posteriors)

    def loss(rows: Tensor, warm_up: float) -> tuple[Tensor, dict[str, Tensor]]:
        shown = strangers(source.of_rows(rows)) if strangers and module.training else None
        true = _of_rows(posteriors, source, rows)
        return module.loss(true, source.present[rows], warm_up, shown=shown)

    identity = (_top_part(spec.model), spec.unimodal, spec.shared, spec.strange)
    return build_stage(spec, 'top', module, spec.top, loss, source.rows, source, identity)


def joint_stage(spec: TrainingSpec, source: TensorSource) -> Stage:
    """
    Train a whole model in one step, with the stage ``top``.

    Both levels at once, as in the Nexus paper (latents keep their own scale), or a model that
    does not come apart. Data are augmented as the unimodal stages say.
    """
    seed_weights(spec, 'joint')
    module = build_model(spec.model).to(source.device)
    augment = {name: _augmentation(spec, name) for name in source.names}

    def loss(rows: Tensor, warm_up: float) -> tuple[Tensor, dict[str, Tensor]]:
        data = {name: source.row_values(name, rows) for name in source.names}
        if module.training:
            data = {name: augment[name](values)[0] for name, values in data.items()}
        return module.loss(data, source.present[rows], warm_up)

    augmented = {name: _augmentation_options(spec, name) for name in source.names}
    identity = (spec.model, augmented)
    return build_stage(spec, 'joint', module, spec.top, loss, source.rows, source, identity)


def _of_rows(posteriors: Posteriors, source: TensorSource, rows: Tensor) -> Posteriors:
    """Unimodal posteriors of some rows, ``[B, d_m]`` per modality, and what is shared."""
    shown = source.of_rows(rows)
    return {n: mapped(p, partial(_taken, positions=shown[n])) for n, p in posteriors.items()}


def _taken(part: Tensor, positions: Tensor) -> Tensor:
    return part[positions]


@torch.no_grad()
def cache_posteriors(modules: ByName[UnimodalVAE], source: TensorSource) -> Posteriors:
    """Posteriors of every unique value, ``[U_m, d_m]`` per modality, and what is shared."""
    result: Posteriors = {}
    for name, module in modules.items():
        module.eval()
        positions = torch.arange(source.unique(name), device=source.device)
        parts = [module.encode(source.values(name, p)) for p in positions.split(1024)]
        result[name] = type(parts[0])(*map(torch.cat, zip(*parts)))
    return result


def standardised_rows(posteriors: Posteriors, source: TensorSource) -> dict[str, Tensor]:
    """
    Standardised latents of the rows, ``float[N, d_m]`` per modality.

    Rows in which a modality is absent are left out, if there are others.
    """
    complete = source.present.all(1)
    rows = complete.nonzero()[:, 0] if complete.sum() > 1 else torch.arange(source.rows)
    found = {}
    for name, posterior in posteriors.items():
        found[name] = standardised(posterior)[source.index[name][rows]]
    return found


def standardised(posterior: Encoding) -> Tensor:
    """Means of the unique values' posteriors as :class:`LatentScale` gives them, ``[U, d]``."""
    scale = LatentScale(posterior.mean.shape[1]).to(posterior.mean.device)
    scale.fit(posterior)
    return scale(posterior.mean)


def autoencoder_part(modality: ModalitySpec) -> ModalitySpec:
    """What of a modality decides how it is trained alone."""
    alone = replace(_without_source(modality), latent_weight=None, data_weight=0.0)
    return replace(alone, shared_dim=0, shared_network={})


def _without_source(modality: ModalitySpec) -> ModalitySpec:
    """A modality, wherever its data come from, and for however long they count."""
    return replace(modality, topic='', message='', max_age_s=1.0, frozen_s=0.0)


def _top_part(model: ModelSpec) -> ModelSpec:
    """What of a model decides how its top level is trained, once the autoencoders are."""
    kept = (replace(_without_source(m), data_weight=0.0) for m in model.modalities)
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
    identity: object,
) -> Stage:
    """
    Fill in what every stage of a run shares: its split, seed and device.

    :param count: how many positions there are to train and validate on.
    :param identity: what besides ``stage`` decides the result.
    """
    training, validation = split_positions(count, spec.validation_fraction, spec.seed)
    # A symbol has only few values: repeated, they fill a batch and its norm is that of many.
    stage, times = paced(stage, len(training))
    training = np.tile(training, times)

    return Stage(
        name=name,
        module=module,
        spec=stage,
        loss=loss,
        training=torch.from_numpy(training).to(source.device),
        validation=torch.from_numpy(validation).to(source.device),
        seed=spec.seed,
        identity=repr(identity),
        bfloat16=use_bfloat16(spec.precision, source.device),
    )


def refinement_stage(
    spec: TrainingSpec, model: Nexus, posteriors: Posteriors, source: TensorSource
) -> Stage:
    """
    Let the top decoders see what becomes of their latents.

    A top decoder that is trained on latents alone gives their average where the joint latent
    leaves them open, and an average of latents may decode to something else than any of them
    (a "five" that is heard as "nine"). Here the log likelihood of the data, through the
    unimodal decoder, joins that of the latent, for modalities with a ``data_weight``, each
    generated from some of the others, as it is where its sensor fails. All but
    their top decoders stays as it is: no gradient reaches the autoencoders, and the joint
    posteriors do not change.

    :param posteriors: of the training set's unique values.
    """
    seed_weights(spec, 'refinement')
    model.eval().requires_grad_(False)
    weights = {m.name: m.data_weight for m in spec.model.modalities if m.data_weight}
    decoders = nn.ModuleDict({name: model.top.decoders[name] for name in weights})
    decoders.requires_grad_(True)

    def loss(rows: Tensor, _: float) -> tuple[Tensor, dict[str, Tensor]]:
        present = source.present[rows]
        total, terms = torch.zeros((), device=present.device), {}
        for name, weight in weights.items():
            others, kept = _without(present, spec.model.names.index(name))
            if len(kept) < 2:  # too few for batch statistics
                continue
            part = _of_rows(posteriors, source, rows[kept])
            joint = _draw_joint(model, part, others)
            data = source.row_values(name, rows[kept])
            latent, found = _log_likelihoods(model, name, joint, part[name].mean, data)
            total = total - model.top.weight(name) * latent - weight * found
            terms[name] = found
        return total, terms

    identity, stage = (spec.model, spec.unimodal, spec.shared, spec.top), spec.refinement
    return build_stage(spec, 'refinement', decoders, stage, loss, source.rows, source, identity)


def _without(present: Tensor, column: int) -> tuple[Tensor, Tensor]:
    """Rows that have a modality and others; presence in them, without it."""
    others = present.clone()
    others[:, column] = False
    kept = (present[:, column] & others.any(1)).nonzero().squeeze(1)
    return others[kept], kept


@torch.no_grad()
def _draw_joint(model: Nexus, latents: Posteriors, present: Tensor) -> Tensor:
    seen = forced_perceptual_dropout(present, model.spec.dropout)
    codes = model.top.codes(latents, sampled=True)
    joint: Tensor = model.top.joint(codes, seen).sample()
    return joint


def _log_likelihoods(
    model: Nexus, name: str, joint: Tensor, latent: Tensor, data: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean log likelihoods, given the joint latent, of a modality's latent and of its data."""
    scale, conditional = model.top.scale[name], model.top.conditional(name, joint)
    found = model.unimodal[name].log_likelihood(scale.inverse(conditional.mean), data)
    return conditional.log_prob(scale(latent)).mean(), found.mean()
