"""Options of preprocessing that the training data decide, such as the range of a vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mm_perception.data.dataset import Dataset, load_preprocessing
from mm_perception.errors import DataError, InvalidInput
from mm_perception.modalities import build_modality
from mm_perception.modalities.base import CONSTANT_STD
from mm_perception.spec import ModelSpec

Raws = Mapping[str, Sequence[Any]]
TRAIN = 'train'


def undecided(spec: ModelSpec) -> tuple[str, ...]:
    """Names of the modalities whose configuration leaves something to the training data."""
    return tuple(m.name for m in spec.modalities if build_modality(m).undecided)


def decided(spec: ModelSpec, path: Path) -> ModelSpec:
    """
    Fill in what a dataset's training data decided.

    :param path: the dataset's folder; not read if nothing is undecided.
    :raises DataError: if it does not know; says to import the split train.
    """
    names = undecided(spec)
    known = load_preprocessing(path) if names else {}
    missing = [name for name in names if name not in known]
    if missing:
        raise DataError(
            f'{path}: does not know the range of {", ".join(missing)}; import the split {TRAIN}'
            ' first, or set low and high in preprocessing'
        )
    return filled(spec, {name: known[name] for name in names})


def decide(spec: ModelSpec, raws: Callable[[tuple[str, ...]], Raws]) -> dict[str, dict[str, Any]]:
    """
    Let training data decide what the configuration leaves to them.

    :param raws: gives raw values of some modalities.
    :returns: options of preprocessing, per modality.
    :raises DataError: if the data cannot decide.
    """
    names = undecided(spec)
    found = raws(names) if names else {}
    options: dict[str, dict[str, Any]] = {}
    for name in names:
        try:
            options[name] = build_modality(spec.modality(name)).decide(found[name])
        except InvalidInput as error:
            raise DataError(f'{name}: {error}') from error
    return options


def constant_elements(dataset: Dataset, name: str) -> list[int]:
    """Positions of the elements of a modality that are the same in all its values."""
    values = dataset.unique(name, np.arange(len(dataset.values[name])))
    return np.flatnonzero(values.reshape(len(values), -1).std(axis=0) <= CONSTANT_STD).tolist()


def filled(spec: ModelSpec, options: Mapping[str, Mapping[str, Any]]) -> ModelSpec:
    """Fill options of preprocessing in, per modality."""
    return replace(
        spec,
        modalities=tuple(
            replace(m, preprocessing={**m.preprocessing, **options.get(m.name, {})})
            for m in spec.modalities
        ),
    )
