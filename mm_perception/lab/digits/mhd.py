"""Builds the Multimodal Handwritten Digits dataset and the samples that a bundle carries."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mm_perception.config import load_training
from mm_perception.data.dataset import (
    MANIFEST,
    Dataset,
    complete_folder,
    save_build,
    save_dataset,
    to_bytes,
)
from mm_perception.errors import DataError
from mm_perception.lab.digits.handwriting import StrokeSampler, fit_handwriting, in_turn
from mm_perception.lab.digits.mnist import mnist_digits
from mm_perception.lab.digits.pen import DIGITS, PenDigit, load_pen_digits, render_stroke
from mm_perception.lab.digits.recordings import LIST_FILE, Recording, save_recordings
from mm_perception.lab.digits.speech import (
    Utterance,
    Voice,
    add_noise,
    change_speed,
    read_fsdd,
    sample_voices,
    speak_digits,
    split_utterances,
    training_voices,
    validation_voices,
)
from mm_perception.modalities import Modality, Motion, build_modality
from mm_perception.resources import share_directory

NAMES = ('image', 'trajectory', 'sound', 'symbol')
POINTS = 100
UNKNOWN = 'unknown'
MNIST_SEED = 1001
# The picture is taken at a quarter of the camera's size: the same after the area resize.
FRAME = (240, 320)
# Few people write a five, seven or four in one stroke: half of the training strokes take every
# writer equally often.
BY_WRITER = 0.5
SPEEDS_TENTHS = (8, 9, 10, 11, 12)
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
                images[k] = to_bytes(modalities['image'].to_model(render_stroke(stroke, *FRAME)))
            bar.update(len(strokes))
    writers = sampler.handwriting.writers
    return Part(
        {'image': images, 'trajectory': trajectories},
        sampler.handwriting.labels[rows],
        [writers[row] for row in rows],
    )


def join_images(dataset: Dataset, images: Part) -> Dataset:
    """
    Append rows that have but an image and its label.

    Such rows name no writer and no speaker.
    """
    size = len(images.labels)
    first = len(dataset.values['image'])
    more = {'image': first + np.arange(size), 'symbol': images.labels}
    nothing = np.zeros(size, np.int64)
    shown = np.array([name in more for name in NAMES])
    attributes = dict(dataset.attributes)
    names, labels = attributes['label']
    attributes['label'] = names, np.concatenate((labels, images.labels))
    for what in ('writer', 'speaker'):
        names, index = attributes[what]
        unknown = np.full(size, len(names))
        attributes[what] = [*names, UNKNOWN], np.concatenate((index, unknown))
    joined = np.concatenate((dataset.values['image'], images.values['image']))
    return replace(
        dataset,
        values={**dataset.values, 'image': joined},
        index={n: np.concatenate((i, more.get(n, nothing))) for n, i in dataset.index.items()},
        present=np.concatenate((dataset.present, np.tile(shown, (size, 1)))),
        attributes=attributes,
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
            values.append(to_bytes(modalities['sound'].to_model(waveform)))
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
        chosen[rows] = in_turn(heard, len(rows), rng)
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


VALIDATION_SPEAKER_SIZE = 500
SOURCES = {
    'UJI Pen Characters 2': 'CC BY 4.0',
    'UCI pendigits (original)': 'CC BY 4.0',
    'Free Spoken Digit Dataset': 'CC BY-SA 4.0',
    'espeak-ng and flite voices': 'generated',
    'MNIST': 'CC BY-SA 3.0',
}


@dataclass(frozen=True)
class BuildOptions:
    """
    How large a dataset to build, and from which random numbers.

    :param train_size: samples of the training set, a multiple of 10.
    :param test_size: samples of the test set, a multiple of 10.
    :param voices: generated voices to add to the recorded speakers; None for all. With 0
        there is no split ``validation_speaker`` either.
    :param progress: show progress bars.
    :param validation_size: samples of the validation set, a multiple of 10.
    :param mnist_size: training images of MNIST that join the training set, with their labels.
    """

    seed: int = 0
    train_size: int = 50_000
    test_size: int = 10_000
    voices: int | None = None
    progress: bool = True
    validation_size: int = 5000
    mnist_size: int = 20_000

    def __post_init__(self) -> None:
        for name in ('train_size', 'test_size', 'validation_size'):
            if getattr(self, name) < 10 or getattr(self, name) % 10:
                raise DataError(f'{name} is {getattr(self, name)}; give a multiple of 10')


def build_mhd(data_root: Path, out: Path, options: BuildOptions) -> dict[str, Any]:
    """
    Build the dataset from the raw recordings; ``out`` appears when all of it is written.

    :param data_root: folder with ujipenchars2, pendigits_orig, fsdd and mnist.
    :returns: counts, sources and hashes, as written to ``build.json``.
    :raises DataError: if a recording is missing or broken.
    :raises MissingDependency: if a program for generated voices is not installed.
    """
    begun = time.monotonic()
    modalities = mhd_modalities()
    with complete_folder(out, MANIFEST) as folder:
        spoken = split_utterances(read_fsdd(data_root))
        written = load_pen_digits(data_root)
        more = see_mnist(data_root, options, modalities['image'])
        for split, generated in _generated(options, out.parent / 'voices').items():
            spoken[split] = spoken.get(split, []) + generated
        _check_every_digit(spoken, written, data_root)
        samplers = {
            split: StrokeSampler(fit_handwriting(digits, options.progress))
            for split, digits in written.items()
        }
        sizes = _sizes(options, spoken)
        for number, (split, size) in enumerate(sizes.items()):
            rng = np.random.default_rng([options.seed, number])
            training, sampler = split == 'train', samplers[_writers(split)]
            strokes = draw_strokes(sampler, size, modalities, training, rng, options.progress)
            sounds = hear_sounds(spoken[split], modalities, training, rng, options.progress)
            paired = pair_by_label(strokes, sounds, rng)
            if training and len(more.labels):
                paired = join_images(paired, more)
            save_dataset(folder, split, paired)
        about = _about(sizes, spoken, samplers)
        seconds = round(time.monotonic() - begun, 1)
        return save_build(folder, about, seed=options.seed, sources=SOURCES, seconds=seconds)


def mhd_modalities() -> dict[str, Modality[Any]]:
    """The transforms of the four modalities, as ``config/mhd.yaml`` trains with them."""
    spec = load_training(share_directory() / 'config' / 'mhd.yaml').model
    return {name: build_modality(spec.modality(name)) for name in NAMES}


def see_mnist(data_root: Path, options: BuildOptions, modality: Modality[Any]) -> Part:
    """Take pictures of training images of MNIST, as dark ink on paper."""
    if not options.mnist_size:
        return Part({'image': np.zeros((0, *modality.shape), np.uint8)}, np.zeros(0, int), [])
    images, labels = mnist_digits(data_root, 'train')
    rng = np.random.default_rng([options.seed, MNIST_SEED])
    rows = rng.permutation(len(labels))[: options.mnist_size]
    seen = [to_bytes(modality.to_model(np.asarray(255 - images[k], np.uint8))) for k in rows]
    return Part({'image': np.stack(seen)}, labels[rows], [UNKNOWN] * len(rows))


def _sizes(options: BuildOptions, spoken: Mapping[str, Sequence[Utterance]]) -> dict[str, int]:
    """Samples per split; the position is a part of the random seed, so new ones go last."""
    sizes = {
        'train': options.train_size,
        'test': options.test_size,
        'test_speaker': len(spoken['test_speaker']),
        'validation': options.validation_size,
        'validation_speaker': VALIDATION_SPEAKER_SIZE,
    }
    return {split: size for split, size in sizes.items() if split in spoken}


def _generated(options: BuildOptions, cache: Path) -> dict[str, list[Utterance]]:
    if options.voices == 0:
        return {}
    voices = {
        'train': _some(training_voices(), options.voices),
        'validation_speaker': validation_voices(),
    }
    return {
        split: speak_digits([(v, d) for v in part for d in range(10)], cache, options.progress)
        for split, part in voices.items()
    }


def _some(voices: list[Voice], count: int | None) -> list[Voice]:
    """The voices of some speakers, spread evenly over all."""
    speakers = list(dict.fromkeys(voice.speaker for voice in voices))
    if count is not None:
        step = max(len(speakers) / count, 1.0)
        speakers = [speakers[int(k * step)] for k in range(min(count, len(speakers)))]
    return [voice for voice in voices if voice.speaker in speakers]


def _writers(split: str) -> str:
    """The split whose writers write for a split."""
    return split.removesuffix('_speaker')


def _check_every_digit(
    spoken: Mapping[str, Sequence[Utterance]],
    written: Mapping[str, Sequence[PenDigit]],
    data_root: Path,
) -> None:
    sources: list[tuple[str, set[str]]] = [
        *((f'{split} strokes', {d.label for d in part}) for split, part in written.items()),
        *((f'{split} speech', {u.label for u in part}) for split, part in spoken.items()),
    ]
    for what, labels in sources:
        if missing := [label for label in DIGITS if label not in labels]:
            raise DataError(
                f'{data_root}: no {what} of the digits {", ".join(missing)}; copy all recordings'
            )


def _about(
    sizes: Mapping[str, int],
    utterances: Mapping[str, Sequence[Utterance]],
    samplers: Mapping[str, StrokeSampler],
) -> dict[str, dict[str, int]]:
    about = {}
    for split, size in sizes.items():
        handwriting = samplers[_writers(split)].handwriting
        about[split] = {
            'samples': size,
            'writers': len(set(handwriting.writers)),
            'pen_recordings': len(handwriting.labels),
            'pen_recordings_dropped': handwriting.dropped,
            'speakers': len({u.speaker for u in utterances[split]}),
            'utterances_recorded': sum(u.index >= 0 for u in utterances[split]),
            'utterances_generated': sum(u.index < 0 for u in utterances[split]),
        }
    return about


TABLET_UNITS = 100.0


def write_samples(
    data_root: Path, out: Path, per_label: int = 24, seed: int = 0, progress: bool = True
) -> int:
    """
    Generate strokes and voices for every digit, as raw sensor data.

    The strokes come from the model of the training writers' hands, the voices speak at speeds
    and pitches that the training set does not have.

    :param data_root: folder with ujipenchars2 and pendigits_orig.
    :param out: folder to write; appears when all of it is written.
    :returns: how many recordings were written.
    """
    with complete_folder(out, LIST_FILE) as folder:
        handwriting = fit_handwriting(load_pen_digits(data_root)['train'], progress)
        sampler = StrokeSampler(handwriting)
        rng = np.random.default_rng([seed, 1000])
        voices = sample_voices()
        chosen = [(voices[k], digit) for digit in range(10) for k in
                  rng.choice(len(voices), per_label, replace=per_label > len(voices))]  # fmt: skip
        spoken = speak_digits(chosen, None, progress)
        recordings = []
        for digit, label in enumerate(DIGITS):
            rows = sampler.sources(digit, per_label, rng)
            for row, utterance in zip(rows, spoken[digit * per_label :], strict=False):
                stroke = _on_tablet(sampler.motion(int(row), rng))
                source = f'generated stroke, {utterance.source}'
                recordings.append(Recording(label, stroke, utterance.waveform, source))
        save_recordings(folder, recordings)
    return len(recordings)


def _on_tablet(stroke: Motion) -> Motion:
    """Whole tablet units, from the corner of the stroke's bounding box."""
    points = stroke.points - stroke.points.min(axis=0)
    return Motion(np.rint(points * TABLET_UNITS).astype(np.float32), stroke.times_s)
