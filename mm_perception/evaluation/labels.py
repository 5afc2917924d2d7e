"""True labels of a dataset, from the modality that carries them."""

from __future__ import annotations

import numpy as np

from mm_perception.data.dataset import Dataset
from mm_perception.errors import DataError
from mm_perception.modalities import build_modality
from mm_perception.spec import ModelSpec


def label_indices(dataset: Dataset, spec: ModelSpec) -> np.ndarray | None:
    """
    Label index of every row, from the first modality that has labels and a one-hot array.

    :returns: ``int64[N]``, or None if no modality carries labels.
    """
    for modality in spec.modalities:
        if modality.kind == 'symbol':
            values = np.argmax(dataset.values[modality.name], axis=1)
            return values[dataset.index[modality.name]]
    return None


def labels_of_unique(dataset: Dataset, spec: ModelSpec, name: str) -> tuple[np.ndarray, int]:
    """
    Label index of every unique value of a modality, and the number of labels.

    :returns: ``int64[U]`` and the count.
    :raises DataError: if no modality carries labels.
    """
    rows = label_indices(dataset, spec)
    if rows is None:
        raise DataError('the dataset has no symbol modality; labels are needed here')
    unique = np.zeros(len(dataset.values[name]), np.int64)
    unique[dataset.index[name]] = rows
    labels = next(build_modality(m).labels for m in spec.modalities if m.kind == 'symbol')
    return unique, len(labels)
