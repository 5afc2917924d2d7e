"""A whole training run: from a configuration and a dataset to a bundle, to be read downwards."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mm_perception.bundle import Bundle, save_bundle
from mm_perception.data.dataset import Dataset, load_dataset, splits
from mm_perception.data.preprocessing import constant_elements, decided
from mm_perception.engines.build import reference_engine
from mm_perception.engines.export import with_graphs
from mm_perception.engines.torch_classifiers import TorchClassifiers
from mm_perception.errors import ConfigError, EngineUnavailable
from mm_perception.evaluation.bundle_judgement import judge_bundle, save_judgement
from mm_perception.evaluation.coherence import evaluate_bundle, versions
from mm_perception.evaluation.errors import measure_errors
from mm_perception.evaluation.generation import label_indices, labels_of_unique
from mm_perception.evaluation.judgement import Judgement
from mm_perception.modalities import build_modality
from mm_perception.model.base import MultimodalModel
from mm_perception.model.build import build_model, is_separable
from mm_perception.model.networks import ByName, Classifier
from mm_perception.model.nexus import Nexus
from mm_perception.model.unimodal import UnimodalVAE
from mm_perception.spec import ModalitySpec, TrainingSpec
from mm_perception.training import distributed
from mm_perception.training.calibration import calibration_stage, held_out
from mm_perception.training.card import model_card
from mm_perception.training.consistency import part_data, with_health
from mm_perception.training.defaults import completed, sized
from mm_perception.training.kept import Kept, find_kept
from mm_perception.training.loop import Fitted, Logging, Stage, fit, read_checkpoint
from mm_perception.training.memory import with_memory
from mm_perception.training.sharing import shared_stage
from mm_perception.training.stages import (
    Posteriors,
    TensorSource,
    cache_posteriors,
    classifier_stage,
    joint_stage,
    load_split,
    refinement_stage,
    standardised_rows,
    top_stage,
    unimodal_stage,
)
from mm_perception.training.strangeness import find_strangers
from mm_perception.training.watch import WATCHED_ROWS, collapse_warnings, watch_latents


@dataclass(frozen=True)
class Run:
    """
    Where and how a run works.

    :param work: folder for checkpoints and TensorBoard logs.
    :param device: ``cpu`` or ``cuda``.
    :param jobs: unimodal stages trained side by side, each in a process of its own; under
        torchrun one after the other, each by all processes.
    :param classifiers: train the classifiers that the bundle carries.
    :param kept: autoencoders of an earlier bundle, which are not trained.
    :param baselines: judgement of another bundle of the dataset, to take baselines from.
    """

    spec: TrainingSpec
    work: Path
    device: str = 'cpu'
    jobs: int = 1
    resume: bool = False
    quiet: bool = False
    classifiers: bool = True
    kept: Kept = field(default_factory=Kept)
    baselines: Judgement | None = None

    def source(self, dataset: Dataset) -> TensorSource:
        """Put a dataset on the device."""
        return TensorSource(dataset, torch.device(self.device))

    def fit(self, stage: Stage, bar_position: int = 0) -> Fitted:
        """Train a stage to its checkpoint in the work folder; one process shows progress."""
        logging = Logging(self.work / 'tensorboard', bar_position, self.quiet)
        if not distributed.is_main():
            logging = Logging(quiet=True)
        return fit(stage, checkpoint(self, stage.name), self.resume, logging)


def checkpoint(run: Run, stage: str) -> Path:
    """File of a stage's checkpoint."""
    return run.work / f'{stage}.safetensors'


def choose_device(name: str) -> str:
    """
    Choose the device for ``auto``: CUDA if there is a GPU.

    :raises EngineUnavailable: if CUDA is asked for and not there.
    """
    cuda = torch.cuda.is_available()
    if name == 'cuda' and not cuda:
        raise EngineUnavailable('device cuda: no CUDA GPU is usable here; use --device cpu')
    return 'cuda' if cuda and name != 'cpu' else 'cpu'


def train(run: Run, out: Path, command: str, earlier: Bundle | None = None) -> Bundle:
    """
    Train, evaluate on the test set, and write the bundle.

    Of processes that torchrun started, the first evaluates and writes; the others are done with
    the training.

    :param out: the bundle's folder.
    :param command: as typed, for the model card.
    :param earlier: whose autoencoders are kept where their modality is unchanged.
    :raises ConfigError: if dataset and configuration do not fit.
    :raises DataError: if the configuration leaves to the dataset what it does not know.
    """
    run = _decided(run, earlier)
    train_model = _train_apart if trains_apart(run.spec) else _train_jointly
    dataset = load_split(run.spec, 'train')
    run = replace(run, spec=completed(run.spec, dataset))
    source = run.source(dataset)
    model, posteriors, fitted = train_model(run, source)
    run = replace(run, spec=replace(run.spec, model=model.spec))
    if isinstance(model, Nexus):
        fitted |= _finish_levels(run, model, posteriors, source, dataset)
    classifiers, read = train_classifiers(run, dataset)
    bundle = Bundle(
        name=run.spec.name,
        spec=run.spec.model,
        weights={k: v.cpu().numpy() for k, v in model.state_dict().items()},
        classifiers=classifiers.state(),
        statistics=training_statistics(run.spec.model.modalities, dataset, posteriors),
        training=_how(run, fitted, read, command) | _watched(run, model, dataset),
    )
    if not distributed.is_main():
        return bundle
    bundle = replace(bundle, metrics=evaluate_bundle(bundle, Path(run.spec.dataset), run.device))
    bundle = with_errors(bundle, run.spec, dataset, run.device)
    bundle = with_health(bundle, *part_data(run.spec, dataset), run.device)
    bundle = with_memory(bundle, run.spec, dataset, run.device)
    return _save_judged(run, bundle, out, model.fuses)


def _decided(run: Run, earlier: Bundle | None) -> Run:
    """Fill in what the dataset has decided, and what is kept of an earlier bundle."""
    model = decided(run.spec.model, Path(run.spec.dataset))
    shared = [modality.name for modality in model.modalities if modality.shared_dim]
    if shared and not trains_apart(run.spec):
        raise ConfigError(f'{shared[0]}.shared_dim: only where levels train apart; leave it out')
    run = replace(run, spec=replace(run.spec, model=model))
    if earlier is None:
        return run
    if not trains_apart(run.spec):
        raise ConfigError('--from is for models whose autoencoders train apart: family nexus')
    kept = find_kept(model, earlier)
    return replace(run, kept=kept, spec=replace(run.spec, model=kept.within(model)))


def _save_judged(run: Run, bundle: Bundle, out: Path, fuses: bool) -> Bundle:
    """Judge what a bundle fills in, and write it with the judgement beside it."""
    judgement = judge_bundle(bundle, Path(run.spec.dataset), run.device, run.baselines)
    judged = [] if judgement is None else ['', *judgement.lines()]
    bundle = save_bundle(with_graphs(bundle), out, model_card(bundle, fuses, judged))
    recording = Path(run.spec.dataset).name
    save_judgement(judgement, out, recording=recording, seed=run.spec.seed)
    return bundle


def with_errors(bundle: Bundle, spec: TrainingSpec, dataset: Dataset, device: str) -> Bundle:
    """
    Measure on the held-out rows and on every test split how well each modality is filled in.

    :param dataset: the training set.
    """
    folder = Path(spec.dataset)
    measured = {'validation': part_data(spec, dataset)[1]}
    measured |= {s: load_dataset(folder, s) for s in splits(folder) if s.startswith('test')}
    engine = reference_engine(bundle, device)
    errors = {
        split: measure_errors(engine, dataset, data)
        for split, data in measured.items()
        if len(data)
    }
    return replace(bundle, training={**bundle.training, 'errors': errors})


def _watched(run: Run, model: MultimodalModel, dataset: Dataset) -> dict[str, Any]:
    """Look after the latents, on rows that were not trained on where there are any."""
    if not isinstance(model, Nexus) or not distributed.is_main():
        return {}
    held = part_data(run.spec, dataset)[1]
    held = held if len(held) > 1 else dataset
    rows = np.unique(np.linspace(0, len(held) - 1, WATCHED_ROWS).astype(int))
    latents = watch_latents(model, run.source(held.subset(rows).shown()))
    return {'latents': latents, 'warnings': collapse_warnings(latents)}


def trains_apart(spec: TrainingSpec) -> bool:
    """
    Whether a model's autoencoders and its top level are trained one after the other.

    :raises ConfigError: if there is no such family.
    """
    return is_separable(spec.model.family) and not spec.joint


Trained = tuple[MultimodalModel, Posteriors, dict[str, Fitted]]


def _train_apart(run: Run, source: TensorSource) -> Trained:
    kept = run.kept.weights
    names = [name for name in run.spec.model.names if name not in kept]
    lean = replace(run, kept=Kept())  # processes need no weights of the others
    fitted = side_by_side({name: partial(fit_unimodal, lean, name) for name in names}, run.jobs)
    modules = ByName[UnimodalVAE]({m.name: UnimodalVAE(m) for m in run.spec.model.modalities})
    for name, module in modules.to(source.device).items():
        trained = kept[name] if name in kept else read_checkpoint(checkpoint(run, name))[1]
        module.load_state_dict(module.state_dict() | dict(trained))  # what is shared comes later
    posteriors, shared = _train_shared(run, modules, source)
    fitted |= shared
    model_spec = sized(run.spec.model, standardised_rows(posteriors, source))
    strangers = find_strangers(run.spec, modules, source, posteriors)
    stage = top_stage(replace(run.spec, model=model_spec), posteriors, source, strangers)
    fitted['top'] = run.fit(stage)
    model = build_model(model_spec).to(source.device)
    assert isinstance(model, Nexus)
    model.unimodal = modules
    model.top.load_state_dict(stage.module.state_dict())
    return model.eval(), posteriors, fitted


def _train_shared(
    run: Run, modules: ByName[UnimodalVAE], source: TensorSource
) -> tuple[Posteriors, dict[str, Fitted]]:
    """Train what of the trained autoencoders tells of the others; posteriors of all."""
    posteriors = cache_posteriors(modules, source)
    stages = [
        shared_stage(run.spec, name, module, posteriors, source)
        for name, module in modules.items()
        if module.shared is not None
    ]
    fitted = {stage.name: run.fit(stage) for stage in stages}
    return (cache_posteriors(modules, source) if stages else posteriors), fitted


def fit_unimodal(run: Run, name: str, position: int = 0) -> Fitted:
    """Train the autoencoder of one modality, to a checkpoint in the work folder."""
    dataset = load_split(run.spec, 'train')
    spec = completed(run.spec, dataset)
    return run.fit(unimodal_stage(spec, name, run.source(dataset.only(name))), position)


def _load_trained(run: Run, stage: str, module: nn.Module) -> None:
    """Load what a stage came to, in this process or in another."""
    module.load_state_dict(read_checkpoint(checkpoint(run, stage))[1])


def _train_jointly(run: Run, source: TensorSource) -> Trained:
    stage = joint_stage(run.spec, source)
    fitted = {'joint': run.fit(stage)}
    model = stage.module.eval()
    assert isinstance(model, MultimodalModel)
    posteriors = cache_posteriors(model.unimodal, source) if isinstance(model, Nexus) else {}
    return model, posteriors, fitted


def _finish_levels(
    run: Run, model: Nexus, posteriors: Posteriors, source: TensorSource, dataset: Dataset
) -> dict[str, Fitted]:
    """Refine and calibrate, as far as the configuration asks for it."""
    fitted = {}
    if any(modality.data_weight for modality in run.spec.model.modalities):
        fitted['refinement'] = run.fit(refinement_stage(run.spec, model, posteriors, source))
    if model.uncertainty is not None:
        held = run.source(held_out(run.spec, dataset))
        fitted['calibration'] = run.fit(calibration_stage(run.spec, model, posteriors, held))
    return fitted


def train_classifiers(run: Run, dataset: Dataset) -> tuple[TorchClassifiers, dict[str, Fitted]]:
    """Train an independent classifier per modality, if asked to and a row tells its labels."""
    run = replace(run, spec=completed(run.spec, dataset))
    spec = run.spec.model
    if not run.classifiers or label_indices(dataset, spec) is None:
        return TorchClassifiers({}), {}
    names = [m.name for m in spec.modalities if not build_modality(m).labels]
    labels = {name: labels_of_unique(dataset, spec, name) for name in names}
    labels = {name: found for name, found in labels.items() if (found[0] >= 0).any()}
    kept = run.kept.classifiers
    tasks = {name: partial(_fit_classifier, run, name) for name in labels if name not in kept}
    fitted = side_by_side(tasks, run.jobs)
    modules = {n: Classifier(spec.modality(n), count) for n, (_, count) in labels.items()}
    for name, module in modules.items():
        if name in kept:
            module.load_state_dict(kept[name])
        else:
            _load_trained(run, f'{name}.classifier', module)
        module.to(run.device)
    return TorchClassifiers(modules), fitted


def _fit_classifier(run: Run, name: str, position: int) -> Fitted:
    dataset = load_split(run.spec, 'train')
    labels, classes = labels_of_unique(dataset, run.spec.model, name)
    source = run.source(dataset.only(name))
    known = torch.from_numpy(labels).to(source.device)
    return run.fit(classifier_stage(run.spec, name, source, known, classes), position)


Task = Callable[[int], Fitted]


def side_by_side(tasks: Mapping[str, Task], jobs: int) -> dict[str, Fitted]:
    """
    Run tasks on several processes; in turn for one job, and where all processes share a task.

    :param tasks: each takes the row of its progress bar; can be pickled.
    """
    jobs = min(jobs, len(tasks))
    if jobs <= 1 or distributed.world_size() > 1:
        return {name: task(0) for name, task in tasks.items()}
    context = multiprocessing.get_context('spawn')
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(jobs, context, begin_worker, (threads,)) as pool:
        futures = {n: pool.submit(task, i) for i, (n, task) in enumerate(tasks.items())}
        return {name: future.result() for name, future in futures.items()}


def begin_worker(threads: int) -> None:
    """Prepare a process of a pool: torch takes so many threads, and it ends with its parent."""
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that is killed cannot stop what it started."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def training_statistics(
    modalities: Sequence[ModalitySpec], dataset: Dataset, posteriors: Posteriors
) -> dict[str, Any]:
    """Statistics of the training set and of its unimodal posteriors, per modality."""
    result: dict[str, dict[str, Any]] = {}
    for name in dataset.names:
        values = dataset.unique(name, np.arange(min(len(dataset.values[name]), 5000)))
        result[name] = {
            'unique_values': len(dataset.values[name]),
            'mean': float(values.mean()),
            'std': float(values.std()),
        }
    for modality in modalities:
        if modality.kind == 'vector':
            result[modality.name]['constant_elements'] = constant_elements(dataset, modality.name)
    for name, posterior in posteriors.items():
        variance = posterior.log_variance.exp().mean(0)
        result[name]['active_units'] = int((variance < 0.9).sum())
    return result


def _how(
    run: Run, fitted: dict[str, Fitted], read: dict[str, Fitted], command: str
) -> dict[str, Any]:
    return {
        'command': command,
        'seconds': {name: round(f.seconds, 1) for name, f in fitted.items()},
        'classifier_seconds': {name: round(f.seconds, 1) for name, f in read.items()},
        'validation': {name: f.terms for name, f in fitted.items()},
        'device': torch.cuda.get_device_name() if run.device == 'cuda' else 'cpu',
        'cpu_cores': os.cpu_count(),
        'jobs': run.jobs,
        'processes': distributed.world_size(),
        'seed': run.spec.seed,
        'kept': list(run.kept.modalities),
        'not_kept': dict(run.kept.refused),
        'versions': versions(),
    }
