"""Learn to read off each modality what all of them have in common."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mm_perception.data.dataset import Dataset
from mm_perception.evaluation.agreement import Events, alone, make_events
from mm_perception.evaluation.generation import encode_all
from mm_perception.inference.agreement import features_of
from mm_perception.inference.engine import Engine
from mm_perception.inference.topics import SLOPE, Reader, log_std
from mm_perception.modalities import build_modality
from mm_perception.spec import ModelSpec

TOPICS = 16
"""How many topics there are at least; twice the number of labels if that is more."""
HIDDEN, DROPOUT, NOISE = 128, 0.3, 0.3
STEPS, BATCH, LEARNING_RATE = 3000, 128, 5e-3


def learn_readers(
    engine: Engine, spec: ModelSpec, dataset: Dataset, seed: int
) -> dict[str, Reader]:
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
) -> Reader:
    """Fold the scale of the features into the first layer."""
    weight, bias, output, output_bias = (p.detach().numpy() for p in network.parameters())
    hidden = (weight / scale).T
    return Reader((hidden, bias - centre @ hidden), (output.T, output_bias), usual, spread)


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
