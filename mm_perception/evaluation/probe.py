"""What the joint latent holds: a linear probe, and which dimensions drive which modality."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from mm_perception.data.dataset import Dataset
from mm_perception.engines.engine import Engine
from mm_perception.evaluation.generation import (
    Row,
    encode_all,
    fuse_all,
    joint_latents,
    mean_row,
    presence,
)
from mm_perception.progress import tqdm

PENALTY = 1e-4
ITERATIONS = 300


@dataclass(frozen=True)
class Factorisation:
    """
    How the joint latent divides between the modalities.

    :param names: the modalities, in the order of the columns.
    :param kl: nats per dimension of the posterior of each modality alone, ``[D, M]``.
    :param influence: share of what a modality varies by that each dimension causes,
        ``[D, M]``; every column sums to 1 (to 0 for a modality that never varies).
    :param sharedness: 0 where each dimension drives one modality alone, 1 where each drives
        all alike: entropy of the rows of ``influence`` in units of log M, weighted by their
        sums.
    """

    names: tuple[str, ...]
    kl: np.ndarray
    influence: np.ndarray
    sharedness: float


def probe_accuracy(
    train_latents: np.ndarray,
    train_labels: np.ndarray,
    test_latents: np.ndarray,
    test_labels: np.ndarray,
) -> float:
    """
    Accuracy of a linear classifier (multinomial logistic regression) on latents, 0..1.

    The latents are scaled to unit variance; the weights carry a small quadratic penalty, so
    the optimum is unique.

    Shi et al. 2019, section 4.2 (latent accuracy).

    :param train_latents: ``float[N, D]``; ``test_latents``: ``float[K, D]``.
    :param train_labels: label indices, ``int[N]``; ``test_labels``: ``int[K]``.
    """
    return float(_probe_hits(train_latents, train_labels, test_latents, test_labels).mean())


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
        hits = _probe_hits(known, train_labels, asked, test_labels)
        rows.append(mean_row('probe_accuracy', 'latent', subset, estimator, hits))
    return rows


def latent_factorisation(
    engine: Engine,
    dataset: Dataset,
    rows: int = 100,
    span: float = 5.0,
    steps: int = 7,
    seed: int = 0,
) -> Factorisation:
    """
    Move one latent dimension at a time and see which modalities change.

    From the mean of the posterior given all modalities, each dimension goes in equal steps
    from -span to +span (standard deviations of the prior, 1). Influence is the variance of
    the decoded data over the steps, summed over elements and averaged over rows. The KL
    divergence is that of a normal posterior with the published mean and std to N(0, 1).

    Shi et al. 2019, section 4.2 and Fig. 5.

    :param rows: how many rows, drawn at random, are moved.
    """
    chosen = np.random.default_rng(seed).permutation(len(dataset))[:rows]
    codes = encode_all(engine, dataset.subset(np.sort(chosen)))
    everything = presence(dataset.names, dataset.names)
    centre, _ = fuse_all(engine, codes, everything)
    offsets = np.linspace(-span, span, steps, dtype=np.float32)
    variance = np.zeros((centre.shape[1], len(dataset.names)))
    for k in tqdm(range(centre.shape[1]), desc='factorisation', unit='dimension', leave=False):
        moved = np.repeat(centre[None], steps, axis=0)
        moved[:, :, k] += offsets[:, None]
        for m, name in enumerate(dataset.names):
            variance[k, m] = _variance_over_steps(engine, name, moved)
    sums = variance.sum(0)
    influence = variance / np.where(sums > 0, sums, 1.0)
    kl = np.stack([_kl(engine, codes, presence(dataset.names, (n,))) for n in dataset.names], 1)
    return Factorisation(dataset.names, kl, influence, sharedness(influence))


def sharedness(influence: np.ndarray) -> float:
    """
    How evenly dimensions drive modalities, see :class:`Factorisation`.

    :param influence: shares per dimension and modality, ``[D, M]``, M at least 2.
    :returns: 0 (every dimension private) to 1 (every dimension shared by all alike).
    """
    weight = influence.sum(1, keepdims=True)
    share = influence / np.where(weight > 0, weight, 1.0)
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(1)
    return float((weight[:, 0] * entropy).sum() / weight.sum() / math.log(influence.shape[1]))


def _variance_over_steps(engine: Engine, name: str, moved: np.ndarray) -> float:
    """Variance of the decoded data over the first axis of ``float32[S, N, D]``."""
    decoded = np.stack([engine.decode(name, step).reshape(len(step), -1) for step in moved])
    return float(decoded.var(axis=0).sum(-1).mean())


def _kl(engine: Engine, codes: dict[str, np.ndarray], present: np.ndarray) -> np.ndarray:
    mean, std = fuse_all(engine, codes, present)
    kl: np.ndarray = (0.5 * (std**2 + mean**2 - 1.0) - np.log(std)).mean(0)
    return kl


def _probe_hits(
    train_latents: np.ndarray,
    train_labels: np.ndarray,
    test_latents: np.ndarray,
    test_labels: np.ndarray,
) -> np.ndarray:
    """Whether the probe reads each test latent right, ``bool[K]``."""
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
