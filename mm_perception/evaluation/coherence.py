"""Coherence: does what is generated show what was observed?"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from mm_perception.data.dataset import Dataset
from mm_perception.evaluation.classifiers import Classifiers
from mm_perception.inference.engine import Engine

BATCH = 1000


@dataclass(frozen=True)
class CoherenceRow:
    """
    Accuracy of one generated modality given one subset of observed ones.

    :param target: the generated modality.
    :param observed: the observed modalities.
    :param estimator: ``mean`` or ``sample`` of the joint posterior.
    :param value: share read as the true label, 0..1.
    :param n: number of test samples.
    """

    target: str
    observed: tuple[str, ...]
    estimator: str
    value: float
    n: int


def subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """All non-empty subsets, the smallest first."""
    sizes = range(1, len(names) + 1)
    return [s for size in sizes for s in itertools.combinations(names, size)]


def measure_coherence(
    engine: Engine,
    dataset: Dataset,
    labels: np.ndarray,
    classifiers: Classifiers,
    observed: Iterable[tuple[str, ...]],
    estimator: str = 'mean',
    seed: int = 0,
) -> list[CoherenceRow]:
    """
    Generate every modality that was not observed and let a classifier read it.

    :param labels: true label indices, ``int64[N]``.
    :param observed: subsets of modalities to observe.
    :param estimator: ``mean`` or ``sample``; unimodal posteriors enter by their means.
    :returns: a row per subset and target.
    """
    generator = np.random.default_rng(seed)
    latents = encode_all(engine, dataset)
    rows = []
    for subset in tqdm(list(observed), desc='coherence', unit='subset', leave=False):
        present = np.array([[name in subset for name in dataset.names]])
        joint = fuse_all(engine, latents, present, estimator, generator)
        for target in dataset.names:
            if target in subset:
                continue
            read = [
                classifiers.read(target, engine.decode(target, part))
                for part in np.array_split(joint, max(1, len(joint) // BATCH))
            ]
            value = float((np.concatenate(read) == labels).mean())
            rows.append(CoherenceRow(target, subset, estimator, value, len(labels)))
    return rows


def encode_all(engine: Engine, dataset: Dataset) -> dict[str, np.ndarray]:
    """Unimodal posterior means of every row, ``float32[N, d_m]`` per modality."""
    latents = {}
    for name in dataset.names:
        unique = [
            engine.encode(name, dataset.unique(name, part))
            for part in np.array_split(
                np.arange(len(dataset.values[name])),
                max(1, len(dataset.values[name]) // BATCH),
            )
        ]
        latents[name] = np.concatenate(unique)[dataset.index[name]]
    return latents


def fuse_all(
    engine: Engine,
    latents: dict[str, np.ndarray],
    present: np.ndarray,
    estimator: str,
    generator: np.random.Generator,
) -> np.ndarray:
    """Joint latents of all rows with the same modalities present, ``float32[N, D]``."""
    count = len(next(iter(latents.values())))
    parts = []
    for rows in np.array_split(np.arange(count), max(1, count // BATCH)):
        batch = {name: latent[rows] for name, latent in latents.items()}
        mean, std = engine.fuse(batch, np.repeat(present, len(rows), axis=0))
        if estimator == 'sample':
            mean = mean + std * generator.standard_normal(mean.shape, dtype=np.float32)
        parts.append(mean)
    return np.concatenate(parts)


def classifier_accuracy(
    dataset: Dataset, labels: np.ndarray, classifiers: Classifiers
) -> dict[str, float]:
    """Accuracy of the classifiers on the real data of each modality."""
    result = {}
    for name in dataset.names:
        read = classifiers.read(name, dataset.unique(name, np.arange(len(dataset.values[name]))))
        result[name] = float((read[dataset.index[name]] == labels).mean())
    return result
