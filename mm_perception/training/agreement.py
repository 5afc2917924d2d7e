"""Learn what modalities have in common, and on held-out data when they agree."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mm_perception.bundle import Bundle
from mm_perception.data.dataset import Dataset, load_dataset, splits
from mm_perception.evaluation.agreement import (
    Events,
    alarms,
    evidence_alone,
    make_events,
)
from mm_perception.evaluation.generation import encode_all
from mm_perception.inference.agreement import SECTION, Agreement
from mm_perception.inference.build import reference_engine
from mm_perception.inference.engine import Engine
from mm_perception.spec import ModelSpec, TrainingSpec
from mm_perception.training.calibration import SPLIT
from mm_perception.training.source import split_positions
from mm_perception.training.topics import learn_readers

FALSE_ALARM = 0.01
"""Share of agreeing held-out events that raise an alarm, if not told."""
LEAST_ROWS, MOST_ROWS = 200, 50_000
PAIRINGS = 4
MOST_SUBSETS = 20
"""Of the subsets of one size, so many are drawn to calibrate on."""


def with_agreement(
    bundle: Bundle,
    training: Dataset,
    held: Dataset,
    device: str,
    false_alarm: float = FALSE_ALARM,
) -> Bundle:
    """
    Put the calibration of :func:`calibrate_agreement` into a bundle's ``health``.

    :returns: the bundle without any if there is too little data.
    """
    engine = reference_engine(bundle, device)
    calibration = calibrate_agreement(engine, bundle.spec, training, held, false_alarm)
    health = {key: value for key, value in bundle.health.items() if key != SECTION}
    return replace(bundle, health={**health, SECTION: calibration} if calibration else health)


def part_data(spec: TrainingSpec, dataset: Dataset) -> tuple[Dataset, Dataset]:
    """
    Data to learn from and data to calibrate on: the split ``validation``, or rows kept back.

    :param dataset: the training set.
    """
    if SPLIT in splits(Path(spec.dataset)):
        return dataset, load_dataset(Path(spec.dataset), SPLIT)
    training, held = split_positions(len(dataset), spec.validation_fraction, spec.seed)
    return dataset.subset(training), dataset.subset(held)


def calibrate_agreement(
    engine: Engine,
    spec: ModelSpec,
    training: Dataset,
    held: Dataset,
    false_alarm: float = FALSE_ALARM,
    seed: int = 0,
) -> dict[str, Any]:
    """
    Learn readers and thresholds for :class:`~mm_perception.inference.agreement.Agreement`.

    Topics are learned from which data occur together. Where labels are known, all data of one
    label count as occurring together, so that another hand or voice is no contradiction.

    :param training: what the model was trained on; the topics are learned from it.
    :param held: held out from the training; the thresholds are chosen on it.
    :param false_alarm: share of its agreeing events that raise an alarm, above 0 and below 1.
    :returns: plain data; empty if either has too few rows of two modalities or more.
    """
    parts = [_some_rows(part, seed) for part in (training, held)]
    if min((part.present.sum(1) > 1).sum() for part in parts) < LEAST_ROWS:
        return {}
    readers = learn_readers(engine, spec, parts[0], seed)
    calibration: dict[str, Any] = {
        'readers': {name: reader.to_plain() for name, reader in readers.items()},
        'thresholds': {str(n): 1.0 for n in range(2, len(spec.names) + 1)},
        'false_alarm': false_alarm,
        'rows': len(parts[1]),
    }
    agreement = Agreement(engine, spec, calibration)
    evidence = evidence_alone(engine, agreement, encode_all(engine, parts[1]))
    usual = _paired(evidence, make_events(parts[1], spec), seed)
    _set_thresholds(engine, spec, calibration, usual)
    return calibration


def _some_rows(dataset: Dataset, seed: int) -> Dataset:
    order = np.random.default_rng(seed).permutation(len(dataset))
    return dataset.subset(np.sort(order[:MOST_ROWS]))


def _paired(
    evidence: np.ndarray, events: Events, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Evidence of agreeing events, ``[N, M, K]``, and what is present: ``bool[N, M]``."""
    generator = np.random.default_rng(seed)
    modalities = np.arange(evidence.shape[1])
    rows = [np.arange(len(evidence))[:, None]]
    rows += [events.paired_anew(generator) for _ in range(PAIRINGS)]
    return [(evidence[part, modalities], events.present) for part in rows]


def _set_thresholds(
    engine: Engine,
    spec: ModelSpec,
    calibration: dict[str, Any],
    usual: list[tuple[np.ndarray, np.ndarray]],
) -> None:
    """By the number present, from two on, as an alarm among more needs that fewer agree."""
    generator = np.random.default_rng(0)
    for count in range(2, len(spec.names) + 1):
        agreement = Agreement(engine, spec, calibration)
        subsets = _subsets(len(spec.names), count, generator)
        scores = [
            alarms(agreement, evidence[present[:, columns].all(1)][:, columns])
            for evidence, present in usual
            for columns in subsets
        ]
        values = np.concatenate(scores)
        thresholds = calibration['thresholds']
        thresholds[str(count)] = (
            float(np.quantile(values, 1.0 - calibration['false_alarm']))
            if len(values)
            else thresholds.get(str(count - 1), 1.0)
        )


def _subsets(total: int, count: int, generator: np.random.Generator) -> list[np.ndarray]:
    if math.comb(total, count) <= MOST_SUBSETS:
        return [np.array(columns) for columns in itertools.combinations(range(total), count)]
    return [generator.permutation(total)[:count] for _ in range(MOST_SUBSETS)]
