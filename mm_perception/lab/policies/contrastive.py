"""
The mean of contrastive encoders, one per sensor, as a rival of the fused latent.

Poklukar et al., *Geometric multimodal contrastive representation learning*, 2022: the encoding of
each modality alone is brought near to that of all of the same moment, and away from others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from mm_perception.data.dataset import load_dataset
from mm_perception.fusion.perception import Perception
from mm_perception.modalities.base import Array
from mm_perception.rl.baselines import OwnLatents
from mm_perception.rl.observation import Values

SIZE, HIDDEN = 32, 128
STEPS, BATCH, LEARNING_RATE, TEMPERATURE = 1500, 128, 1e-3, 0.1
Encoders = Mapping[str, nn.Module]


def train_contrastive(loaded: Perception, folder: Path) -> Encoders:
    """
    Train encoders on the dataset of a bundle.

    They read the modality's own latent, which holds all that the sensor gives.

    :param folder: of the dataset.
    """
    torch.manual_seed(int(loaded.bundle.training.get('seed', 0)))
    dataset = load_dataset(folder, 'train')
    rows = np.arange(len(dataset))
    features = {}
    for name, modality in loaded.modalities.items():
        code = loaded.engine.encode(name, dataset.rows(name, rows))
        features[name] = torch.from_numpy(code[:, : modality.spec.latent_dim])
    encoders = {name: _encoder(part.shape[1]) for name, part in features.items()}
    whole = _encoder(sum(part.shape[1] for part in features.values()))
    parameters = [p for each in (*encoders.values(), whole) for p in each.parameters()]
    optimizer = torch.optim.Adam(parameters, LEARNING_RATE, fused=True)
    for _ in range(STEPS):
        chosen = torch.randint(len(rows), (BATCH,))
        batch = {name: part[chosen] for name, part in features.items()}
        every = functional.normalize(whole(torch.cat([*batch.values()], 1)), dim=1)
        alone = [functional.normalize(encoders[n](part), dim=1) for n, part in batch.items()]
        loss = torch.stack([_contrast(one, every) for one in alone]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name: each.eval().requires_grad_(False) for name, each in encoders.items()}


def _encoder(size: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(size, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU(),
        nn.Linear(HIDDEN, SIZE),
    )  # fmt: skip


def _contrast(one: Tensor, every: Tensor) -> Tensor:
    """Tell the other encoding of the same moment from all encodings of other moments."""
    both = torch.cat((one, every))
    likeness = both @ both.T / TEMPERATURE
    likeness.fill_diagonal_(-torch.inf)
    count = len(one)
    same = torch.cat((torch.arange(count) + count, torch.arange(count)))
    return functional.cross_entropy(likeness, same)


class Contrastive:
    """Observer that gives the mean of the encodings of what is there, and the mask."""

    def __init__(self, loaded: Perception, encoders: Encoders, count: int) -> None:
        self._own = {
            name: OwnLatents(loaded.engine, {name: modality}, count)
            for name, modality in loaded.modalities.items()
        }
        self._encoders = encoders
        self.size = SIZE + len(encoders)

    def begin(self, rows: Iterable[int]) -> None:
        """Nothing to forget."""

    def observe(self, values: Values, present: Mapping[str, NDArray[Any]]) -> Array:
        """Mean and mask, ``float32[N, size]``."""
        mask = np.stack([present[name] for name in self._own], -1).astype(np.float32)
        total = np.zeros((len(mask), SIZE), np.float32)
        for (name, own), here in zip(self._own.items(), mask.T):
            feature = torch.from_numpy(own.observe(values, present)[:, :-1])
            encoded = functional.normalize(self._encoders[name](feature), dim=1).numpy()
            total += here[:, None] * encoded
        mean = total / np.maximum(mask.sum(1, keepdims=True), 1.0)
        return np.concatenate((mean, mask), 1)
