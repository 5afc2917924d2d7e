"""One model of a table: its data, its training, what evaluates it, and the rows of figures."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mm_perception.bundle import MANIFEST, Bundle, load_bundle
from mm_perception.config import to_plain
from mm_perception.data.dataset import Dataset, load_dataset
from mm_perception.engines.build import reference_engine
from mm_perception.engines.classifiers import Classifiers
from mm_perception.engines.engine import Engine
from mm_perception.engines.torch_engine import load_model
from mm_perception.errors import ConfigError
from mm_perception.evaluation.coherence import classifier_accuracy, measure_coherence
from mm_perception.evaluation.frechet import Encode, measure_frechet
from mm_perception.evaluation.generation import Row, label_indices, subsets
from mm_perception.evaluation.likelihood import measure_likelihood, paper_terms
from mm_perception.lab.tables.data import digest, key_of, prepare_data
from mm_perception.lab.tables.features import train_features
from mm_perception.lab.tables.table import (
    Column,
    Scale,
    Table,
    TableOptions,
    evaluator_training,
    variant_training,
)
from mm_perception.modalities import build_modality
from mm_perception.spec import StageSpec, TrainingSpec
from mm_perception.training.run import (
    Run,
    checkpoint,
    fit_unimodal,
    train,
    train_classifiers,
    trains_apart,
)
from mm_perception.training.stages import autoencoder_part

ROWS, SETTINGS, WORK = 'rows.json', 'settings.json', 'work'
ACCURACY, MFD = 'accuracy', 'mfd'


@dataclass(frozen=True)
class Trial:
    """
    One model of a table.

    :param dataset: key of the table; ``variant`` likewise.
    :param command: as typed, for the model card.
    """

    table: Table
    options: TableOptions
    dataset: str
    variant: str
    seed: int
    command: str = ''

    @property
    def label(self) -> str:
        """Name of the model without its seed."""
        return f'{self.dataset}.{self.variant}' if len(self.table.datasets) > 1 else self.variant

    @property
    def folder(self) -> Path:
        """Where the model and its rows go."""
        return self.options.folder(self.table) / f'{self.label}-{self.seed}'

    @property
    def shared(self) -> Path:
        """Where goes what several models or tables use."""
        return self.options.out / 'shared'

    @property
    def bundle(self) -> str:
        """A trained bundle to measure as it is; empty to train one."""
        return self.table.variants[self.variant].bundle

    @property
    def scale(self) -> Scale:
        """The budget."""
        return self.table.scale(self.options.scale)

    @cached_property
    def spec(self) -> TrainingSpec:
        """Its training, on the full dataset."""
        variant = self.table.variants[self.variant]
        spec = variant_training(self.table, self.options, self.dataset, variant)
        return replace(spec, name=f'{self.table.name}.{self.label}', seed=self.seed)

    @cached_property
    def evaluators(self) -> TrainingSpec:
        """Training of the classifiers and feature encoders that evaluate it."""
        return evaluator_training(self.table, self.options, self.dataset)

    @cached_property
    def data(self) -> Path:
        """The rows that it is trained and measured on, written if they are not there yet."""
        return self._prepare(self.scale.rows)

    @cached_property
    def evaluator_data(self) -> Path:
        """The rows that its evaluators learn from, written if they are not there yet."""
        return self._prepare(self.scale.evaluator_rows)

    def _prepare(self, rows: int) -> Path:
        source, names = Path(self.evaluators.dataset), self.evaluators.model.names
        rest = (self.scale.test_rows, self.table.split, self.shared)
        return prepare_data(source, names, rows, *rest)

    @property
    def trained_key(self) -> str:
        """Hash of what decides the model."""
        return digest([digest([to_plain(self.spec), self.bundle]), key_of(self.data)])

    @property
    def measured_key(self) -> str:
        """Hash of what decides the rows, given the model."""
        asked = [to_plain(column) for column in self.table.columns.values()]
        shipped = load_bundle(self.bundle).hash if self.bundle else ''
        data, evaluators = key_of(self.data), self.evaluator_folder.name
        return digest([asked, self.table.split, self.scale.samples, evaluators, data, shipped])

    @property
    def metrics(self) -> dict[str, list[Column]]:
        """Metrics that the columns ask for, with those columns."""
        columns = self.table.columns.values()
        return {
            metric: [column for column in columns if column.metric == metric]
            for metric in dict.fromkeys(column.metric for column in columns)
        }

    @property
    def evaluator_folder(self) -> Path:
        """Where the weights of the evaluators lie."""
        spec = self.evaluators
        parts = to_plain([spec.model.modalities, spec.unimodal, spec.classifiers])
        key = digest([parts, spec.validation_fraction, key_of(self.evaluator_data)])
        return self.shared / 'evaluators' / f'{self.dataset}-{key}'

    @property
    def unimodal(self) -> dict[str, Path]:
        """Where the autoencoder of each modality is shared, if the model has any of its own."""
        if self.bundle or not trains_apart(self.spec):
            return {}
        return {name: self.shared / 'unimodal' / self._vae(name) for name in self.spec.model.names}

    @property
    def _quiet(self) -> bool:
        return self.options.quiet or self.options.jobs > 1

    def _vae(self, name: str) -> str:
        spec = self.spec
        parts = (autoencoder_part(spec.model.modality(name)), spec.unimodal[name])
        run = (spec.seed, spec.validation_fraction, spec.precision)
        return f'{name}-{digest([*map(to_plain, parts), *run, key_of(self.data)])}'

    def run_in(self, work: Path) -> Run:
        """A training run on the prepared rows."""
        spec = replace(self.spec, dataset=self.data.as_posix())
        return Run(
            spec, work, self.options.device, resume=True, quiet=self._quiet, classifiers=False
        )

    def fit_shared(self, name: str) -> None:
        """Train the autoencoder of one modality that several models share."""
        fit_unimodal(self.run_in(self.unimodal[name]), name)

    def fit_evaluators(self) -> None:
        """Train what evaluates the model, unless that is there."""
        if ACCURACY in self.metrics:
            self.classifiers()
        if MFD in self.metrics:
            self.features()

    def classifiers(self) -> Classifiers:
        """The evaluation classifiers, trained on real data if they are not there yet."""
        spec = replace(self.evaluators, dataset=self.evaluator_data.as_posix())
        run = Run(spec, self.evaluator_folder, self.options.device, resume=True, quiet=self._quiet)
        return train_classifiers(run, load_dataset(self.evaluator_data, 'train'))[0]

    def features(self) -> Mapping[str, Encode]:
        """Feature encoders, trained as long as the classifiers if they are not there yet."""
        spec, stage = self.evaluators, StageSpec(self.evaluators.classifiers.epochs)
        training = load_dataset(self.evaluator_data, 'train')
        folder = self.evaluator_folder
        return train_features(spec, training, folder, self.options.device, stage, self._quiet)

    def classifier_accuracy(self) -> dict[str, float]:
        """Accuracy of the classifiers on real data, by modality; empty where none is needed."""
        if ACCURACY not in self.metrics:
            return {}
        test = load_dataset(self.evaluator_data, self.table.split)
        modalities = self.evaluators.model.modalities
        accuracy = classifier_accuracy(test, self._labels(test), self.classifiers())
        return {m.name: accuracy[m.name] for m in modalities if not build_modality(m).classes}

    def test(self) -> Dataset:
        """What the model is measured on."""
        return load_dataset(self.data, self.table.split)

    def trained(self) -> Bundle:
        """Load the model, which has been trained."""
        return load_bundle(self.bundle or self.folder)

    def found(self) -> dict[str, Any] | None:
        """
        What was measured before, or None if the trial has to run.

        :raises ConfigError: if its folder holds a model of other settings.
        """
        self._check_settings()
        try:
            found: dict[str, Any] = json.loads((self.folder / ROWS).read_text())
        except FileNotFoundError:
            return None
        return found if found['measured'] == self.measured_key else None

    def run(self) -> None:
        """Train (unless it is trained) and measure; what was found is in ``rows.json`` then."""
        self._check_settings()
        began = time.monotonic()
        bundle = self._train()
        trained = time.monotonic()
        found = {
            'measured': self.measured_key,
            'dataset': self.dataset,
            'variant': self.variant,
            'family': bundle.spec.family,
            'bundle': f'{bundle.name}@{bundle.hash[:8]}',
            'seed': self.seed,
            'rows': [vars(row) for row in self._measure(bundle)],
            'training_seconds': bundle.training.get('seconds', {}),
            'seconds': {
                'train': round(trained - began, 1),
                'measure': round(time.monotonic() - trained, 1),
            },
        }
        partial = self.folder / f'{ROWS}.partial'
        partial.write_text(json.dumps(found, indent=1) + '\n')
        partial.replace(self.folder / ROWS)
        shutil.rmtree(self.folder / WORK, ignore_errors=True)

    def _train(self) -> Bundle:
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = {'trained': self.trained_key, 'spec': to_plain(self.spec)}
        (self.folder / SETTINGS).write_text(json.dumps(settings, indent=1) + '\n')
        if self.bundle or (self.folder / MANIFEST).is_file():
            return self.trained()
        run = self.run_in(self.folder / WORK)
        for name, shared in self.unimodal.items():
            target = checkpoint(run, name)
            if not target.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(checkpoint(replace(run, work=shared), name), target)
        return train(run, self.folder, self.command)

    def _measure(self, bundle: Bundle) -> list[Row]:
        engine = reference_engine(bundle, self.options.device)
        rows = []
        for metric, columns in self.metrics.items():
            rows += METRICS[metric](self, engine, columns)
        return rows

    def _labels(self, dataset: Dataset) -> np.ndarray:
        labels = label_indices(dataset, self.evaluators.model)
        assert labels is not None  # evaluators were trained with them
        return labels

    def _check_settings(self) -> None:
        file = self.folder / SETTINGS
        if file.is_file() and json.loads(file.read_text())['trained'] != self.trained_key:
            raise ConfigError(
                f'{self.folder}: holds a model of other settings or data; remove it, or name'
                ' another folder with --out'
            )

    def measure_coherence(self, engine: Engine, columns: Asking) -> list[Row]:
        """Rows ``accuracy`` of what the columns ask for."""
        test, classifiers, rows = self.test(), self.classifiers(), []
        for estimator, pairs in asked_pairs(columns, test.names):
            rows += measure_coherence(
                engine, test, self._labels(test), classifiers, pairs, estimator
            )
        return rows

    def measure_frechet(self, engine: Engine, columns: Asking) -> list[Row]:
        """Rows ``mfd`` and ``mfd_overall`` of what the columns ask for."""
        test, features, rows = self.test(), self.features(), []
        for estimator, pairs in asked_pairs(columns, test.names):
            observed = [subset for subset, _ in pairs]
            rows += measure_frechet(
                engine, test, self._labels(test), features, observed, estimator
            )
        return rows

    def measure_likelihood(self, engine: Engine, columns: Asking) -> list[Row]:
        """Rows ``log_likelihood``: those of the paper."""
        test, model = self.test(), load_model(self.trained()).to(engine.device)
        return measure_likelihood(model, test, paper_terms(*test.names), self.scale.samples)


Asking = Sequence[Column]
METRICS: Mapping[str, Callable[[Trial, Engine, Asking], list[Row]]] = {
    ACCURACY: Trial.measure_coherence,
    MFD: Trial.measure_frechet,
    'log_likelihood': Trial.measure_likelihood,
}


def plan_trials(table: Table, options: TableOptions, command: str = '') -> tuple[Trial, ...]:
    """
    List the models of a table.

    :param command: as typed, for the model cards.
    :raises ConfigError: if a variant, metric or scale is unknown.
    """
    unknown = set(options.variants) - set(table.variants)
    if unknown:
        raise ConfigError(
            f'table {table.name} has no variant {", ".join(sorted(unknown))};'
            f' it has: {", ".join(table.variants)}'
        )
    for column in table.columns.values():
        if column.metric not in METRICS:
            known = ', '.join(METRICS)
            raise ConfigError(f'metric: unknown "{column.metric}"; known: {known}')
    if options.dataset and len(table.datasets) > 1:
        raise ConfigError(f'--dataset: table {table.name} has several datasets; leave it out')
    return tuple(
        Trial(table, options, dataset, name, seed, command)
        for dataset in table.datasets
        for seed in range(options.seeds or table.scale(options.scale).seeds)
        for name in table.variants
        if not options.variants or name in options.variants
        if seed == 0 or not table.variants[name].bundle
    )


def asked_pairs(
    columns: Asking, names: Sequence[str]
) -> Iterator[tuple[str, list[tuple[tuple[str, ...], tuple[str, ...]]]]]:
    """Per estimator, subsets to observe, each with the targets that some column asks for."""
    for estimator in dict.fromkeys(column.estimator for column in columns):
        asking = [column for column in columns if column.estimator == estimator]
        pairs = []
        for subset in subsets(names):
            targets = tuple(t for t in names if any(c.asks(t, subset, names) for c in asking))
            if targets:
                pairs.append((subset, targets))
        yield estimator, pairs
