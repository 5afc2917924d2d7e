"""Frechet distance between real and generated data, in the features of an autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from mm_perception.data.dataset import Dataset
from mm_perception.engines.engine import Engine
from mm_perception.errors import DataError
from mm_perception.evaluation.generation import Row, cross_targets, generate
from mm_perception.modalities.base import Array

Encode = Callable[[Array], np.ndarray]
"""Features ``float32[B, D]`` of data ``float32[B, *shape]``, real or generated."""


def frechet_distance(
    mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray
) -> float:
    """
    Squared Frechet distance between two normal distributions.

    tr((A B)^(1/2)) is the sum of the singular values of A^(1/2) B^(1/2), which needs no root
    of a matrix that is not symmetric and stays exact where a covariance is singular.

    Heusel et al. 2017, "GANs trained by a two time-scale update rule", eq. 6.

    :param mean_a: ``[D]``; ``cov_a``: ``[D, D]``, symmetric; likewise ``b``.
    """
    overlap = np.linalg.svd(_root(cov_a) @ _root(cov_b), compute_uv=False).sum()
    distance = np.square(mean_a - mean_b).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * overlap
    return max(0.0, float(distance))


def modality_frechet_distance(
    real_features: np.ndarray,
    generated_features: np.ndarray,
    labels_real: np.ndarray,
    labels_generated: np.ndarray,
) -> tuple[dict[int, float], float]:
    """
    Modality Frechet distance (MFD), Vasco et al. 2022, eq. 20.

    :param real_features: ``float[N, D]``; ``generated_features``: ``float[K, D]``.
    :param labels_real: label indices, ``int[N]``.
    :param labels_generated: labels that the data were to show, ``int[K]``.
    :returns: distance within each class by label index, of which eq. 20 is the mean, and the
        distance with one normal distribution over all classes; 0 is best.
    :raises DataError: if a class has fewer than two real or generated samples.
    """
    per_class = {
        int(label): _distance(
            real_features[labels_real == label],
            generated_features[labels_generated == label],
            f'class {label}',
        )
        for label in np.union1d(labels_real, labels_generated)
    }
    overall = _distance(real_features, generated_features, 'the whole set')
    return per_class, overall


def measure_frechet(
    engine: Engine,
    dataset: Dataset,
    labels: np.ndarray,
    features: Mapping[str, Encode],
    observed: Iterable[tuple[str, ...]],
    estimator: str = 'mean',
    seed: int = 0,
) -> list[Row]:
    """
    Compare what is generated with the real data of the same rows.

    :param labels: true label indices, ``int64[N]``.
    :param features: encoders by modality; those without one are left out.
    :param observed: subsets of modalities to observe.
    :param estimator: one of :data:`mm_perception.evaluation.generation.ESTIMATORS`.
    :returns: ``mfd`` (eq. 20) and ``mfd_overall`` per subset and target.
    """
    real = {}
    for name in (name for name in dataset.names if name in features):
        shown, place = np.unique(dataset.index[name], return_inverse=True)
        real[name] = features[name](dataset.unique(name, shown))[place]
    wanted = [
        (subset, tuple(t for t in targets if t in real))
        for subset, targets in cross_targets(dataset.names, observed)
    ]
    rows = []
    for made in generate(engine, dataset, wanted, estimator, seed, 'frechet'):
        parts = np.concatenate([features[made.target](arrays) for _, arrays in made.batches])
        per_class, overall = modality_frechet_distance(real[made.target], parts, labels, labels)
        mean = float(np.mean(list(per_class.values())))
        for metric, value in (('mfd', mean), ('mfd_overall', overall)):
            rows.append(Row(metric, made.target, made.observed, estimator, value, len(labels)))
    return rows


def _root(matrix: np.ndarray) -> np.ndarray:
    """Square root of a symmetric matrix; eigenvalues below 0 (rounding) count as 0."""
    values, vectors = np.linalg.eigh(matrix.astype(np.float64))
    root: np.ndarray = vectors * np.sqrt(values.clip(0.0)) @ vectors.T
    return root


def _distance(real: np.ndarray, generated: np.ndarray, what: str) -> float:
    if min(len(real), len(generated)) < 2:
        raise DataError(f'{what} has fewer than two samples; a Frechet distance needs two')
    real, generated = real.astype(np.float64), generated.astype(np.float64)
    return frechet_distance(
        real.mean(0), _covariance(real), generated.mean(0), _covariance(generated)
    )


def _covariance(features: np.ndarray) -> np.ndarray:
    return np.atleast_2d(np.cov(features, rowvar=False))
