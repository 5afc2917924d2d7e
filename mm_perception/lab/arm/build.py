"""Builds the dataset of the simulated arm, and the episodes that its bundle carries."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mm_perception.config import load_training
from mm_perception.data.dataset import (
    MANIFEST,
    RECORDING,
    Dataset,
    complete_folder,
    save_build,
    save_dataset,
)
from mm_perception.errors import DataError
from mm_perception.lab.arm.script import PERIOD_S, write_script
from mm_perception.lab.arm.simulation import CAMERA_EVERY, Simulation
from mm_perception.lab.replay.episodes import (
    LIST_FILE,
    Channel,
    Episode,
    Episodes,
    save_episodes,
)
from mm_perception.modalities import Modality, build_modality
from mm_perception.resources import share_directory
from mm_perception.spec import ModelSpec

ROW_EVERY = 5  # of the ticks: 10 rows per second
LEAST_S = 5.0
# A split is a part of the random seed, so new ones go last.
SPLITS = ('train', 'validation', 'test', 'samples')


@dataclass(frozen=True)
class ArmOptions:
    """
    How much to record.

    :param episodes: of the splits train, validation and test.
    :param seconds: of each episode.
    """

    seed: int = 0
    episodes: tuple[int, int, int] = (40, 10, 10)
    seconds: float = 30.0
    progress: bool = True

    def __post_init__(self) -> None:
        if min(self.episodes) < 1 or self.seconds < LEAST_S:
            raise DataError(f'an arm needs an episode per split, of {LEAST_S:.0f} s or more')


def build_arm(out: Path, options: ArmOptions) -> dict[str, Any]:
    """
    Simulate episodes, and write what the node would have used of them, 10 rows a second.

    :param out: folder; appears when all of it is written.
    :returns: counts and hashes, as written to ``build.json``.
    :raises ModuleNotFoundError: without MuJoCo.
    """
    begun = time.monotonic()
    ticks = np.arange(0, round(options.seconds / PERIOD_S), ROW_EVERY)
    with complete_folder(out, MANIFEST) as folder:
        about = {}
        for split, count in zip(SPLITS, options.episodes):
            episodes = record(split, count, options, frames=ticks // CAMERA_EVERY)
            dataset = to_dataset(arm_spec(), episodes, ticks * PERIOD_S)
            save_dataset(folder, split, dataset)
            about[split] = {'rows': len(dataset), 'recordings': count}
        seconds = round(time.monotonic() - begun, 1)
        return save_build(folder, about, seed=options.seed, sources={'MuJoCo': 'generated'},
                          seconds=seconds)  # fmt: skip


def write_arm_samples(out: Path, count: int, options: ArmOptions) -> int:
    """
    Write episodes that occur in no split, whole, for a replay.

    :returns: how many.
    """
    episodes = list(record('samples', count, options))
    channels = {
        m.name: Channel(m.topic, m.kind, m.message, build_modality(m).labels)
        for m in arm_spec().modalities
    }
    with complete_folder(out, LIST_FILE) as folder:
        save_episodes(folder, Episodes(channels, episodes))
    return len(episodes)


def record(
    split: str, count: int, options: ArmOptions, frames: np.ndarray | None = None
) -> Iterator[Episode]:
    """
    Simulate the episodes of a split.

    :param frames: which of the camera's to render; None for all.
    """
    with closing(Simulation()) as simulation:
        for k in tqdm(range(count), f'simulate {split}', disable=not options.progress):
            rng = np.random.default_rng([options.seed, SPLITS.index(split), k])
            tracks = simulation.run(write_script(options.seconds, rng), rng, frames)
            yield Episode(f'{split}_{k:03d}', options.seconds, tracks)


def to_dataset(spec: ModelSpec, episodes: Iterator[Episode], times_s: np.ndarray) -> Dataset:
    """
    Rows at some times of every episode: the newest value of each sensor.

    :param times_s: of the rows, since the episode began.
    """
    kinds = {m.name: build_modality(m) for m in spec.modalities}
    values: dict[str, list[np.ndarray]] = {name: [] for name in spec.names}
    labels = []
    for episode in episodes:
        labels.append(episode.label)
        for name, kind in kinds.items():
            values[name] += [_value(kind, episode, time_s) for time_s in times_s]
    rows = len(labels) * len(times_s)
    return Dataset(
        names=spec.names,
        values={name: np.stack(arrays) for name, arrays in values.items()},
        index={name: np.arange(rows) for name in spec.names},
        present=np.ones((rows, len(spec.names)), bool),
        attributes={RECORDING: (labels, np.repeat(np.arange(len(labels)), len(times_s)))},
        time_s=np.tile(times_s, len(labels)),
    )


def arm_spec() -> ModelSpec:
    """The model that ``config/arm.yaml`` trains."""
    return load_training(share_directory() / 'config' / 'arm.yaml').model


def _value(kind: Modality[Any], episode: Episode, time_s: float) -> np.ndarray:
    array = kind.to_model(episode.tracks[kind.spec.name].at(time_s))
    if kind.spec.kind == 'image':  # as a dataset stores them: a 255th each
        return np.rint(255.0 * array).astype(np.uint8)
    return np.asarray(array, np.float32)
