"""Reconstruction error: how far is what is generated from the data itself?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from mm_perception.data.dataset import Dataset
from mm_perception.engines.engine import Engine
from mm_perception.evaluation.generation import Row, generate, mean_row
from mm_perception.modalities.base import Array
from mm_perception.spec import ModelSpec

ErrorMeasure = Callable[[Array, Array], np.ndarray]


def mean_squared_error(truth: Array, generated: Array) -> np.ndarray:
    """Mean over the elements of each sample ``[B, *shape]``: ``float64[B]``."""
    result: np.ndarray = np.square(_flat(generated) - _flat(truth)).mean(1)
    return result


def mean_absolute_error(truth: Array, generated: Array) -> np.ndarray:
    """Mean over the elements of each sample ``[B, *shape]``: ``float64[B]``."""
    result: np.ndarray = np.abs(_flat(generated) - _flat(truth)).mean(1)
    return result


def cross_entropy(truth: Array, generated: Array) -> np.ndarray:
    """
    Negative log probability of the true class, in nats: ``float64[B]``.

    :param truth: one-hot or probabilities, ``[B, K]``.
    :param generated: probabilities, ``[B, K]``; those below 1e-12 count as that.
    """
    result: np.ndarray = -(_flat(truth) * np.log(_flat(generated).clip(1e-12))).sum(1)
    return result


_CONTINUOUS: Mapping[str, ErrorMeasure] = {'mse': mean_squared_error, 'mae': mean_absolute_error}
_MEASURES: Mapping[str, Mapping[str, ErrorMeasure]] = {
    'categorical': {'cross_entropy': cross_entropy}
}


def measure_reconstruction(
    engine: Engine,
    dataset: Dataset,
    spec: ModelSpec,
    observed: Iterable[tuple[str, ...]],
    estimator: str = 'mean',
    seed: int = 0,
) -> list[Row]:
    """
    Generate every modality, observed or not, and compare it with the data of its row.

    :param observed: subsets of modalities to observe.
    :param estimator: one of :data:`mm_perception.evaluation.generation.ESTIMATORS`.
    :returns: ``mse`` and ``mae`` (``cross_entropy`` where the likelihood is categorical) per
        subset and modality, each with its standard error over the samples.
    """
    wanted = [(subset, dataset.names) for subset in observed]
    rows = []
    for made in generate(engine, dataset, wanted, estimator, seed, 'reconstruction'):
        measures = _MEASURES.get(spec.modality(made.target).likelihood, _CONTINUOUS)
        parts: dict[str, list[np.ndarray]] = {metric: [] for metric in measures}
        for i, arrays in made.batches:
            truth = dataset.rows(made.target, i)
            for metric, measure in measures.items():
                parts[metric].append(measure(truth, arrays))
        rows += [
            mean_row(metric, made.target, made.observed, estimator, np.concatenate(values))
            for metric, values in parts.items()
        ]
    return rows


def _flat(array: Array) -> np.ndarray:
    return array.reshape(len(array), -1).astype(np.float64)
