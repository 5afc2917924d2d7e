"""Strokes and sounds as the arrays of a model, put together into a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from mm_perception.data.dataset import Dataset
from mm_perception.data.handwriting import StrokeSampler
from mm_perception.data.pen import DIGITS
from mm_perception.data.render import render_stroke
from mm_perception.data.speech import Utterance, add_noise, change_speed
from mm_perception.modalities import Modality, Motion

NAMES = ('image', 'trajectory', 'sound', 'symbol')
POINTS = 100
# The picture is taken at a quarter of the camera's size: the same after the area resize.
FRAME = (240, 320)
# Few people write a five, seven or four in one stroke: half of the training strokes take every
# writer equally often.
BY_WRITER = 0.5
SPEEDS_TENTHS = (9, 10, 11)
NOISE_SNR_DB = (20.0, 40.0)


@dataclass(frozen=True)
class Part:
    """Unique values by modality, with the label and the origin of each."""

    values: Mapping[str, np.ndarray]
    labels: np.ndarray
    origins: Sequence[str]


def draw_strokes(
    sampler: StrokeSampler,
    size: int,
    modalities: Mapping[str, Modality[Any]],
    training: bool,
    rng: np.random.Generator,
    progress: bool = True,
) -> Part:
    """
    Draw strokes, and take the picture and the trajectory of each.

    :param size: how many, a multiple of 10, as many of every digit.
    :param training: give writers of few recordings more weight.
    """
    by_writer = BY_WRITER if training else 0.0
    rows = np.concatenate([sampler.sources(k, size // 10, rng, by_writer) for k in range(10)])
    images = np.empty((size, *modalities['image'].shape), np.uint8)
    trajectories = np.empty((size, *modalities['trajectory'].shape), np.float32)
    with tqdm(total=size, desc='draw strokes', disable=not progress) as bar:
        for first in range(0, size, 1000):
            strokes, seconds = sampler.sample(rows[first : first + 1000], POINTS, rng)
            for k, (stroke, duration) in enumerate(zip(strokes, seconds, strict=True), first):
                times = np.linspace(0.0, duration, POINTS, dtype=np.float32)
                trajectories[k] = modalities['trajectory'].to_model(Motion(stroke, times))
                images[k] = _bytes(modalities['image'].to_model(render_stroke(stroke, *FRAME)))
            bar.update(len(strokes))
    writers = sampler.handwriting.writers
    return Part(
        {'image': images, 'trajectory': trajectories},
        sampler.handwriting.labels[rows],
        [writers[row] for row in rows],
    )


def hear_sounds(
    utterances: Sequence[Utterance],
    modalities: Mapping[str, Modality[Any]],
    training: bool,
    rng: np.random.Generator,
    progress: bool = True,
) -> Part:
    """
    Take the spectrogram of every utterance.

    :param training: take recordings also faster and slower, with a little noise.
    """
    values, labels, origins = [], [], []
    for utterance in tqdm(utterances, 'hear sounds', disable=not progress):
        recorded = utterance.index >= 0
        for tenths in SPEEDS_TENTHS if training and recorded else (10,):
            waveform = utterance.waveform
            if tenths != 10:
                waveform = change_speed(waveform, tenths)
                waveform = add_noise(waveform, rng.uniform(*NOISE_SNR_DB), rng)
            values.append(_bytes(modalities['sound'].to_model(waveform)))
            labels.append(int(utterance.label))
            origins.append(utterance.speaker)
    return Part({'sound': np.stack(values)}, np.array(labels), origins)


def pair_by_label(strokes: Part, sounds: Part, rng: np.random.Generator) -> Dataset:
    """
    Give every stroke a sound of its digit, and mix the digits.

    Sounds are taken without replacement until none is left, then again (section 6.1).
    """
    size = len(strokes.labels)
    chosen = np.empty(size, np.int64)
    for label in range(10):
        rows = np.flatnonzero(strokes.labels == label)
        heard = np.flatnonzero(sounds.labels == label)
        rounds = -(-len(rows) // len(heard))
        chosen[rows] = np.concatenate([rng.permutation(heard) for _ in range(rounds)])[: len(rows)]
    order = rng.permutation(size)
    writers, writer = np.unique(strokes.origins, return_inverse=True)
    speakers, speaker = np.unique(sounds.origins, return_inverse=True)
    return Dataset(
        names=NAMES,
        values={**strokes.values, **sounds.values, 'symbol': np.eye(10, dtype=np.float32)},
        index={
            'image': order,
            'trajectory': order,
            'sound': chosen[order],
            'symbol': strokes.labels[order],
        },
        present=np.ones((size, len(NAMES)), bool),
        attributes={
            'label': (DIGITS, strokes.labels[order]),
            'writer': (writers.tolist(), writer[order]),
            'speaker': (speakers.tolist(), speaker[chosen[order]]),
        },
    )


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.rint(array * 255.0).astype(np.uint8)
