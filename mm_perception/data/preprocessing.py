"""Options of preprocessing that the training data decide, such as the range of a vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mm_perception.data.dataset import (
    Dataset,
    load_preprocessing,
    save_preprocessing,
)
from mm_perception.errors import DataError, InvalidInput
from mm_perception.modalities import build_modality
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
    return _filled(spec, {name: known[name] for name in names})


def decide(
    spec: ModelSpec,
    path: Path,
    raws: Callable[[tuple[str, ...]], Raws],
    say: Callable[[str], None],
) -> ModelSpec:
    """
    Let training data decide what the configuration leaves to them, and note it in the dataset.

    :param path: the dataset's folder.
    :param raws: gives raw values of some modalities.
    :param say: takes what is worth a line.
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
    outdated = [split for split in save_preprocessing(path, options) if split != TRAIN]
    if outdated:
        say(
            f'{path}: the training data have another range than before; import the split'
            f' {" and ".join(outdated)} again'
        )
    return _filled(spec, options)


def constant_elements(spec: ModelSpec, dataset: Dataset) -> dict[str, list[str]]:
    """Elements of one-dimensional modalities that are the same in every row, by name or number."""
    found = {}
    for modality in spec.modalities:
        kind, values = build_modality(modality), dataset.values[modality.name]
        if values.ndim == 2 and len(values) > 1 and not kind.classes:
            same = np.flatnonzero(np.ptp(values, axis=0) < 1e-6)
            found[modality.name] = [kind.labels[k] if kind.labels else str(k) for k in same]
    return {name: elements for name, elements in found.items() if elements}


def _filled(spec: ModelSpec, options: Mapping[str, Mapping[str, Any]]) -> ModelSpec:
    return replace(
        spec,
        modalities=tuple(
            replace(m, preprocessing={**m.preprocessing, **options.get(m.name, {})})
            for m in spec.modalities
        ),
    )
