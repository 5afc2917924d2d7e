"""Builds the dataset of the pendulum: what its sensors give in random states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mm_perception.config import load_training
from mm_perception.data.dataset import MANIFEST, Dataset, complete_folder, save_build, save_dataset
from mm_perception.errors import DataError
from mm_perception.modalities import build_modality
from mm_perception.resources import share_directory
from mm_perception.rl.pendulum import MAX_VELOCITY, SENSES

LEAST = 100
# A split is a part of the random seed, so new ones go last.
SPLITS = ('train', 'validation', 'test')


def build_pendulum(out: Path, states: int, seed: int) -> dict[str, Any]:
    """
    Draw states and write what the sensors give of them.

    :param out: folder; appears when all of it is written.
    :param states: of the split train; a tenth of it for each other.
    :returns: counts and hashes, as written to ``build.json``.
    """
    if states < LEAST:
        raise DataError(f'a pendulum needs {LEAST} states or more; --states is {states}')
    with complete_folder(out, MANIFEST) as folder:
        about = {}
        for k, split in enumerate(SPLITS):
            rng = np.random.default_rng([seed, k])
            dataset = sense_states(states if k == 0 else states // 10, rng)
            save_dataset(folder, split, dataset)
            about[split] = {'rows': len(dataset)}
        return save_build(folder, about, seed=seed, sources={'pendulum': 'generated'})


def sense_states(count: int, rng: np.random.Generator) -> Dataset:
    """Rows of all sensors in states of any angle and velocity."""
    spec = load_training(share_directory() / 'config' / 'pendulum.yaml').model
    angles = rng.uniform(-np.pi, np.pi, count).tolist()
    velocities = rng.uniform(-MAX_VELOCITY, MAX_VELOCITY, count).tolist()
    values = {}
    for modality in spec.modalities:
        kind, sense = build_modality(modality), SENSES[modality.name]
        array = np.stack([kind.to_model(sense(*each)) for each in zip(angles, velocities)])
        image = modality.kind == 'image'  # as a dataset stores them: a 255th each
        values[modality.name] = np.rint(255.0 * array).astype(np.uint8) if image else array
    index = dict.fromkeys(spec.names, np.arange(count))
    return Dataset(spec.names, values, index, np.ones((count, len(spec.names)), bool))
