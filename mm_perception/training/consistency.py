"""Learn the classes that modalities share, and on held-out data when they agree."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mm_perception.bundle import Bundle
from mm_perception.data.dataset import Dataset, load_dataset, splits
from mm_perception.engines.build import reference_engine
from mm_perception.engines.engine import Engine
from mm_perception.evaluation.consistency import Events, alarms, alone, evidence_alone, make_events
from mm_perception.evaluation.generation import encode_all
from mm_perception.fusion.consistency import (
    SECTION,
    SLOPE,
    ClassHead,
    ConsistencyCheck,
    features_of,
    log_std,
)
from mm_perception.modalities import build_modality
from mm_perception.spec import ModelSpec, TrainingSpec
from mm_perception.training.calibration import SPLIT
from mm_perception.training.stages import split_positions

TOPICS = 16
"""How many topics there are at least; twice the number of labels if that is more."""
HIDDEN, DROPOUT, NOISE = 128, 0.3, 0.3
STEPS, BATCH, LEARNING_RATE = 3000, 128, 5e-3


def learn_readers(
    engine: Engine, spec: ModelSpec, dataset: Dataset, seed: int
) -> dict[str, ClassHead]:
    """Learn to read topics off each modality, such that modalities of one row share them."""
    events = make_events(dataset, spec)
    topics = max(TOPICS, 2 * max(len(build_modality(m).labels) for m in spec.modalities))
    features, unsure = {}, {}
    codes = encode_all(engine, dataset)
    for name in spec.names:
        mean, std = alone(engine, codes, spec.names, name)
        features[name] = features_of(engine, spec, name, codes[name], mean)
        unsure[name] = log_std(std)
    scales = {
        name: _scale(values[events.present[:, column]])
        for column, (name, values) in enumerate(features.items())
    }
    scaled = [
        torch.from_numpy(((features[n] - centre) / scale).astype(np.float32))
        for n, (centre, scale) in scales.items()
    ]
    networks = _learn(scaled, events, topics, seed)
    readers = {}
    for column, (name, network) in enumerate(zip(spec.names, networks)):
        usual, common = np.quantile(unsure[name][events.present[:, column]], (0.5, 0.95))
        spread = max(float(common - usual), 0.01)
        readers[name] = _reader(network, *scales[name], float(usual), spread)
    return readers


def _scale(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values.mean(0), np.maximum(values.std(0), 0.1)


def _reader(
    network: nn.Sequential, centre: np.ndarray, scale: np.ndarray, usual: float, spread: float
) -> ClassHead:
    """Fold the scale of the features into the first layer."""
    weight, bias, output, output_bias = (p.detach().numpy() for p in network.parameters())
    hidden = (weight / scale).T
    return ClassHead((hidden, bias - centre @ hidden), (output.T, output_bias), usual, spread)


def _learn(values: list[Tensor], events: Events, topics: int, seed: int) -> list[nn.Sequential]:
    """
    Tell pairs of one row from pairs of two by topics that both have a share of.

    The odds of data a and b of two modalities, K sum_k p(k | a) p(k | b), estimate
    p(a, b) / (p(a) p(b)): logistic regression between the joint and the product density.
    """
    torch.manual_seed(seed)
    networks = [
        nn.Sequential(
            nn.Linear(part.shape[1], HIDDEN),
            nn.LeakyReLU(SLOPE),
            nn.Dropout(DROPOUT),
            nn.Linear(HIDDEN, topics),
        )
        for part in values
    ]
    parameters = [p for network in networks for p in network.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS)
    present = torch.from_numpy(events.present)
    for rows in itertools.islice(_batches(events, seed), STEPS):
        shares = []
        for column, (network, part) in enumerate(zip(networks, values)):
            batch = part[rows[:, column]]
            noisy = batch + NOISE * torch.randn_like(batch)
            shares.append(functional.softmax(network(noisy), dim=1))
        columns = torch.arange(len(values))
        loss = _loss(torch.stack(shares), present[rows, columns].T)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return networks


def _loss(shares: Tensor, present: Tensor) -> Tensor:
    """
    Logistic loss of telling pairs of one row from pairs of two.

    :param shares: p(topic | modality), ``float[M, B, K]``; ``present``: ``bool[M, B]``.
    """
    first, second = torch.triu_indices(len(shares), len(shares), 1)
    odds = shares.shape[2] * shares[first] @ shares[second].transpose(1, 2)
    log_odds = odds.clamp_min(1e-20).log()
    known = present[first][:, :, None] & present[second][:, None, :]
    same = torch.eye(shares.shape[1], dtype=torch.bool)
    together, apart = known & same, known & ~same
    loss = functional.softplus(-log_odds[together]).sum() / together.sum().clamp_min(1)
    return loss + functional.softplus(log_odds[apart]).sum() / apart.sum().clamp_min(1)


def _batches(events: Events, seed: int) -> Iterator[Tensor]:
    """Rows that each modality is taken from, ``int64[B, M]``, without end."""
    generator = np.random.default_rng(seed)
    count = len(events.labels)
    while True:
        paired, order = events.paired_anew(generator), generator.permutation(count)
        for part in np.array_split(order, max(1, count // BATCH)):
            yield torch.from_numpy(paired[part])


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
    Learn readers and thresholds for :class:`~mm_perception.fusion.consistency.ConsistencyCheck`.

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
    agreement = ConsistencyCheck(engine, spec, calibration)
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
        agreement = ConsistencyCheck(engine, spec, calibration)
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
