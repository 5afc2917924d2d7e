"""Frechet distance between real and generated data, in the features of an autoencoder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from mm_perception.data.dataset import Dataset
from mm_perception.engines.engine import Engine
from mm_perception.engines.torch_classifiers import run_batched
from mm_perception.errors import DataError
from mm_perception.evaluation.generation import Row, cross_targets, generate
from mm_perception.modalities import build_modality
from mm_perception.modalities.base import Array
from mm_perception.model.distributions import find_likelihood
from mm_perception.model.networks import build_pair, split_posterior
from mm_perception.spec import ModalitySpec


class FeatureEncoder(nn.Module):
    """
    Plain autoencoder of one modality: no sampling, no prior.

    :param spec: the modality; its ``latent_dim`` is the size D of the features.
    """

    def __init__(self, spec: ModalitySpec) -> None:
        super().__init__()
        self.encoder, self.decoder = build_pair(spec, build_modality(spec).shape)
        self._likelihood = find_likelihood(spec.likelihood)

    def forward(self, data: Tensor) -> Tensor:
        """Features ``float[B, D]`` of ``float[B, *shape]``."""
        return split_posterior(self.encoder(data))[0]

    def reconstruct(self, features: Tensor) -> Tensor:
        """Data ``float[B, *shape]`` of features ``float[B, D]``."""
        return self._likelihood.mean(self.decoder(features))


class FeatureEncoders:
    """
    One feature encoder per modality.

    :param encoders: trained encoders, in evaluation mode.
    """

    def __init__(self, encoders: Mapping[str, FeatureEncoder]) -> None:
        self._encoders = {name: encoder.eval() for name, encoder in encoders.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """Modalities that have features."""
        return tuple(self._encoders)

    def encode(self, name: str, arrays: Array) -> np.ndarray:
        """
        Features of data of one modality, real or generated.

        :param arrays: ``float32[B, *shape]``.
        :returns: ``float32[B, D]``.
        """
        return run_batched(self._encoders[name], arrays)


@dataclass(frozen=True)
class ModalityFrechet:
    """
    Frechet distances of one modality; 0 is best.

    :param per_class: distance within each class, by label index.
    :param mean: of ``per_class``: eq. 20 of the Nexus paper.
    :param overall: with one normal distribution over all classes.
    """

    per_class: dict[int, float]
    mean: float
    overall: float


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
) -> ModalityFrechet:
    """
    Modality Frechet distance (MFD), Vasco et al. 2022, eq. 20.

    :param real_features: ``float[N, D]``; ``generated_features``: ``float[K, D]``.
    :param labels_real: label indices, ``int[N]``.
    :param labels_generated: labels that the data were to show, ``int[K]``.
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
    return ModalityFrechet(per_class, float(np.mean(list(per_class.values()))), overall)


def measure_frechet(
    engine: Engine,
    dataset: Dataset,
    labels: np.ndarray,
    features: FeatureEncoders,
    observed: Iterable[tuple[str, ...]],
    estimator: str = 'mean',
    seed: int = 0,
) -> list[Row]:
    """
    Compare what is generated with the real data of the same rows.

    :param labels: true label indices, ``int64[N]``.
    :param features: encoders of the modalities to measure; others are left out.
    :param observed: subsets of modalities to observe.
    :param estimator: one of :data:`mm_perception.evaluation.generation.ESTIMATORS`.
    :returns: ``mfd`` (eq. 20) and ``mfd_overall`` per subset and target.
    """
    names = [name for name in dataset.names if name in features.names]
    real = {n: features.encode(n, dataset.unique(n, np.unique(dataset.index[n]))) for n in names}
    real = {n: real[n][np.unique(dataset.index[n], return_inverse=True)[1]] for n in names}
    wanted = [
        (subset, tuple(t for t in targets if t in names))
        for subset, targets in cross_targets(dataset.names, observed)
    ]
    rows = []
    for made in generate(engine, dataset, wanted, estimator, seed, 'frechet'):
        parts = [features.encode(made.target, arrays) for _, arrays in made.batches]
        result = modality_frechet_distance(
            real[made.target], np.concatenate(parts), labels, labels
        )
        for metric, value in (('mfd', result.mean), ('mfd_overall', result.overall)):
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
