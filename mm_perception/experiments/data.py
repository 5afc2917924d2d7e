"""The part of a dataset that a table uses, written down once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mm_perception.data.dataset import MANIFEST, Dataset, load_dataset, save_dataset
from mm_perception.data.folder import complete_folder
from mm_perception.errors import DataError
from mm_perception.experiments.plan import digest

SPLITS = ('train', 'test')


def prepare_data(
    source: Path, names: Sequence[str], rows: Sequence[int], shared: Path
) -> tuple[Path, str]:
    """
    Write some modalities and rows of a dataset's training and test splits to a folder.

    The folder is named after the content, so that another dataset never takes its place.

    :param names: the modalities to keep, in their order.
    :param rows: how many rows of each split to keep, drawn at random; 0 for all.
    :param shared: where prepared datasets lie.
    :returns: the folder and the hash that names it.
    :raises DataError: if the dataset lacks a modality or is no dataset.
    """
    content = [_hash(source, split) for split in SPLITS]
    key = digest([content, list(names), list(rows)])
    folder = shared / 'data' / f'{source.name}-{key}'
    if not (folder / MANIFEST).is_file():
        with complete_folder(folder, MANIFEST) as scratch:
            for split, count in zip(SPLITS, rows):
                dataset = load_dataset(source, split)
                save_dataset(scratch, split, take(dataset, names, count))
    return folder, key


def take(dataset: Dataset, names: Sequence[str], count: int) -> Dataset:
    """
    Some modalities and some rows, with the unique values that they show.

    :param count: number of rows, drawn at random; 0 for all.
    :raises DataError: if the dataset lacks a modality.
    """
    missing = set(names) - set(dataset.names)
    if missing:
        raise DataError(
            f'the dataset has no modality {", ".join(sorted(missing))};'
            f' it has: {", ".join(dataset.names)}'
        )
    order = np.random.default_rng(0).permutation(len(dataset))
    chosen = dataset.subset(np.sort(order[: count or len(dataset)]))
    values, index = {}, {}
    for name in names:
        used, index[name] = np.unique(chosen.index[name], return_inverse=True)
        values[name] = chosen.values[name][used]
    columns = [dataset.names.index(name) for name in names]
    return replace(
        chosen,
        names=tuple(names),
        values=values,
        index=index,
        present=chosen.present[:, columns],
    )


def _hash(source: Path, split: str) -> str:
    file = source / f'{split}.safetensors'
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(
            f'{file}: cannot be read ({error.strerror}); run mm-perception build-data, or name'
            ' the dataset with --dataset'
        ) from error
