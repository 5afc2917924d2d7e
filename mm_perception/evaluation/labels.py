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

    :returns: ``int64[N]``, -1 where that modality was not recorded; None if none carries labels.
    """
    for modality in spec.modalities:
        if modality.kind == 'symbol':
            values = np.argmax(dataset.values[modality.name], axis=1)
            present = dataset.present[:, dataset.names.index(modality.name)]
            return np.where(present, values[dataset.index[modality.name]], -1)
    return None


def labels_of_unique(dataset: Dataset, spec: ModelSpec, name: str) -> tuple[np.ndarray, int]:
    """
    Label index of every unique value of a modality, and the number of labels.

    :returns: ``int64[U]``, -1 where no row tells it, and the count.
    :raises DataError: if no modality carries labels.
    """
    rows = label_indices(dataset, spec)
    if rows is None:
        raise DataError('the dataset has no symbol modality; labels are needed here')
    unique = np.full(len(dataset.values[name]), -1)
    known = dataset.present[:, dataset.names.index(name)] & (rows >= 0)
    unique[dataset.index[name][known]] = rows[known]
    labels = next(build_modality(m).labels for m in spec.modalities if m.kind == 'symbol')
    return unique, len(labels)
