"""A whole training run: from a configuration and a dataset to a bundle."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mm_perception.bundle import Bundle, save_bundle
from mm_perception.data.dataset import Dataset
from mm_perception.errors import ConfigError, EngineUnavailable
from mm_perception.evaluation.labels import label_indices, labels_of_unique
from mm_perception.evaluation.summary import evaluate_bundle, versions
from mm_perception.evaluation.torch_classifiers import TorchClassifiers
from mm_perception.modalities import build_modality
from mm_perception.model.base import MultimodalModel
from mm_perception.model.build import build_model
from mm_perception.model.nexus import Nexus
from mm_perception.spec import TrainingSpec
from mm_perception.training import distributed
from mm_perception.training.agreement import part_data, with_agreement
from mm_perception.training.calibration import calibration_stage, held_out
from mm_perception.training.card import model_card, training_statistics
from mm_perception.training.export import with_graphs
from mm_perception.training.loop import Fitted, Logging, Stage, fit
from mm_perception.training.refinement import refinement_stage
from mm_perception.training.side_by_side import side_by_side
from mm_perception.training.source import TensorSource, load_split
from mm_perception.training.stages import (
    Posteriors,
    cache_posteriors,
    classifier_stage,
    joint_stage,
    top_stage,
    unimodal_stage,
)


@dataclass(frozen=True)
class Run:
    """
    Where and how a run works.

    :param work: folder for checkpoints and TensorBoard logs.
    :param device: ``cpu`` or ``cuda``.
    :param jobs: unimodal stages trained side by side, each in a process of its own; under
        torchrun one after the other, each by all processes.
    :param judges: train the classifiers that the bundle carries.
    """

    spec: TrainingSpec
    work: Path
    device: str = 'cpu'
    jobs: int = 1
    resume: bool = False
    quiet: bool = False
    judges: bool = True

    @property
    def logging(self) -> Logging:
        """Progress to the terminal and to TensorBoard in the work folder, from one process."""
        if not distributed.is_main():
            return Logging(quiet=True)
        return Logging(self.work / 'tensorboard', 0, self.quiet)


def choose_device(name: str) -> str:
    """
    Settle ``auto`` to what is there.

    :raises EngineUnavailable: if CUDA is asked for and not there.
    """
    cuda = torch.cuda.is_available()
    if name == 'cuda' and not cuda:
        raise EngineUnavailable('device cuda: no CUDA GPU is usable here; use --device cpu')
    return 'cuda' if cuda and name != 'cpu' else 'cpu'


def train(run: Run, out: Path, command: str) -> Bundle:
    """
    Train, evaluate on the test set, and write the bundle.

    Of processes that torchrun started, the first evaluates and writes; the others are done with
    the training.

    :param out: the bundle's folder.
    :param command: as typed, for the model card.
    :raises ConfigError: if dataset and configuration do not fit.
    """
    train_model = _train_apart if trains_apart(run.spec) else _train_jointly
    dataset = load_split(run.spec, 'train')
    source = TensorSource(dataset, torch.device(run.device))
    model, posteriors, fitted = train_model(run, source)
    if isinstance(model, Nexus):
        fitted |= _finish_levels(run, model, posteriors, source, dataset)
    classifiers, judged = (
        train_classifiers(run, dataset) if run.judges else (TorchClassifiers({}), {})
    )
    bundle = Bundle(
        name=run.spec.name,
        spec=run.spec.model,
        weights={k: v.cpu().numpy() for k, v in model.state_dict().items()},
        classifiers=classifiers.state(),
        statistics=training_statistics(dataset, posteriors),
        training=_how(run, fitted, judged, command),
    )
    if not distributed.is_main():
        return bundle
    bundle = replace(bundle, metrics=evaluate_bundle(bundle, Path(run.spec.dataset), run.device))
    bundle = with_agreement(bundle, *part_data(run.spec, dataset), run.device)
    return save_bundle(with_graphs(bundle), out, model_card(bundle, model.fuses))


def trains_apart(spec: TrainingSpec) -> bool:
    """
    Whether a model's autoencoders and its top level are trained one after the other.

    :raises ConfigError: if they are, and a modality has no stage.
    """
    apart = build_model(spec.model).separable and not spec.joint
    missing = [name for name in spec.model.names if name not in spec.unimodal]
    if apart and missing:
        raise ConfigError(
            f'unimodal: has no stage for {", ".join(missing)}; {spec.model.family} trains each'
            ' modality apart: give it one, or set joint: true'
        )
    return apart


Trained = tuple[MultimodalModel, Posteriors, dict[str, Fitted]]


def _train_apart(run: Run, source: TensorSource) -> Trained:
    names = run.spec.model.names
    fitted = side_by_side({name: partial(fit_unimodal, run, name) for name in names}, run.jobs)
    modules: dict[str, Any] = {}
    for name in names:
        stage = unimodal_stage(run.spec, name, source)
        _finish(run, stage)
        modules[name] = stage.module
    posteriors = cache_posteriors(modules, source)
    top = top_stage(run.spec, posteriors, source)
    fitted['top'] = fit(top, checkpoint(run, 'top'), run.resume, run.logging)
    model = build_model(run.spec.model)
    assert isinstance(model, Nexus)
    model.unimodal.update(modules)
    model.top = top.module  # type: ignore[assignment]
    return model.eval(), posteriors, fitted


def _train_jointly(run: Run, source: TensorSource) -> Trained:
    stage = joint_stage(run.spec, source)
    fitted = {'joint': fit(stage, checkpoint(run, 'joint'), run.resume, run.logging)}
    model = stage.module.eval()
    assert isinstance(model, MultimodalModel)
    modules: dict[str, Any] = dict(model.unimodal.items()) if isinstance(model, Nexus) else {}
    return model, cache_posteriors(modules, source), fitted


def _finish_levels(
    run: Run, model: Nexus, posteriors: Posteriors, source: TensorSource, dataset: Dataset
) -> dict[str, Fitted]:
    """Refine and calibrate, as far as the configuration asks for it."""
    stages = []
    if any(modality.data_weight for modality in run.spec.model.modalities):
        stages.append(refinement_stage(run.spec, model, posteriors, source))
    fitted = {s.name: fit(s, checkpoint(run, s.name), run.resume, run.logging) for s in stages}
    if model.uncertainty is not None:
        held = TensorSource(held_out(run.spec, dataset), torch.device(run.device))
        model.uncertainty.requires_grad_(True)
        stage = calibration_stage(run.spec, model, posteriors, held)
        fitted[stage.name] = fit(stage, checkpoint(run, stage.name), run.resume, run.logging)
    return fitted


def train_classifiers(run: Run, dataset: Dataset) -> tuple[TorchClassifiers, dict[str, Fitted]]:
    """Train an independent classifier per modality; none where no row tells its labels."""
    spec = run.spec.model
    if label_indices(dataset, spec) is None:
        return TorchClassifiers({}), {}
    names = [m.name for m in spec.modalities if not build_modality(m).labels]
    names = [name for name in names if (labels_of_unique(dataset, spec, name)[0] >= 0).any()]
    judged = side_by_side({name: partial(_fit_classifier, run, name) for name in names}, run.jobs)
    source = TensorSource(dataset, torch.device(run.device))
    readers = {}
    for name in names:
        stage = _classifier_stage(run.spec, name, dataset, source)
        _finish(run, stage)
        readers[name] = stage.module
    return TorchClassifiers(readers), judged  # type: ignore[arg-type]


def _classifier_stage(
    spec: TrainingSpec, name: str, dataset: Dataset, source: TensorSource
) -> Stage:
    unique, classes = labels_of_unique(dataset, spec.model, name)
    labels = torch.from_numpy(unique).to(source.present.device)
    return classifier_stage(spec, name, source, labels, classes)


def fit_unimodal(run: Run, name: str, position: int = 0) -> Fitted:
    """Train the autoencoder of one modality, to a checkpoint in the work folder."""
    source = TensorSource(load_split(run.spec, 'train').only(name), torch.device(run.device))
    stage = unimodal_stage(run.spec, name, source)
    logging = replace(run.logging, bar_position=position)
    return fit(stage, checkpoint(run, stage.name), run.resume, logging)


def _fit_classifier(run: Run, name: str, position: int) -> Fitted:
    dataset = load_split(run.spec, 'train')
    source = TensorSource(dataset.only(name), torch.device(run.device))
    stage = _classifier_stage(run.spec, name, dataset, source)
    logging = replace(run.logging, bar_position=position)
    return fit(stage, checkpoint(run, stage.name), run.resume, logging)


def _finish(run: Run, stage: Stage) -> None:
    fit(stage, checkpoint(run, stage.name), True, Logging(quiet=True))


def checkpoint(run: Run, stage: str) -> Path:
    """File of a stage's checkpoint."""
    return run.work / f'{stage}.safetensors'


def _how(
    run: Run, fitted: dict[str, Fitted], judged: dict[str, Fitted], command: str
) -> dict[str, Any]:
    return {
        'command': command,
        'seconds': {name: round(f.seconds, 1) for name, f in fitted.items()},
        'classifier_seconds': {name: round(f.seconds, 1) for name, f in judged.items()},
        'validation': {name: f.terms for name, f in fitted.items()},
        'device': torch.cuda.get_device_name() if run.device == 'cuda' else 'cpu',
        'cpu_cores': os.cpu_count(),
        'jobs': run.jobs,
        'processes': distributed.world_size(),
        'seed': run.spec.seed,
        'versions': versions(),
    }
