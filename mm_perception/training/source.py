"""Training data as tensors on the device that trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mm_perception.data.dataset import Dataset, load_dataset
from mm_perception.errors import ConfigError
from mm_perception.modalities import build_modality
from mm_perception.spec import TrainingSpec


class TensorSource:
    """
    A dataset's unique values per modality, on a device, as they are stored.

    :param dataset: values are gathered through its index, and scaled to 0..1 on the device.
    """

    def __init__(self, dataset: Dataset, device: torch.device) -> None:
        self.names = dataset.names
        self.rows = len(dataset)
        self._values = {n: torch.from_numpy(dataset.values[n]).to(device) for n in self.names}
        self.index = {
            n: torch.from_numpy(dataset.index[n].astype(np.int64)).to(device) for n in self.names
        }
        self.present = torch.from_numpy(dataset.present).to(device)

    def unique(self, name: str) -> int:
        """How many unique values a modality has."""
        return len(self._values[name])

    def values(self, name: str, positions: Tensor) -> Tensor:
        """Unique values of a modality, ``float32[B, *shape]`` in 0..1."""
        values = self._values[name][positions]
        return values.float() / 255.0 if values.dtype == torch.uint8 else values.float()

    def row_values(self, name: str, rows: Tensor) -> Tensor:
        """Values of a modality in some rows, ``float32[B, *shape]`` in 0..1."""
        return self.values(name, self.index[name][rows])


def load_split(spec: TrainingSpec, split: str) -> Dataset:
    """
    Read a split of the dataset to train on; values that no row shows are left out.

    :raises ConfigError: if it does not fit the configuration, or lacks a modality.
    """
    dataset = load_dataset(Path(spec.dataset), split)
    if dataset.names != spec.model.names:
        raise ConfigError(
            f'{spec.dataset} has modalities {", ".join(dataset.names)}, the configuration'
            f' {", ".join(spec.model.names)}; list them in that order'
        )
    for modality in spec.model.modalities:
        found, expected = dataset.values[modality.name].shape[1:], build_modality(modality).shape
        if found != expected:
            raise ConfigError(
                f'{spec.dataset}: {modality.name} has shape {found}, its preprocessing gives'
                f' {expected}; build the dataset again'
            )
    recorded = dataset.present.sum(axis=0)
    never = [name for name, count in zip(dataset.names, recorded.tolist()) if not count]
    if never:
        raise ConfigError(
            f'{spec.dataset}: split {split} has no row with {", ".join(never)}; record it, or'
            ' leave it out of the configuration'
        )
    return dataset.shown()


def split_positions(count: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split ``range(count)`` at random into training and validation positions."""
    order = np.random.default_rng(seed).permutation(count)
    held_out = int(count * fraction)
    return np.sort(order[held_out:]), np.sort(order[:held_out])
