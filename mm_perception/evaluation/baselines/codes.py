"""Short vectors that stand for the arrays of every modality, shared by the baselines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mm_perception.data.dataset import Dataset
from mm_perception.modalities.base import Array

LONGEST = 64
"""Arrays with more elements are told by principal components."""
COMPONENTS = 60
SAMPLED = 1000
"""Values that the components are found on."""
BLOCK = 1000
CONSTANT = 1e-6
"""Std below which an element carries nothing."""


@dataclass(frozen=True)
class Code:
    """
    An affine code of one modality, ``(x - mean) @ reading``, zero mean and about unit variance.

    :param mean: of the training rows, ``float32[E]``.
    :param reading: ``float32[E, d]``; ``writing``: back, ``float32[d, E]``.
    """

    mean: Array
    reading: Array
    writing: Array

    @property
    def size(self) -> int:
        """Numbers of a code."""
        return self.reading.shape[1]


def fit_code(values: Array) -> Code:
    """
    Find the code of a modality: standardised elements, or principal components of long arrays.

    The components share one scale, that of the first.

    :param values: of training rows, ``float32[N, E]``.
    """
    mean: Array = values.mean(0)
    if values.shape[1] <= LONGEST:
        std = values.std(0)
        known = std > CONSTANT
        return Code(mean, np.diag(known / np.maximum(std, CONSTANT)), np.diag(std))
    centred = values[np.linspace(0, len(values) - 1, min(SAMPLED, len(values))).astype(int)] - mean
    # Of the products of rows: a picture has more pixels than there are rows.
    variances, vectors = np.linalg.eigh(centred @ centred.T)
    order = np.argsort(variances)[::-1][:COMPONENTS]
    order = order[variances[order] > CONSTANT * max(variances[order[0]], CONSTANT)]
    axes = (vectors[:, order] / np.sqrt(variances[order])).T @ centred
    scale = float(np.sqrt(variances[order[0]] / len(centred))) if len(order) else 1.0
    return Code(mean, axes.T / scale, axes * scale)


class SharedCodes:
    """Codes of all modalities, fitted once for several methods; the last datasets are kept."""

    def __init__(self) -> None:
        self._fitted: Dataset | None = None
        self._codes: dict[str, Code] = {}
        self._kept: list[tuple[Dataset, dict[str, Array]]] = []

    def fit(self, dataset: Dataset) -> None:
        """Find the codes on the rows of a dataset, unless that was done."""
        if self._fitted is dataset:
            return
        self._fitted, self._kept, self._codes = dataset, [], {}
        for column, name in enumerate(dataset.names):
            rows = np.flatnonzero(dataset.present[:, column])
            used = np.unique(dataset.index[name][rows]) if len(rows) else np.zeros(1, np.int64)
            values = dataset.unique(name, used)
            self._codes[name] = fit_code(values.reshape(len(values), -1))

    def __getitem__(self, name: str) -> Code:
        return self._codes[name]

    def of(self, dataset: Dataset) -> Mapping[str, Array]:
        """Codes of all rows, ``float32[N, d]`` by modality; zero where it is absent."""
        for kept, codes in self._kept:
            if kept is dataset:
                return codes
        codes = {name: self._read(dataset, name) for name in dataset.names}
        self._kept = [*self._kept[-2:], (dataset, codes)]
        return codes

    def _read(self, dataset: Dataset, name: str) -> Array:
        code, count = self._codes[name], len(dataset.values[name])
        parts = []
        for start in range(0, count, BLOCK):
            values = dataset.unique(name, np.arange(start, min(start + BLOCK, count)))
            parts.append((values.reshape(len(values), -1) - code.mean) @ code.reading)
        present = dataset.present[:, dataset.names.index(name)]
        rows: Array = np.concatenate(parts)[dataset.index[name]] * present[:, None]
        return rows.astype(np.float32)

    def change(self, name: str, codes: np.ndarray, shape: tuple[int, ...]) -> Array:
        """Turn a change of the code ``[Q, d]`` into one of the data, ``float32[Q, *shape]``."""
        written = codes.astype(np.float32) @ self._codes[name].writing
        return written.reshape(len(codes), *shape)

    def write(self, name: str, codes: np.ndarray, shape: tuple[int, ...]) -> Array:
        """Turn codes ``[Q, d]`` into data, ``float32[Q, *shape]``."""
        return self.change(name, codes, shape) + self._codes[name].mean.reshape(shape)
