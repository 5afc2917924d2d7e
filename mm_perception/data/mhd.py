"""The builder of Multimodal Handwritten Digits, as in section 6.1 of Vasco et al. 2022."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mm_perception.config import load_training
from mm_perception.data.dataset import MANIFEST, save_build, save_dataset
from mm_perception.data.folder import complete_folder
from mm_perception.data.handwriting import StrokeSampler, fit_handwriting
from mm_perception.data.pairing import NAMES, draw_strokes, hear_sounds, pair_by_label
from mm_perception.data.pen import DIGITS, PenDigit, load_pen_digits
from mm_perception.data.speech import Utterance, read_fsdd, split_utterances
from mm_perception.data.voices import Voice, speak_digits, training_voices, validation_voices
from mm_perception.errors import DataError
from mm_perception.modalities import Modality, build_modality
from mm_perception.resources import share_directory

VALIDATION_SPEAKER_SIZE = 500
SOURCES = {
    'UJI Pen Characters 2': 'CC BY 4.0',
    'UCI pendigits (original)': 'CC BY 4.0',
    'Free Spoken Digit Dataset': 'CC BY-SA 4.0',
    'espeak-ng and flite voices': 'generated',
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
    """

    seed: int = 0
    train_size: int = 50_000
    test_size: int = 10_000
    voices: int | None = None
    progress: bool = True
    validation_size: int = 5000

    def __post_init__(self) -> None:
        for name in ('train_size', 'test_size', 'validation_size'):
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
        spoken = split_utterances(read_fsdd(data_root))
        written = load_pen_digits(data_root)
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
            save_dataset(folder, split, pair_by_label(strokes, sounds, rng))
        about = _about(sizes, spoken, samplers)
        seconds = round(time.monotonic() - begun, 1)
        return save_build(folder, about, seed=options.seed, sources=SOURCES, seconds=seconds)


def mhd_modalities() -> dict[str, Modality[Any]]:
    """The transforms of the four modalities, as ``config/mhd.yaml`` trains with them."""
    spec = load_training(share_directory() / 'config' / 'mhd.yaml').model
    return {name: build_modality(spec.modality(name)) for name in NAMES}


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
