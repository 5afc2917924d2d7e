"""What the joint latent tells of the robot's state, beside what its sensors tell directly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from mm_perception.data.dataset import Dataset
from mm_perception.engines.engine import Engine
from mm_perception.evaluation.baselines.codes import SharedCodes
from mm_perception.evaluation.baselines.linear import Moments, folds
from mm_perception.evaluation.generation import encode_all, joint_latents, presence
from mm_perception.markdown import markdown_table
from mm_perception.modalities.base import Array
from mm_perception.progress import tqdm

HIDDEN = 128
STEPS = 600
BATCH = 256
CHECKED = 50
FEWEST = 50
"""Rows below which nothing is learned."""
STILL = 0.03
"""Std of all elements, in that of the training rows, below which there is nothing to explain."""


@dataclass(frozen=True)
class StateRow:
    """
    How well a modality is read, as the share of its variance that is explained.

    The variance is that of the test rows, over the elements in their training std.

    :param latent: by ridge regression from the mean of the joint latent.
    :param ridge: by ridge regression from the observed modalities themselves.
    :param network: by a network from them.
    """

    target: str
    observed: tuple[str, ...]
    latent: float
    ridge: float
    network: float


def measure_state(
    engine: Engine, train: Dataset, test: Dataset, observed: Iterable[tuple[str, ...]]
) -> list[StateRow]:
    """
    Probe the joint latent for the vectors of all modalities, observed or not.

    Arrays that are no vector are told by their principal components when observed, and are no
    targets, nor is what stands still in the test. A direct network that sees the target itself
    would be a copy: its share is 1.

    :param train: what the probes learn from; ``test``: what they are measured on.
    :returns: a row per subset and target.
    """
    codes = SharedCodes()
    codes.fit(train)
    latents = [encode_all(engine, data) for data in (train, test)]
    targets = [name for name in train.names if train.values[name].ndim == 2]
    rows = []
    for subset in tqdm(list(observed), desc='state', unit='subset', leave=False):
        mask = presence(train.names, subset)
        known, asked = (_rows(data, mask) for data in (train, test))
        if min(len(known), len(asked)) < FEWEST:
            continue
        joint = [joint_latents(engine, code, mask, 'mean', 0) for code in latents]
        probe = _Probe(codes, train, test, known, asked)
        rows += probe.rows(subset, targets, joint[0][known], joint[1][asked])
    return rows


def _rows(dataset: Dataset, mask: np.ndarray) -> np.ndarray:
    ordered = np.concatenate([recording.rows for recording in dataset.recordings()])
    return ordered[dataset.present[ordered][:, mask].all(1)]


@dataclass(frozen=True)
class _Probe:
    codes: SharedCodes
    train: Dataset
    test: Dataset
    known: np.ndarray
    asked: np.ndarray

    def rows(
        self, subset: tuple[str, ...], targets: Sequence[str], latent: Array, asked: Array
    ) -> list[StateRow]:
        fold = folds(self.train, self.known)
        old, new = self._side(self.train, self.known), self._side(self.test, self.asked)
        there, here = (np.concatenate([s[n] for n in subset], 1) for s in (old, new))
        missing = [name for name in targets if name not in subset]
        read = by_network(there, old, here, missing, fold) if missing else {}
        result = []
        for name in targets:
            truth = new[name]
            if truth.std(0).max() < STILL:
                continue
            direct = ridge(there, old[name], here, fold)
            network = explained(truth, read[name]) if name in read else 1.0
            result.append(
                StateRow(
                    target=name,
                    observed=subset,
                    latent=explained(truth, ridge(latent, old[name], asked, fold)),
                    ridge=explained(truth, direct),
                    network=network,
                )
            )
        return result

    def _side(self, dataset: Dataset, rows: np.ndarray) -> dict[str, Array]:
        return {name: code[rows] for name, code in self.codes.of(dataset).items()}


def ridge(known: Array, truth: Array, asked: Array, fold: np.ndarray) -> np.ndarray:
    """
    Ridge regression, its penalty chosen by cross-validation.

    :param known: ``float[N, I]``; ``truth``: ``float[N, O]``; ``asked``: ``float[K, I]``.
    :param fold: of each known row, ``int[N]``.
    :returns: ``float[K, O]``.
    """
    width = known.shape[1]
    scale = np.maximum(known.std(0), 1e-6)
    moments = Moments(np.concatenate([known / scale, truth], 1).astype(np.float64), fold)
    mixing = np.concatenate([np.zeros((width, truth.shape[1])), np.eye(truth.shape[1])])
    weights, offset = moments.solve(np.arange(width), mixing)
    result: np.ndarray = asked / scale @ weights + offset
    return result


def explained(truth: np.ndarray, read: np.ndarray) -> float:
    """Share of the variance that is explained; negative where the mean of the test is better."""
    spread = float(((truth - truth.mean(0)) ** 2).sum())
    return 1 - float(((truth - read) ** 2).sum()) / spread if spread else 0.0


def by_network(
    known: Array,
    truth: Mapping[str, Array],
    asked: Array,
    names: Sequence[str],
    fold: np.ndarray,
    steps: int = STEPS,
) -> dict[str, np.ndarray]:
    """
    Train a network on all folds but one, which says when it is at its best.

    :param known: ``float32[N, I]``; ``truth``: by name ``float32[N, O]``; ``asked``: ``[K, I]``.
    :param fold: of each known row, ``int[N]``.
    :returns: what it reads, by name, ``float32[K, O]``.
    """
    torch.manual_seed(0)
    wanted = torch.from_numpy(np.concatenate([truth[name] for name in names], 1))
    inputs, kept = torch.from_numpy(known), torch.from_numpy(fold == fold.max())
    module = nn.Sequential(
        nn.Linear(inputs.shape[1], HIDDEN),
        nn.SiLU(),
        nn.Linear(HIDDEN, HIDDEN),
        nn.SiLU(),
        nn.Linear(HIDDEN, wanted.shape[1]),
    )
    optimizer = torch.optim.AdamW(module.parameters(), 1e-3, weight_decay=1e-2)
    rows, best, read = torch.nonzero(~kept)[:, 0], float('inf'), wanted[:0]
    for step in range(1, steps + 1):
        part = rows[torch.randint(len(rows), (BATCH,))]
        optimizer.zero_grad()
        functional.mse_loss(module(inputs[part]), wanted[part]).backward()
        optimizer.step()
        if step % CHECKED == 0:
            with torch.no_grad():
                error = float(functional.mse_loss(module(inputs[kept]), wanted[kept]))
                if error < best:
                    best, read = error, module(torch.from_numpy(asked))
    ends = np.cumsum([truth[name].shape[1] for name in names])[:-1]
    return dict(zip(names, np.split(read.numpy(), ends, axis=1)))


def state_table(rows: Sequence[StateRow], names: Sequence[str]) -> list[str]:
    """
    Lines of Markdown: the shares of explained variance, by what is lost and what is read.

    :param names: all modalities.
    """
    lines = []
    for row in rows:
        lost = ', '.join(name for name in names if name not in row.observed)
        shares = (row.latent, row.ridge, row.network)
        lines.append([lost or 'nothing', row.target, *(f'{share:.3f}' for share in shares)])
    return [
        '## What the joint latent tells of the state',
        '',
        'Share of the variance of each vector that is explained on the test rows (1: all;'
        ' negative: their mean is better): by ridge regression from the joint latent, and by'
        ' ridge regression and a network from the observed modalities themselves.',
        '',
        *markdown_table(['lost', 'read', 'latent', 'ridge', 'network'], lines),
    ]
