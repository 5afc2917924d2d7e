"""One model of a table: train it, measure it, keep the rows."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mm_perception.bundle import MANIFEST, Bundle, load_bundle
from mm_perception.config import to_plain
from mm_perception.data.dataset import Dataset, load_dataset
from mm_perception.engines.build import reference_engine
from mm_perception.engines.engine import Engine
from mm_perception.engines.torch_engine import load_model
from mm_perception.errors import ConfigError
from mm_perception.evaluation.coherence import measure_accuracy
from mm_perception.evaluation.frechet import measure_frechet
from mm_perception.evaluation.generation import Row, label_indices, subsets
from mm_perception.evaluation.likelihood import measure_likelihood, paper_terms
from mm_perception.lab.tables.evaluators import FEATURES, READ, Judges, train_judges
from mm_perception.lab.tables.table import Column, Unit, digest
from mm_perception.spec import TrainingSpec
from mm_perception.training.run import Run, checkpoint, fit_unimodal, train, trains_apart
from mm_perception.training.stages import autoencoder_part


@dataclass(frozen=True)
class Subject:
    """
    A trained model, the data that it is measured on, and who judges.

    :param samples: importance samples per row.
    """

    bundle: Bundle
    engine: Engine
    test: Dataset
    judges: Judges
    samples: int

    @property
    def labels(self) -> np.ndarray:
        """True label indices of the test rows, ``int64[N]``."""
        labels = label_indices(self.test, self.bundle.spec)
        assert labels is not None  # judges were trained with them
        return labels


Measure = Callable[[Subject, Sequence[Column]], list[Row]]


def measure(subject: Subject, columns: Collection[Column]) -> list[Row]:
    """
    Measure all that the columns of a table ask for.

    :raises ConfigError: if a column names an unknown metric.
    """
    rows = []
    for metric in dict.fromkeys(column.metric for column in columns):
        asking = [column for column in columns if column.metric == metric]
        rows += find_measure(metric)(subject, asking)
    return rows


def find_measure(metric: str) -> Measure:
    """
    Find the function that measures a metric.

    :raises ConfigError: if there is none.
    """
    if metric not in MEASURES:
        raise ConfigError(f'metric: unknown "{metric}"; known: {", ".join(MEASURES)}')
    return MEASURES[metric]


def asked_pairs(
    columns: Collection[Column], names: Sequence[str]
) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Subsets to observe, each with the targets that some column asks for."""
    pairs = []
    for subset in subsets(names):
        targets = tuple(t for t in names if any(c.asks(t, subset, names) for c in columns))
        if targets:
            pairs.append((subset, targets))
    return pairs


def _estimators(columns: Sequence[Column]) -> dict[str, list[Column]]:
    names = dict.fromkeys(column.estimator for column in columns)
    return {name: [c for c in columns if c.estimator == name] for name in names}


def _accuracy(subject: Subject, columns: Sequence[Column]) -> list[Row]:
    assert subject.judges.classifiers is not None
    rows = []
    for estimator, asking in _estimators(columns).items():
        rows += measure_accuracy(
            subject.engine,
            subject.test,
            subject.labels,
            subject.judges.classifiers,
            asked_pairs(asking, subject.test.names),
            estimator,
        )
    return rows


def _frechet(subject: Subject, columns: Sequence[Column]) -> list[Row]:
    assert subject.judges.features is not None
    rows = []
    for estimator, asking in _estimators(columns).items():
        observed = [subset for subset, _ in asked_pairs(asking, subject.test.names)]
        rows += measure_frechet(
            subject.engine,
            subject.test,
            subject.labels,
            subject.judges.features,
            observed,
            estimator,
        )
    return rows


def _likelihood(subject: Subject, columns: Sequence[Column]) -> list[Row]:
    model = load_model(subject.bundle).to(subject.engine.device)
    first, second = subject.test.names
    return measure_likelihood(model, subject.test, paper_terms(first, second), subject.samples)


MEASURES: Mapping[str, Measure] = {
    READ: _accuracy,
    FEATURES: _frechet,
    'log_likelihood': _likelihood,
}
ROWS, SETTINGS, WORK = 'rows.json', 'settings.json', 'work'


@dataclass(frozen=True)
class Job:
    """
    A unit of a table on prepared data.

    :param spec: its training on the prepared data.
    :param data_key: hash of the prepared data.
    :param judge: what the judges learn from, and ``judge_folder`` their weights.
    :param columns: of the table.
    :param split: of the data, that the model is measured on.
    :param samples: importance samples per test row.
    :param shared: folder of what several models use.
    :param command: as typed, for the model card.
    """

    unit: Unit
    spec: TrainingSpec
    data_key: str
    judge: TrainingSpec
    judge_folder: Path
    columns: Mapping[str, Column]
    split: str
    samples: int
    shared: Path
    device: str
    quiet: bool
    command: str

    @property
    def trained_key(self) -> str:
        """Hash of what decides the model."""
        return digest([self.unit.key, self.data_key])

    @property
    def measured_key(self) -> str:
        """Hash of what decides the rows, given the model."""
        asked = [to_plain(column) for column in self.columns.values()]
        shipped = load_bundle(self.unit.bundle).hash if self.unit.bundle else ''
        return digest(
            [asked, self.split, self.samples, self.judge_folder.name, self.data_key, shipped]
        )

    @property
    def metrics(self) -> set[str]:
        """Metrics that the columns ask for."""
        return {column.metric for column in self.columns.values()}

    @property
    def unimodal(self) -> dict[str, Path]:
        """Where the autoencoder of each modality is shared, if the model has any of its own."""
        if self.unit.bundle or not trains_apart(self.spec):
            return {}
        return {name: self.shared / 'unimodal' / self._vae(name) for name in self.spec.model.names}

    def _vae(self, name: str) -> str:
        spec = self.spec
        parts = (autoencoder_part(spec.model.modality(name)), spec.unimodal[name])
        plain = [to_plain(part) for part in parts]
        run = (spec.seed, spec.validation_fraction, spec.precision)
        key = digest([*plain, *run, self.data_key])
        return f'{name}-{key}'


def read_rows(job: Job) -> dict[str, Any] | None:
    """
    What a job found before, or None if it has to run.

    :raises ConfigError: if its folder holds a model of other settings.
    """
    folder = job.unit.folder
    _check_settings(job)
    try:
        found: dict[str, Any] = json.loads((folder / ROWS).read_text())
    except FileNotFoundError:
        return None
    return found if found['measured'] == job.measured_key else None


def judges_of(job: Job) -> Judges:
    """Judges of the job's dataset, trained if they are not there yet."""
    return train_judges(job.judge, job.metrics, job.split, job.judge_folder, job.device, job.quiet)


def fit_shared(job: Job, name: str) -> None:
    """Train the autoencoder of one modality that several models share."""
    run = Run(job.spec, job.unimodal[name], job.device, resume=True, quiet=job.quiet)
    fit_unimodal(run, name)


def run_job(job: Job) -> dict[str, Any]:
    """Train (unless it is trained) and measure; what was found is in ``rows.json`` then."""
    _check_settings(job)
    folder = job.unit.folder
    began = time.monotonic()
    bundle = _train(job)
    trained = time.monotonic()
    found = {
        'measured': job.measured_key,
        'dataset': job.unit.dataset,
        'variant': job.unit.variant,
        'family': bundle.spec.family,
        'bundle': f'{bundle.name}@{bundle.hash[:8]}',
        'seed': job.unit.seed,
        'rows': [vars(row) for row in _measure(job, bundle)],
        'training_seconds': bundle.training.get('seconds', {}),
        'seconds': {
            'train': round(trained - began, 1),
            'measure': round(time.monotonic() - trained, 1),
        },
    }
    partial = folder / f'{ROWS}.partial'
    partial.write_text(json.dumps(found, indent=1) + '\n')
    partial.replace(folder / ROWS)
    shutil.rmtree(folder / WORK, ignore_errors=True)
    return found


def found_rows(found: Mapping[str, Any]) -> list[Row]:
    """Rows of what a job found."""
    return [Row(**{**row, 'observed': tuple(row['observed'])}) for row in found['rows']]


def find_bundle_of(job: Job) -> Bundle:
    """The model of a job that has run."""
    return load_bundle(job.unit.bundle or job.unit.folder)


def load_test(job: Job) -> Dataset:
    """What the model of a job is measured on."""
    return load_dataset(Path(job.spec.dataset), job.split)


def _train(job: Job) -> Bundle:
    folder = job.unit.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SETTINGS).write_text(json.dumps(_settings(job), indent=1) + '\n')
    if job.unit.bundle or (folder / MANIFEST).is_file():
        return find_bundle_of(job)
    run = Run(job.spec, folder / WORK, job.device, resume=True, quiet=job.quiet, classifiers=False)
    for name, shared in job.unimodal.items():
        target = checkpoint(run, name)
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(checkpoint(replace(run, work=shared), name), target)
    return train(run, folder, job.command)


def _measure(job: Job, bundle: Bundle) -> list[Row]:
    engine, judges = reference_engine(bundle, job.device), judges_of(job)
    return measure(
        Subject(bundle, engine, load_test(job), judges, job.samples), list(job.columns.values())
    )


def _settings(job: Job) -> dict[str, Any]:
    return {'trained': job.trained_key, 'spec': to_plain(job.unit.spec)}


def _check_settings(job: Job) -> None:
    file = job.unit.folder / SETTINGS
    if file.is_file() and json.loads(file.read_text())['trained'] != job.trained_key:
        raise ConfigError(
            f'{job.unit.folder}: holds a model of other settings or data; remove it, or name'
            ' another folder with --out'
        )
