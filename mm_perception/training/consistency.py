"""Learn the classes that modalities share, and on held-out data when they agree."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mm_perception.bundle import Bundle, Health
from mm_perception.data.dataset import Dataset, load_dataset, splits
from mm_perception.engines.build import reference_engine
from mm_perception.engines.engine import Engine
from mm_perception.evaluation.consistency import Events, alarms, alone, evidence_alone, make_events
from mm_perception.evaluation.generation import encode_all
from mm_perception.fusion.consistency import (
    SLOPE,
    ClassHead,
    ConsistencyCheck,
    features_of,
    log_std,
)
from mm_perception.modalities import build_modality
from mm_perception.spec import ModelSpec, TrainingSpec
from mm_perception.training.calibration import SPLIT
from mm_perception.training.confidence import with_confidence
from mm_perception.training.stages import split_positions
from mm_perception.training.strangeness import with_strange_rows

CLASSES = 16
"""How many shared classes there are at least; twice the number of labels if that is more."""
HIDDEN, DROPOUT, NOISE = 128, 0.3, 0.3
STEPS, BATCH, LEARNING_RATE = 3000, 128, 5e-3


def learn_class_heads(
    engine: Engine, spec: ModelSpec, dataset: Dataset, seed: int
) -> dict[str, ClassHead]:
    """Learn classes that modalities of one row share, and to tell them from each modality."""
    events = make_events(dataset, spec)
    classes = max(CLASSES, 2 * max(len(build_modality(m).labels) for m in spec.modalities))
    scaled, unsure, scales = [], [], []
    codes = encode_all(engine, dataset)
    for name, known in zip(spec.names, events.present.T):
        mean, std = alone(engine, codes, spec.names, name)
        features = features_of(engine, spec, name, codes[name], mean)
        centre, scale = features[known].mean(0), np.maximum(features[known].std(0), 0.1)
        scaled.append(torch.from_numpy(((features - centre) / scale).astype(np.float32)))
        unsure.append(np.quantile(log_std(std)[known], (0.5, 0.95)))
        scales.append((centre, scale))
    heads = {}
    networks = _learn(scaled, events, classes, seed)
    for name, network, (centre, scale), (usual, common) in zip(
        spec.names, networks, scales, unsure
    ):
        weight, bias, output, output_bias = (p.detach().numpy() for p in network.parameters())
        hidden = (weight / scale).T  # the scale of the features is in the first layer
        heads[name] = ClassHead(
            (hidden, bias - centre @ hidden),
            (output.T, output_bias),
            float(usual),
            max(float(common - usual), 0.01),
        )
    return heads


def _learn(values: list[Tensor], events: Events, classes: int, seed: int) -> list[nn.Sequential]:
    """
    Tell pairs of one row from pairs of two by classes that both have a share of.

    The odds of data a and b of two modalities, K sum_k p(k | a) p(k | b), estimate
    p(a, b) / (p(a) p(b)): logistic regression between the joint and the product density.
    """
    torch.manual_seed(seed)
    networks = [
        nn.Sequential(
            nn.Linear(part.shape[1], HIDDEN),
            nn.LeakyReLU(SLOPE),
            nn.Dropout(DROPOUT),
            nn.Linear(HIDDEN, classes),
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
        loss = paired_loss(torch.stack(shares), present[rows, columns].T)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return networks


def paired_loss(shares: Tensor, present: Tensor) -> Tensor:
    """
    Logistic loss of telling pairs of one row from pairs of two.

    :param shares: p(class | modality), ``float[M, B, K]``; ``present``: ``bool[M, B]``.
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
STRANGE_ROWS = 10_000
PAIRINGS = 4
MOST_SUBSETS = 20
"""Of the subsets of one size, so many are drawn to calibrate on."""


def with_health(
    bundle: Bundle,
    training: Dataset,
    held: Dataset,
    device: str,
    false_alarm: float = FALSE_ALARM,
) -> Bundle:
    """
    Put the calibration of :func:`calibrate_consistency` into a bundle.

    :returns: the bundle without any if there is too little data.
    """
    engine = reference_engine(bundle, device)
    health = calibrate_consistency(engine, bundle.spec, training, held, false_alarm)
    return replace(bundle, health=health)


def part_data(spec: TrainingSpec, dataset: Dataset) -> tuple[Dataset, Dataset]:
    """
    Data to learn from and data to calibrate on: the split ``validation``, or rows kept back.

    :param dataset: the training set.
    """
    if SPLIT in splits(Path(spec.dataset)):
        return dataset, load_dataset(Path(spec.dataset), SPLIT)
    training, held = split_positions(len(dataset), spec.validation_fraction, spec.seed)
    return dataset.subset(training), dataset.subset(held)


def calibrate_consistency(
    engine: Engine,
    spec: ModelSpec,
    training: Dataset,
    held: Dataset,
    false_alarm: float = FALSE_ALARM,
    seed: int = 0,
) -> Health | None:
    """
    Learn what :class:`~mm_perception.fusion.consistency.ConsistencyCheck` needs.

    Shared classes are learned from which data occur together. Where labels are known, all data
    of one label count as occurring together, so that another hand or voice is no contradiction.

    :param training: what the model was trained on; the classes are learned from it.
    :param held: held out from the training; the thresholds are chosen on it.
    :param false_alarm: share of its agreeing events that raise an alarm, above 0 and below 1.
    :returns: None if either has too few rows of two modalities or more.
    """
    parts = [_some_rows(part, seed) for part in (training, held)]
    if min((part.present.sum(1) > 1).sum() for part in parts) < LEAST_ROWS:
        return None
    usual = len(parts[1])
    learned = with_strange_rows(parts[0], spec, STRANGE_ROWS, seed)
    judged = with_strange_rows(parts[1], spec, STRANGE_ROWS, seed)
    heads = learn_class_heads(engine, spec, learned, seed)
    health = Health(
        {f'{name}.{key}': part for name, h in heads.items() for key, part in h.arrays().items()},
        usual={name: head.usual for name, head in heads.items()},
        spread={name: head.spread for name, head in heads.items()},
        thresholds={str(n): 1.0 for n in range(2, len(spec.names) + 1)},
        false_alarm=false_alarm,
        rows=usual,
    )
    check = ConsistencyCheck(engine, spec, health)
    evidence = evidence_alone(engine, check, encode_all(engine, judged))
    events = make_events(parts[1], spec)
    health = _with_thresholds(engine, spec, health, _paired(evidence[:usual], events, seed))
    return with_confidence(engine, spec, health, judged, seed)


def _some_rows(dataset: Dataset, seed: int) -> Dataset:
    order = np.random.default_rng(seed).permutation(len(dataset))
    return dataset.subset(np.sort(order[:MOST_ROWS]))


Paired = list[tuple[np.ndarray, np.ndarray]]


def _paired(evidence: np.ndarray, events: Events, seed: int) -> Paired:
    """Evidence of agreeing events, ``[N, M, K]``, and what is present: ``bool[N, M]``."""
    generator = np.random.default_rng(seed)
    modalities = np.arange(evidence.shape[1])
    rows = [np.arange(len(evidence))[:, None]]
    rows += [events.paired_anew(generator) for _ in range(PAIRINGS)]
    return [(evidence[part, modalities], events.present) for part in rows]


def _with_thresholds(engine: Engine, spec: ModelSpec, health: Health, usual: Paired) -> Health:
    """By the number present, from two on, as an alarm among more needs that fewer agree."""
    generator = np.random.default_rng(0)
    for count in range(2, len(spec.names) + 1):
        check = ConsistencyCheck(engine, spec, health)
        subsets = _subsets(len(spec.names), count, generator)
        scores = [
            alarms(check, evidence[present[:, columns].all(1)][:, columns])
            for evidence, present in usual
            for columns in subsets
        ]
        values, before = np.concatenate(scores), health.thresholds.get(str(count - 1), 1.0)
        chosen = float(np.quantile(values, 1.0 - health.false_alarm)) if len(values) else before
        health = replace(health, thresholds={**health.thresholds, str(count): chosen})
    return health


def _subsets(total: int, count: int, generator: np.random.Generator) -> list[np.ndarray]:
    if math.comb(total, count) <= MOST_SUBSETS:
        return [np.array(columns) for columns in itertools.combinations(range(total), count)]
    return [generator.permutation(total)[:count] for _ in range(MOST_SUBSETS)]
