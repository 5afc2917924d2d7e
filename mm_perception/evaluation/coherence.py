"""Coherence: does what is generated show what was observed?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mm_perception.data.dataset import Dataset
from mm_perception.evaluation.classifiers import Classifiers
from mm_perception.evaluation.generation import cross_targets, generate
from mm_perception.evaluation.rows import Row, mean_row
from mm_perception.inference.engine import Engine


def measure_coherence(
    engine: Engine,
    dataset: Dataset,
    labels: np.ndarray,
    classifiers: Classifiers,
    observed: Iterable[tuple[str, ...]],
    estimator: str = 'mean',
    seed: int = 0,
) -> list[Row]:
    """
    Generate every modality that was not observed and let a classifier read it.

    :param labels: true label indices, ``int64[N]``.
    :param observed: subsets of modalities to observe.
    :param estimator: one of :data:`mm_perception.evaluation.generation.ESTIMATORS`.
    :returns: ``accuracy`` per subset and target: share read as the true label, 0..1.
    """
    wanted = cross_targets(dataset.names, observed)
    return measure_accuracy(engine, dataset, labels, classifiers, wanted, estimator, seed)


def measure_accuracy(
    engine: Engine,
    dataset: Dataset,
    labels: np.ndarray,
    classifiers: Classifiers,
    wanted: Sequence[tuple[tuple[str, ...], tuple[str, ...]]],
    estimator: str = 'mean',
    seed: int = 0,
) -> list[Row]:
    """
    Generate modalities, observed or not, and let a classifier read them.

    :param wanted: subsets to observe, each with the modalities to generate.
    :returns: as :func:`measure_coherence`.
    """
    rows = []
    for made in generate(engine, dataset, wanted, estimator, seed, 'coherence'):
        right = np.concatenate(
            [classifiers.read(made.target, arrays) == labels[i] for i, arrays in made.batches]
        )
        rows.append(mean_row('accuracy', made.target, made.observed, estimator, right))
    return rows


def classifier_accuracy(
    dataset: Dataset, labels: np.ndarray, classifiers: Classifiers
) -> dict[str, float]:
    """Accuracy of the classifiers on the real data of each modality."""
    result = {}
    for name in dataset.names:
        read = classifiers.read(name, dataset.unique(name, np.arange(len(dataset.values[name]))))
        result[name] = float((read[dataset.index[name]] == labels).mean())
    return result
