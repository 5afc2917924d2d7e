"""Measures of a table: from the columns that ask to rows, one function per metric."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mm_perception.bundle import Bundle
from mm_perception.data.dataset import Dataset
from mm_perception.errors import ConfigError
from mm_perception.evaluation.coherence import measure_accuracy
from mm_perception.evaluation.frechet import measure_frechet
from mm_perception.evaluation.generation import subsets
from mm_perception.evaluation.labels import label_indices
from mm_perception.evaluation.likelihood import measure_likelihood, paper_terms
from mm_perception.evaluation.rows import Row
from mm_perception.experiments.judges import FEATURES, READ, Judges
from mm_perception.experiments.table import Column
from mm_perception.inference.engine import Engine
from mm_perception.inference.torch_engine import load_model


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
