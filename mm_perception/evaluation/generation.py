"""What an engine makes of a whole dataset: rows of figures, labels, generation by batches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mm_perception.data.dataset import Dataset
from mm_perception.engines.engine import Engine
from mm_perception.errors import ConfigError, DataError
from mm_perception.modalities import Modality, build_modality
from mm_perception.modalities.base import Array
from mm_perception.progress import tqdm
from mm_perception.spec import ESTIMATORS, ModelSpec


@dataclass(frozen=True)
class Row:
    """
    One metric of one target given one subset of observed modalities.

    :param metric: such as ``accuracy``, ``mfd``, ``log_likelihood``.
    :param target: the modality that was generated, or ``latent``.
    :param observed: the observed modalities.
    :param estimator: ``mean`` or ``sample`` of the latents, or how else it was estimated.
    :param n: number of test samples.
    :param standard_error: of ``value``, where it is a mean over the test samples.
    """

    metric: str
    target: str
    observed: tuple[str, ...]
    estimator: str
    value: float
    n: int
    standard_error: float | None = None


def mean_row(
    metric: str, target: str, observed: tuple[str, ...], estimator: str, values: np.ndarray
) -> Row:
    """
    Row of the mean of one value per test sample, with its standard error.

    :param values: ``[N]``.
    """
    values = values.astype(np.float64)
    count = len(values)
    error = float(values.std(ddof=1)) / math.sqrt(count) if count > 1 else None
    return Row(metric, target, observed, estimator, float(values.mean()), count, error)


def class_modality(spec: ModelSpec) -> Modality[Any] | None:
    """Build the first modality whose data are labels; None if there is none."""
    return next((m for m in map(build_modality, spec.modalities) if m.classes), None)


def label_indices(dataset: Dataset, spec: ModelSpec) -> np.ndarray | None:
    """
    Label index of every row, from the first modality whose data are labels.

    :returns: ``int64[N]``, -1 where that modality was not recorded; None if none carries labels.
    """
    modality = class_modality(spec)
    if modality is None:
        return None
    name = modality.spec.name
    values = np.argmax(dataset.values[name], axis=1)
    present = dataset.present[:, dataset.names.index(name)]
    return np.where(present, values[dataset.index[name]], -1)


def labels_of_unique(dataset: Dataset, spec: ModelSpec, name: str) -> tuple[np.ndarray, int]:
    """
    Label index of every unique value of a modality, and the number of labels.

    :returns: ``int64[U]``, -1 where no row tells it, and the count.
    :raises DataError: if no modality carries labels.
    """
    modality, rows = class_modality(spec), label_indices(dataset, spec)
    if modality is None or rows is None:
        raise DataError('the dataset has no symbol modality; labels are needed here')
    unique = np.full(len(dataset.values[name]), -1)
    known = dataset.present[:, dataset.names.index(name)] & (rows >= 0)
    unique[dataset.index[name][known]] = rows[known]
    return unique, len(modality.classes)


BATCH = 1000


@dataclass(frozen=True)
class Generated:
    """
    One modality, generated for every row of a dataset from one subset of modalities.

    :param batches: rows ``int64[B]`` and what was generated for them, ``float32[B, *shape]``.
    """

    observed: tuple[str, ...]
    target: str
    batches: Iterator[tuple[np.ndarray, Array]]


def subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """All non-empty subsets, the smallest first."""
    sizes = range(1, len(names) + 1)
    return [s for size in sizes for s in itertools.combinations(names, size)]


def batches(count: int) -> list[np.ndarray]:
    """Positions 0 to ``count`` in about equal parts of about a thousand."""
    return np.array_split(np.arange(count), max(1, count // BATCH))


def presence(names: Sequence[str], observed: Iterable[str]) -> np.ndarray:
    """Mask of the observed modalities, ``bool[M]``."""
    chosen = set(observed)
    return np.array([name in chosen for name in names])


def encode_all(engine: Engine, dataset: Dataset) -> dict[str, Array]:
    """Codes of every row, ``float32[N, C_m]`` per modality; unique values are encoded once."""
    codes = {}
    for name in dataset.names:
        parts = batches(len(dataset.values[name]))
        unique = [engine.encode(name, dataset.unique(name, part)) for part in parts]
        codes[name] = np.concatenate(unique)[dataset.index[name]]
    return codes


def fuse_all(
    engine: Engine, codes: dict[str, Array], present: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """
    Joint posteriors of all rows with the same modalities present.

    :param present: ``bool[M]``.
    :returns: mean and standard deviation, ``float32[N, D]`` each.
    """
    parts = [engine.fuse(part, mask) for part, mask in _code_batches(codes, present)]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def joint_latents(
    engine: Engine,
    codes: dict[str, Array],
    present: np.ndarray,
    estimator: str,
    seed: int,
) -> np.ndarray:
    """
    Joint latents of all rows with the same modalities present, ``float32[N, D]``.

    :param present: ``bool[M]``.
    :param estimator: one of :data:`ESTIMATORS`.
    :param seed: of the samples, which depend on it and on ``present`` alone.
    :raises ConfigError: if the estimator is unknown.
    """
    if estimator not in ESTIMATORS:
        raise ConfigError(f'unknown estimator "{estimator}"; known: {", ".join(ESTIMATORS)}')
    if estimator == 'mean':
        return fuse_all(engine, codes, present)[0]
    generator = np.random.default_rng([seed, *present.astype(int)])
    parts = [
        engine.fuse_sample(part, mask, int(generator.integers(2**31)))
        for part, mask in _code_batches(codes, present)
    ]
    return np.concatenate(parts)


def decode_all(
    engine: Engine, name: str, joint: np.ndarray, estimator: str, seed: int
) -> Iterator[tuple[np.ndarray, Array]]:
    """
    Generate one modality from joint latents ``float32[N, D]``, batch by batch.

    :param estimator: one of :data:`ESTIMATORS`.
    """
    below = estimator == 'ancestral' or (estimator == 'sample' and not engine.noise_dims)
    generator = np.random.default_rng([seed, *name.encode()])
    for rows in batches(len(joint)):
        if below:
            part = int(generator.integers(2**31))
            yield rows, engine.decode_sample(name, joint[rows], part)
        else:
            yield rows, engine.decode(name, joint[rows])


def cross_targets(
    names: Sequence[str], observed: Iterable[tuple[str, ...]]
) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Every subset with the modalities that it lacks."""
    return [(subset, tuple(n for n in names if n not in subset)) for subset in observed]


def generate(
    engine: Engine,
    dataset: Dataset,
    wanted: Sequence[tuple[tuple[str, ...], tuple[str, ...]]],
    estimator: str,
    seed: int,
    title: str,
) -> Iterator[Generated]:
    """
    Generate modalities of all rows of a dataset, with a progress bar.

    :param wanted: subsets to observe, each with the modalities to generate.
    :param estimator: one of :data:`ESTIMATORS`.
    :param title: what the progress bar says.
    """
    codes = encode_all(engine, dataset)
    for subset, targets in tqdm(wanted, desc=title, unit='subset', leave=False):
        joint = joint_latents(engine, codes, presence(dataset.names, subset), estimator, seed)
        for target in targets:
            yield Generated(subset, target, decode_all(engine, target, joint, estimator, seed))


def _code_batches(
    codes: dict[str, Array], present: np.ndarray
) -> Iterator[tuple[dict[str, Array], np.ndarray]]:
    for rows in batches(len(next(iter(codes.values())))):
        part = {name: code[rows] for name, code in codes.items()}
        yield part, np.repeat(present[None], len(rows), axis=0)
