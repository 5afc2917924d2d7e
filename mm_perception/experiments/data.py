"""The part of a dataset that a table uses, written down once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mm_perception.data.dataset import MANIFEST, Dataset, load_dataset, save_dataset, splits
from mm_perception.data.folder import complete_folder
from mm_perception.errors import DataError
from mm_perception.experiments.plan import digest

SPLITS = ('train', 'validation', 'test')


def prepare_data(
    source: Path, names: Sequence[str], rows: int, test_rows: int, split: str, shared: Path
) -> tuple[Path, str]:
    """
    Write some modalities and rows of a dataset's splits for training and testing to a folder.

    The folder is named after the content, so that another dataset never takes its place.

    :param names: the modalities to keep, in their order.
    :param rows: how many training rows to keep, drawn at random; 0 for all.
    :param test_rows: how many rows of the other splits.
    :param split: what is measured on, kept besides those for training, validation and test.
    :param shared: where prepared datasets lie.
    :returns: the folder and the hash that names it.
    :raises DataError: if the dataset lacks a modality or is no dataset.
    """
    known = [name for name in dict.fromkeys((*SPLITS, split)) if name in splits(source)]
    content = [_hash(source, name) for name in known]
    key = digest([content, list(names), rows, test_rows])
    folder = shared / 'data' / f'{source.name}-{key}'
    if not (folder / MANIFEST).is_file():
        with complete_folder(folder, MANIFEST) as scratch:
            for name in known:
                count = rows if name == 'train' else test_rows
                part = take(load_dataset(source, name), names, count)
                save_dataset(scratch, name, part)
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
