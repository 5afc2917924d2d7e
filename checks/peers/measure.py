"""One training run of either library within the same budget, and what comes of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mm_perception.bundle import load_bundle
from mm_perception.config import load_training
from mm_perception.data.dataset import Dataset, load_dataset, save_dataset
from mm_perception.engines.build import reference_engine
from mm_perception.engines.classifiers import Classifiers, load_classifiers
from mm_perception.engines.engine import Engine
from mm_perception.evaluation.coherence import by_observed, classifier_accuracy, measure_coherence
from mm_perception.evaluation.frechet import Encode, measure_frechet
from mm_perception.evaluation.generation import cross_targets, label_indices, subsets
from mm_perception.lab.tables.features import train_features
from mm_perception.modalities.base import Array
from mm_perception.model.build import build_model
from mm_perception.spec import StageSpec, TrainingSpec
from mm_perception.training.run import Run, train

CONFIG = Path(__file__).parents[2] / 'config' / 'mhd.yaml'
PAPER = Path(__file__).parent / 'paper.yaml'
FEATURE_ROWS = 10_000
TEST_ROWS = 2_000
CALLS, FIRST_CALLS = 300, 20


@dataclass(frozen=True)
class PeerCase:
    """
    One row of the table.

    :param library: model of MultiVae, empty for ours.
    :param config: settings that it trains with.
    :param joint: both levels in one step.
    """

    title: str
    config: Path
    library: str = ''
    joint: bool = True


CASES: dict[str, PeerCase] = {
    'ours_apart': PeerCase('ours: Nexus, levels apart', CONFIG, joint=False),
    'multivae_nexus': PeerCase('MultiVae: Nexus', PAPER, 'Nexus'),
    'ours_joint': PeerCase('ours: Nexus, levels jointly', CONFIG),
    'ours_apart_paper': PeerCase('ours: Nexus, apart, same settings', PAPER, joint=False),
    'ours_joint_paper': PeerCase('ours: Nexus, jointly, same settings', PAPER),
    'multivae_mvae': PeerCase('MultiVae: MVAE', PAPER, 'MVAE'),
    'multivae_mmvae': PeerCase('MultiVae: MMVAE', PAPER, 'MMVAE'),
    'multivae_mopoe': PeerCase('MultiVae: MoPoE', PAPER, 'MoPoE'),
}


@dataclass(frozen=True)
class Budget:
    """What every case gets."""

    rows: int
    epochs: int
    batch_size: int


@dataclass(frozen=True)
class Trained:
    """
    A trained model.

    :param infer: all modalities of a row in, all generated from the joint latent.
    :param seconds: of training alone, on the clock; ``cpu_seconds`` over all threads.
    """

    engine: Engine
    infer: Callable[[Mapping[str, Array]], Mapping[str, Array]]
    seconds: float
    cpu_seconds: float
    parameters: int


def first_rows(dataset: Dataset, count: int) -> Dataset:
    """Only the first rows, with only the values that they show."""
    return dataset.subset(np.arange(min(count, len(dataset)))).shown()


def within(spec: TrainingSpec, budget: Budget, dataset: Dataset) -> TrainingSpec:
    """
    The same epochs and batch size for every stage; the KL warm-up is the paper's share, 1/5.

    An epoch shows every row once. An autoencoder that trains apart does so on unique values, so it
    gets as many more epochs as makes up for that; with all its values in one batch (the ten
    symbols) it keeps its own. Refinement takes a quarter of the epochs; the published std,
    which is not compared, is not calibrated; no sensor has a second encoder, as no other library
    has one.
    """

    def stage(old: StageSpec, epochs: int) -> StageSpec:
        warm_up = max(1, epochs // 5)
        return replace(old, epochs=epochs, batch_size=budget.batch_size, warm_up_epochs=warm_up)

    def alone(name: str, old: StageSpec) -> StageSpec:
        unique = len(dataset.values[name])
        if unique <= budget.batch_size:
            return stage(old, old.epochs)
        return stage(old, round(budget.epochs * len(dataset) / unique))

    modalities = tuple(replace(m, shared_dim=0) for m in spec.model.modalities)
    return replace(
        spec,
        model=replace(spec.model, calibrated=False, modalities=modalities),
        unimodal={name: alone(name, old) for name, old in spec.unimodal.items()},
        refinement=stage(spec.refinement, max(1, budget.epochs // 4)),
        top=stage(spec.top, budget.epochs),
        validation_fraction=0.0,
    )


def train_case(case: PeerCase, budget: Budget, seed: int, dataset: Dataset, work: Path) -> Trained:
    """
    Train within the budget; only training is timed.

    :param dataset: rows to train on.
    :param work: an empty folder.
    """
    spec = within(load_training(case.config), budget, dataset)
    spec = replace(spec, seed=seed, joint=case.joint, dataset=str(work / 'data'))
    if case.library:
        return _train_library(case.library, spec, dataset, work)
    return _train_ours(spec, dataset, work)


def _train_ours(spec: TrainingSpec, dataset: Dataset, work: Path) -> Trained:
    save_dataset(Path(spec.dataset), 'train', dataset)
    run = Run(spec, work / 'checkpoints', 'cpu', quiet=True, classifiers=False)
    bundle, seconds, cpu_seconds = timed(lambda: train(run, work / 'bundle', ''))
    engine = reference_engine(bundle, 'cpu')
    present = np.ones((1, len(dataset.names)), bool)

    def infer(data: Mapping[str, Array]) -> dict[str, Array]:
        mean, _ = engine.fuse({n: engine.encode(n, x) for n, x in data.items()}, present)
        return {name: engine.decode(name, mean) for name in data}

    parameters = sum(p.numel() for p in build_model(bundle.spec).parameters())
    return Trained(engine, infer, seconds, cpu_seconds, parameters)


def _train_library(kind: str, spec: TrainingSpec, dataset: Dataset, work: Path) -> Trained:
    from library import LibraryEngine, prepare  # only where MultiVae is installed

    trainer = prepare(kind, spec, dataset, work)
    _, seconds, cpu_seconds = timed(trainer.train)
    engine = LibraryEngine(trainer.model, spec.model)
    parameters = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    return Trained(engine, engine.infer, seconds, cpu_seconds, parameters)


def timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """What a call returns, its seconds on the clock and its CPU seconds."""
    clock, cpu = time.perf_counter(), time.process_time()
    result = call()
    return result, time.perf_counter() - clock, time.process_time() - cpu


class Evaluation:
    """
    The same test rows, classifiers and features for every case.

    :param bundle: name or folder of the bundle whose classifiers read what is generated.
    :param work: keeps the feature encoders.
    """

    def __init__(self, folder: Path, bundle: str, work: Path) -> None:
        spec = load_training(CONFIG)
        self.dataset = first_rows(load_dataset(folder, 'test'), TEST_ROWS)
        labels = label_indices(self.dataset, spec.model)
        assert labels is not None
        self.labels = labels
        self.classifiers: Classifiers = load_classifiers(load_bundle(bundle))
        training = first_rows(load_dataset(folder, 'train'), FEATURE_ROWS)
        self.features: dict[str, Encode] = train_features(spec, training, work)

    def classifier_accuracy(self) -> dict[str, float]:
        """Of the classifiers on the real test rows."""
        return classifier_accuracy(self.dataset, self.labels, self.classifiers)

    def measure(self, trained: Trained) -> dict[str, Any]:
        """Coherence, Frechet distance, latency, and what training took."""
        names = self.dataset.names
        engine, data, labels = trained.engine, self.dataset, self.labels
        observed = subsets(names)[:-1]
        ends = [s for s in observed if len(s) in (1, len(names) - 1)]
        wanted = cross_targets(names, observed)
        coherence = measure_coherence(engine, data, labels, self.classifiers, wanted)
        frechet = measure_frechet(engine, data, labels, self.features, ends)
        return {
            'seconds': trained.seconds,
            'cpu_seconds': trained.cpu_seconds,
            'parameters': trained.parameters,
            'coherence': by_observed(coherence),
            'frechet': by_observed(row for row in frechet if row.metric == 'mfd'),
            'latency_ms': self.latency(trained),
        }

    def latency(self, trained: Trained) -> dict[str, float]:
        """Milliseconds of one row, all modalities in and all generated."""
        seconds = []
        for k in range(CALLS + FIRST_CALLS):
            row = np.array([k % len(self.dataset)])
            data = {name: self.dataset.rows(name, row) for name in self.dataset.names}
            seconds.append(timed(lambda data=data: trained.infer(data))[1])
        return {f'p{q}': 1e3 * quantile(seconds[FIRST_CALLS:], q) for q in (50, 99)}


def quantile(values: Iterable[float], percent: int) -> float:
    """A percentile."""
    return float(np.percentile(list(values), percent))
