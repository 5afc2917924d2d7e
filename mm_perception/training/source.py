"""Training data as tensors on the device that trains."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mm_perception.data.dataset import Dataset


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


def split_positions(count: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split ``range(count)`` at random into training and validation positions."""
    order = np.random.default_rng(seed).permutation(count)
    held_out = int(count * fraction)
    return np.sort(order[held_out:]), np.sort(order[:held_out])
