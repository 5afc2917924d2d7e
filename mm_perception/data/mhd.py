"""The builder of Multimodal Handwritten Digits, as in section 6.1 of Vasco et al. 2022."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mm_perception.config import load_training
from mm_perception.data.dataset import MANIFEST, Dataset, save_dataset
from mm_perception.data.folder import complete_folder
from mm_perception.data.handwriting import StrokeSampler, fit_handwriting
from mm_perception.data.pen import DIGITS, load_pen_digits
from mm_perception.data.render import render_stroke
from mm_perception.data.speech import (
    Utterance,
    add_noise,
    change_speed,
    read_fsdd,
    split_utterances,
)
from mm_perception.data.voices import speak_digits, training_voices
from mm_perception.errors import DataError
from mm_perception.modalities import Modality, Motion, build_modality
from mm_perception.resources import share_directory

NAMES = ('image', 'trajectory', 'sound', 'symbol')
BUILD_FILE = 'build.json'
POINTS = 100
# The picture is taken at a quarter of the camera's size: the same after the area resize.
FRAME = (240, 320)
# Few people write a five, seven or four in one stroke: half of the training strokes take every
# writer equally often.
BY_WRITER = 0.5
SPEEDS_TENTHS = (9, 10, 11)
NOISE_SNR_DB = (20.0, 40.0)


@dataclass(frozen=True)
class BuildOptions:
    """
    How large a dataset to build, and from which random numbers.

    :param train_size: samples of the training set, a multiple of 10.
    :param test_size: samples of the test set, a multiple of 10.
    :param voices: generated voices to add to the recorded speakers; None for all.
    :param progress: show progress bars.
    """

    seed: int = 0
    train_size: int = 50_000
    test_size: int = 10_000
    voices: int | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ('train_size', 'test_size'):
            if getattr(self, name) < 10 or getattr(self, name) % 10:
                raise DataError(f'{name} is {getattr(self, name)}; give a multiple of 10')


def build_mhd(data_root: Path, out: Path, options: BuildOptions) -> dict[str, Any]:
    """
    Build the dataset from the raw recordings; ``out`` appears when all of it is written.

    :param data_root: folder with ujipenchars2, pendigits_orig and fsdd.
    :returns: counts, sources and hashes, as written to ``build.json``.
    :raises DataError: if a recording is missing or broken.
    :raises MissingDependency: if a program for generated voices is not installed.
    """
    begun = time.monotonic()
    modalities = mhd_modalities()
    with complete_folder(out, MANIFEST) as folder:
        recorded = split_utterances(read_fsdd(data_root))
        pen = load_pen_digits(data_root)
        recorded['train'] += _generated(options, out.parent / 'voices')
        samplers = {
            split: StrokeSampler(fit_handwriting(digits, options.progress))
            for split, digits in pen.items()
        }
        samplers['test_speaker'] = samplers['test']
        sizes = {
            'train': options.train_size,
            'test': options.test_size,
            'test_speaker': len(recorded['test_speaker']),
        }
        for number, (split, size) in enumerate(sizes.items()):
            rng = np.random.default_rng([options.seed, number])
            strokes = _strokes(samplers[split], size, modalities, options, rng, split)
            sounds = _sounds(recorded[split], split == 'train', modalities, options, rng)
            save_dataset(folder, split, _assemble(strokes, sounds, rng))
        summary = _summary(folder, options, sizes, recorded, samplers)
        summary['seconds'] = round(time.monotonic() - begun, 1)
        (folder / BUILD_FILE).write_text(json.dumps(summary, indent=1) + '\n')
    return summary


def mhd_modalities() -> dict[str, Modality[Any]]:
    """The transforms of the four modalities, as ``config/mhd.yaml`` trains with them."""
    spec = load_training(share_directory() / 'config' / 'mhd.yaml').model
    return {name: build_modality(spec.modality(name)) for name in NAMES}


@dataclass(frozen=True)
class _Part:
    """Unique values by modality, with the label and the origin of each."""

    values: Mapping[str, np.ndarray]
    labels: np.ndarray
    origins: Sequence[str]


def _generated(options: BuildOptions, cache: Path) -> list[Utterance]:
    voices = training_voices()
    speakers = list(dict.fromkeys(voice.speaker for voice in voices))
    if options.voices is not None:
        step = max(len(speakers) / max(options.voices, 1), 1.0)
        speakers = [speakers[int(k * step)] for k in range(min(options.voices, len(speakers)))]
    requests = [(v, digit) for v in voices if v.speaker in speakers for digit in range(10)]
    return speak_digits(requests, cache, options.progress) if requests else []


def _strokes(
    sampler: StrokeSampler,
    size: int,
    modalities: Mapping[str, Modality[Any]],
    options: BuildOptions,
    rng: np.random.Generator,
    split: str,
) -> _Part:
    """Draw strokes, and take the picture and the trajectory of each."""
    by_writer = BY_WRITER if split == 'train' else 0.0
    rows = np.concatenate([sampler.sources(k, size // 10, rng, by_writer) for k in range(10)])
    images = np.empty((size, *modalities['image'].shape), np.uint8)
    trajectories = np.empty((size, *modalities['trajectory'].shape), np.float32)
    with tqdm(total=size, desc=f'draw {split}', disable=not options.progress) as bar:
        for first in range(0, size, 1000):
            strokes, seconds = sampler.sample(rows[first : first + 1000], POINTS, rng)
            for k, (stroke, duration) in enumerate(zip(strokes, seconds, strict=True), first):
                times = np.linspace(0.0, duration, POINTS, dtype=np.float32)
                trajectories[k] = modalities['trajectory'].to_model(Motion(stroke, times))
                images[k] = _bytes(modalities['image'].to_model(render_stroke(stroke, *FRAME)))
            bar.update(len(strokes))
    writers = sampler.handwriting.writers
    return _Part(
        {'image': images, 'trajectory': trajectories},
        sampler.handwriting.labels[rows],
        [writers[row] for row in rows],
    )


def _sounds(
    utterances: Sequence[Utterance],
    augment: bool,
    modalities: Mapping[str, Modality[Any]],
    options: BuildOptions,
    rng: np.random.Generator,
) -> _Part:
    """Spectrograms; recordings for training also faster and slower, with a little noise."""
    values, labels, origins = [], [], []
    for utterance in tqdm(utterances, 'hear sounds', disable=not options.progress):
        recorded = utterance.index >= 0
        for tenths in SPEEDS_TENTHS if augment and recorded else (10,):
            waveform = utterance.waveform
            if tenths != 10:
                waveform = change_speed(waveform, tenths)
                waveform = add_noise(waveform, rng.uniform(*NOISE_SNR_DB), rng)
            values.append(_bytes(modalities['sound'].to_model(waveform)))
            labels.append(int(utterance.label))
            origins.append(utterance.speaker)
    return _Part({'sound': np.stack(values)}, np.array(labels), origins)


def _assemble(strokes: _Part, sounds: _Part, rng: np.random.Generator) -> Dataset:
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


def _summary(
    folder: Path,
    options: BuildOptions,
    sizes: Mapping[str, int],
    utterances: Mapping[str, Sequence[Utterance]],
    samplers: Mapping[str, StrokeSampler],
) -> dict[str, Any]:
    about = {}
    for split, size in sizes.items():
        handwriting = samplers[split].handwriting
        about[split] = {
            'samples': size,
            'writers': len(set(handwriting.writers)),
            'pen_recordings': len(handwriting.labels),
            'pen_recordings_dropped': handwriting.dropped,
            'speakers': len({u.speaker for u in utterances[split]}),
            'utterances_recorded': sum(u.index >= 0 for u in utterances[split]),
            'utterances_generated': sum(u.index < 0 for u in utterances[split]),
            'sha256': hashlib.sha256((folder / f'{split}.safetensors').read_bytes()).hexdigest(),
        }
    return {
        'seed': options.seed,
        'splits': about,
        'sources': {
            'UJI Pen Characters 2': 'CC BY 4.0',
            'UCI pendigits (original)': 'CC BY 4.0',
            'Free Spoken Digit Dataset': 'CC BY-SA 4.0',
            'espeak-ng and flite voices': 'generated',
        },
    }


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.rint(array * 255.0).astype(np.uint8)
