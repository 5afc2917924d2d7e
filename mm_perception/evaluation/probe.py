"""What the joint latent holds, as a linear probe reads it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch.nn import functional

from mm_perception.data.dataset import Dataset
from mm_perception.engines.engine import Engine
from mm_perception.evaluation.generation import (
    Row,
    encode_all,
    joint_latents,
    mean_row,
    presence,
)
from mm_perception.progress import tqdm

PENALTY = 1e-4
ITERATIONS = 300


def measure_probe(
    engine: Engine,
    train: Dataset,
    train_labels: np.ndarray,
    test: Dataset,
    test_labels: np.ndarray,
    observed: Iterable[tuple[str, ...]],
    estimator: str = 'mean',
    seed: int = 0,
) -> list[Row]:
    """
    Probe the joint latent for the label, with one probe per subset of observed modalities.

    :param train: what the probes are trained on; ``test``: what they are measured on.
    :param estimator: ``mean`` or ``sample`` of the joint posterior.
    :returns: ``probe_accuracy`` per subset, target ``latent``.
    """
    codes = [encode_all(engine, dataset) for dataset in (train, test)]
    rows = []
    for subset in tqdm(list(observed), desc='probe', unit='subset', leave=False):
        present = presence(test.names, subset)
        known, asked = (joint_latents(engine, c, present, estimator, seed) for c in codes)
        hits = probe_hits(known, train_labels, asked, test_labels)
        rows.append(mean_row('probe_accuracy', 'latent', subset, estimator, hits))
    return rows


def probe_hits(
    train_latents: np.ndarray,
    train_labels: np.ndarray,
    test_latents: np.ndarray,
    test_labels: np.ndarray,
) -> np.ndarray:
    """
    Train a linear classifier (multinomial logistic regression) on latents and let it read others.

    The latents are scaled to unit variance; the weights carry a small quadratic penalty, so
    the optimum is unique.

    Shi et al. 2019, section 4.2 (latent accuracy).

    :param train_latents: ``float[N, D]``; ``test_latents``: ``float[K, D]``.
    :param train_labels: label indices, ``int[N]``; ``test_labels``: ``int[K]``.
    :returns: whether each test latent is read right, ``bool[K]``.
    """
    centre, scale = train_latents.mean(0), np.maximum(train_latents.std(0), 1e-6)
    known = torch.from_numpy((train_latents - centre) / scale).double()
    asked = torch.from_numpy((test_latents - centre) / scale).double()
    truth = torch.from_numpy(train_labels.astype(np.int64))
    weights = known.new_zeros(known.shape[1], int(truth.max()) + 1, requires_grad=True)
    bias = known.new_zeros(int(truth.max()) + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights, bias], max_iter=ITERATIONS, tolerance_grad=1e-6, line_search_fn='strong_wolfe'
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        penalty = 0.5 * PENALTY * weights.square().sum()
        loss = functional.cross_entropy(known @ weights + bias, truth) + penalty
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        hits: np.ndarray = (asked @ weights + bias).argmax(1).numpy() == test_labels
    return hits
