"""The rows that the models of a table train on and are measured on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mm_perception.data.dataset import (
    MANIFEST,
    Dataset,
    complete_folder,
    load_dataset,
    save_dataset,
    splits,
)
from mm_perception.errors import DataError

SPLITS = ('train', 'validation', 'test')


def digest(value: Any) -> str:
    """Hash of plain data, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def key_of(folder: Path) -> str:
    """Hash of prepared data, by which their folder is named."""
    return folder.name.rpartition('-')[2]


@cache
def prepare_data(
    source: Path, names: tuple[str, ...], rows: int, test_rows: int, split: str, shared: Path
) -> Path:
    """
    Write some modalities and rows of a dataset's splits for training and testing to a folder.

    The folder is named after the content, so that another dataset never takes its place.

    :param names: the modalities to keep, in their order.
    :param rows: how many training rows to keep, drawn at random; 0 for all.
    :param test_rows: how many rows of the other splits.
    :param split: what is measured on, kept besides those for training, validation and test.
    :param shared: where prepared datasets lie.
    :raises DataError: if the dataset lacks a modality or the split, or is no dataset.
    """
    known = [name for name in dict.fromkeys((*SPLITS, split)) if name in splits(source)]
    content = [_file_hash(source, name) for name in known]
    key = digest([content, list(names), rows, test_rows])
    folder = shared / 'data' / f'{source.name}-{key}'
    if split not in known:
        raise DataError(f'{source}: has no split "{split}"; build it again')
    if not (folder / MANIFEST).is_file():
        with complete_folder(folder, MANIFEST) as scratch:
            for name in known:
                count = rows if name == 'train' else test_rows
                save_dataset(scratch, name, take(load_dataset(source, name), names, count))
    return folder


def take(dataset: Dataset, names: Sequence[str], count: int) -> Dataset:
    """
    Some modalities and some rows, with the unique values that they show.

    Rows in which one of them is absent are left out, if there are others.

    :param count: number of rows, drawn at random; 0 for all.
    :raises DataError: if the dataset lacks a modality.
    """
    missing = set(names) - set(dataset.names)
    if missing:
        raise DataError(
            f'the dataset has no modality {", ".join(sorted(missing))};'
            f' it has: {", ".join(dataset.names)}'
        )
    columns = [dataset.names.index(name) for name in names]
    complete = np.flatnonzero(dataset.present[:, columns].all(axis=1))
    rows = complete if len(complete) else np.arange(len(dataset))
    order = rows[np.random.default_rng(0).permutation(len(rows))]
    chosen = dataset.subset(np.sort(order[: count or len(rows)]))
    return replace(chosen, names=tuple(names), present=chosen.present[:, columns]).shown()


def _file_hash(source: Path, split: str) -> str:
    file = source / f'{split}.safetensors'
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(
            f'{file}: cannot be read ({error.strerror}); run mm-perception build-data, or name'
            ' the dataset with --dataset'
        ) from error
