"""Coherence: does what is generated show what was observed? The figures of every bundle."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mm_perception import __version__
from mm_perception.bundle import Bundle
from mm_perception.data.dataset import Dataset, load_dataset, splits
from mm_perception.engines.build import build_engine, reference_engine
from mm_perception.engines.classifiers import Classifiers, load_classifiers
from mm_perception.engines.engine import FLOAT32, Engine
from mm_perception.evaluation.generation import (
    Row,
    cross_targets,
    generate,
    label_indices,
    mean_row,
    subsets,
)
from mm_perception.markdown import markdown_table


def measure_coherence(
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

    :param labels: true label indices, ``int64[N]``.
    :param wanted: subsets to observe, each with the modalities to generate.
    :param estimator: one of :data:`mm_perception.evaluation.generation.ESTIMATORS`.
    :returns: ``accuracy`` per subset and target: share read as the true label, 0..1.
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


def evaluate_bundle(
    bundle: Bundle,
    dataset: Path,
    device: str = 'cpu',
    estimator: str = 'mean',
    seed: int = 0,
    precision: str = FLOAT32,
) -> dict[str, Any]:
    """
    Measure coherence for every subset of inputs and every target, on every test split.

    :param dataset: folder of the dataset; of its splits named ``test*`` the rows in which every
        modality was recorded are used.
    :param estimator: ``mean`` or ``sample`` of the latents.
    :param precision: with another than ``float32``, what a robot would run measures.
    :returns: per split: ``n``, ``classifier_accuracy``, ``by_observed`` and ``rows`` (fields
        of :class:`Row`); empty where the bundle carries no classifiers.
    """
    if not bundle.classifiers:
        return {}
    classifiers = load_classifiers(bundle)
    if precision == FLOAT32:
        engine = reference_engine(bundle, device)
    else:
        engine = build_engine(bundle, device, precision=precision)
    result: dict[str, Any] = {}
    for split in (name for name in splits(dataset) if name.startswith('test')):
        data = load_dataset(dataset, split).complete()
        labels = label_indices(data, bundle.spec)
        if labels is None or not len(data):
            continue
        wanted = cross_targets(data.names, subsets(data.names)[:-1])
        rows = measure_coherence(engine, data, labels, classifiers, wanted, estimator, seed)
        result[split] = {
            'n': len(data),
            'classifier_accuracy': classifier_accuracy(data, labels, classifiers),
            'by_observed': by_observed(rows),
            'rows': [vars(row) for row in rows],
        }
    return result


def by_observed(rows: Iterable[Row]) -> dict[str, dict[str, float]]:
    """Mean over the subsets of each size: target -> number of observed -> accuracy."""
    gathered: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        sizes = gathered.setdefault(row.target, {})
        sizes.setdefault(str(len(row.observed)), []).append(row.value)
    return {
        target: {size: float(np.mean(values)) for size, values in sizes.items()}
        for target, sizes in gathered.items()
    }


def coherence_table(split: str, figures: Mapping[str, Any]) -> list[str]:
    """Lines of a Markdown table: accuracy in % per target and number of observed modalities."""
    sizes = sorted({size for row in figures['by_observed'].values() for size in row})
    estimators = ', '.join(sorted({row['estimator'] for row in figures['rows']}))
    rows = [
        [target]
        + [f'{100 * row[size]:.1f}' for size in sizes]
        + [f'{100 * figures["classifier_accuracy"][target]:.1f}']
        for target, row in figures['by_observed'].items()
    ]
    return [
        f'## Coherence on `{split}` ({figures["n"]:,} samples, estimator {estimators})',
        '',
        'Accuracy in % of what is generated, read by classifiers trained on the real training'
        ' data, by the number of other modalities observed (averaged over the subsets).',
        '',
        *markdown_table(['target', *sizes, 'classifier on real data'], rows),
    ]


def json_rows(bundle: Bundle, figures: Mapping[str, Any], seed: int) -> list[dict[str, Any]]:
    """All rows of an evaluation, each complete in itself, for machines."""
    return [
        {
            'family': bundle.spec.family,
            'bundle': f'{bundle.name}@{bundle.hash[:8]}',
            'seed': seed,
            'test_set': split,
            **row,
        }
        for split, result in figures.items()
        for row in result['rows']
    ]


def versions() -> dict[str, str]:
    """Versions of what decides a figure."""
    return {
        'mm_perception': __version__,
        'torch': torch.__version__,
        'python': platform.python_version(),
    }
