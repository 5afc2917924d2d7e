"""A moving robot whose sensors obey a linear law: recordings with time, with known answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mm_perception.data.dataset import RECORDING, Dataset, save_dataset
from mm_perception.spec import ModalitySpec, ModelSpec

TICK_S = 0.1
DAMPING, KICK, NOISE = 0.9, 0.05, 0.02
LENGTH = 120
SIDE = 9
SPEC = ModelSpec(
    (
        ModalitySpec('arm', 'vector', 2, preprocessing={'low': (-2.0,) * 2, 'high': (2.0,) * 2}),
        ModalitySpec('force', 'vector', 1, preprocessing={'low': (-4.0,), 'high': (4.0,)}),
        ModalitySpec('camera', 'image', 2, preprocessing={'height': SIDE, 'width': SIDE}),
    )
)
LOOK = np.random.default_rng(5).standard_normal((2, SIDE * SIDE)) * 0.05
PUSH = np.array([[1.0], [-0.5]])


def moving_robot(recordings: int, seed: int = 0, length: int = LENGTH) -> Dataset:
    """
    Recordings of an arm with inertia; force and camera are linear in its two joints.

    The force has noise of the std :data:`NOISE`, the camera none.
    """
    generator = np.random.default_rng(seed)
    parts = []
    for _ in range(recordings):
        speed, place = np.zeros(2), generator.standard_normal(2) * 0.3
        for _ in range(length):
            speed = DAMPING * speed + KICK * generator.standard_normal(2)
            place = 0.98 * place + speed
            parts.append(place)
    arm = np.stack(parts)
    count = len(arm)
    camera = (arm @ LOOK).reshape(count, 1, SIDE, SIDE) + 0.5
    force = arm @ PUSH + NOISE * generator.standard_normal((count, 1))
    values = {'arm': arm, 'force': force, 'camera': camera}
    number = np.repeat(np.arange(recordings), length)
    return Dataset(
        names=SPEC.names,
        values={name: value.astype(np.float32) for name, value in values.items()},
        index={name: np.arange(count) for name in SPEC.names},
        present=np.ones((count, 3), bool),
        attributes={RECORDING: ([f'run {k}' for k in range(recordings)], number)},
        time_s=np.tile(np.arange(length) * TICK_S, recordings),
    )


def save_moving_robot(folder: Path) -> None:
    """Write all splits of a dataset."""
    for split, recordings, seed in (('train', 8, 0), ('validation', 3, 1), ('test', 4, 2)):
        save_dataset(folder, split, moving_robot(recordings, seed))
