"""A small robot that moves: some of its sensors tell of each other, and one does not."""

from __future__ import annotations

import numpy as np

from mm_perception.data.dataset import RECORDING, Dataset
from mm_perception.spec import ModalitySpec, ModelSpec

PERIOD_S = 0.1
ROWS = 60
SIDE = 12
NAMES = ('camera', 'arm', 'hand', 'touch', 'mode')
MODES = ('left', 'right')


def moving_spec() -> ModelSpec:
    """Five modalities with networks of a few hundred weights."""
    dense = {'type': 'dense', 'hidden': (8,)}

    def vector(name: str, size: int) -> ModalitySpec:
        span = {'low': (-3.0,) * size, 'high': (3.0,) * size}
        return ModalitySpec(name, 'vector', 2, span, dense, max_age_s=0.25)

    picture = {'height': SIDE, 'width': SIDE, 'square': False}
    return ModelSpec(
        (
            ModalitySpec('camera', 'image', 4, picture, dense, max_age_s=0.25),
            vector('arm', 3),
            vector('hand', 2),
            vector('touch', 1),
            ModalitySpec('mode', 'symbol', 2, {'labels': MODES}, dense, max_age_s=0.25),
        ),
        joint_latent_dim=4,
        message_dim=8,
        joint_hidden=(8,),
        decoder_hidden=(8,),
    )


def moving_world(recordings: int, seed: int = 0, start: int = 0) -> Dataset:
    """
    Recordings at 10 Hz: arm, hand and camera follow one smooth motion, touch wanders on its own.

    The camera is absent from every fifth recording.

    :param start: number of the first recording.
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in NAMES}
    present, number, time_s = [], [], []
    grid = (np.arange(SIDE) + 0.5) / SIDE
    for k in range(recordings):
        random = np.random.default_rng([seed, start + k])
        t = PERIOD_S * np.arange(ROWS)
        phase, rate = random.uniform(0, 2 * np.pi, 2), random.uniform(0.6, 1.4, 2)
        x, y = np.sin(rate[:, None] * t + phase[:, None])
        arm = np.stack([x + 0.2 * y, y, x * y], 1)
        hand = np.stack([y - 0.5 * x, 0.5 * x], 1) + 0.02 * random.standard_normal((ROWS, 2))
        touch = np.cumsum(random.standard_normal((ROWS, 1)), 0) * 0.1
        spots = np.exp(-20 * (grid - 0.5 - 0.3 * x[:, None]) ** 2)
        rows = np.exp(-20 * (grid - 0.5 - 0.3 * y[:, None]) ** 2)
        camera = (rows[:, :, None] * spots[:, None, :])[:, None]
        parts['camera'].append((255 * camera).round().astype(np.uint8))
        for name, raw in (('arm', arm), ('hand', hand), ('touch', touch)):
            parts[name].append(np.clip((raw + 3) / 6, 0, 1).astype(np.float32))
        parts['mode'].append(np.eye(2, dtype=np.float32)[(x > 0).astype(int)])
        there = np.ones((ROWS, len(NAMES)), bool)
        there[:, 0] = k % 5 != 4
        present.append(there)
        number.append(np.full(ROWS, k))
        time_s.append(t)
    count = recordings * ROWS
    return Dataset(
        NAMES,
        {name: np.concatenate(part) for name, part in parts.items()},
        {name: np.arange(count) for name in NAMES},
        np.concatenate(present),
        {RECORDING: ([f'r{start + k}' for k in range(recordings)], np.concatenate(number))},
        np.concatenate(time_s),
    )
