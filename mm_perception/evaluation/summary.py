"""The figures that every bundle carries: coherence on the test sets of its dataset."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mm_perception.bundle import Bundle
from mm_perception.data.dataset import load_dataset, splits
from mm_perception.evaluation.classifiers import load_classifiers
from mm_perception.evaluation.coherence import (
    CoherenceRow,
    classifier_accuracy,
    measure_coherence,
    subsets,
)
from mm_perception.evaluation.labels import label_indices
from mm_perception.inference import build_engine


def evaluate_bundle(bundle: Bundle, dataset: Path, device: str = 'cpu') -> dict[str, Any]:
    """
    Measure coherence for every subset of inputs and every target, on every test split.

    :returns: per split: ``classifier_accuracy``, ``rows`` (target, observed, estimator,
        value, n) and ``by_observed``; empty where the bundle carries no classifiers.
    """
    if not bundle.classifiers:
        return {}
    engine, classifiers = build_engine(bundle, device), load_classifiers(bundle)
    result: dict[str, Any] = {}
    for split in splits(dataset):
        if not split.startswith('test'):
            continue
        data = load_dataset(dataset, split)
        labels = label_indices(data, bundle.spec)
        assert labels is not None  # classifiers exist only where labels do
        rows = measure_coherence(engine, data, labels, classifiers, subsets(data.names)[:-1])
        result[split] = {
            'n': len(data),
            'classifier_accuracy': classifier_accuracy(data, labels, classifiers),
            'by_observed': by_observed(rows),
            'rows': [vars(row) for row in rows],
        }
    return result


def by_observed(rows: Iterable[CoherenceRow]) -> dict[str, dict[str, float]]:
    """Mean over the subsets of each size: target -> number of observed -> accuracy."""
    gathered: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        sizes = gathered.setdefault(row.target, {})
        sizes.setdefault(str(len(row.observed)), []).append(row.value)
    return {
        target: {size: float(np.mean(values)) for size, values in sizes.items()}
        for target, sizes in gathered.items()
    }
