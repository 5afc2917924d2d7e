"""Generated voices: digits spoken by espeak-ng and flite."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mm_perception.data.speech import Utterance, read_wav, write_wav
from mm_perception.errors import DataError, MissingDependency
from mm_perception.modalities.raw import Waveform
from mm_perception.modalities.resampling import resample
from mm_perception.modalities.utterance import trim_silence

RATE_HZ = 8000
WORDS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
# An accent is named as its file is: espeak-ng drops the variant of another name, such as en-gb.
ACCENTS = (
    'en', 'en-us', 'en-gb-scotland', 'en-gb-x-rp', 'en-gb-x-gbclan', 'en-gb-x-gbcwmd',
    'en-029', 'en-us-nyc',
)  # fmt: skip
VARIANTS = (
    'm1', 'm2', 'm3', 'm4', 'm5', 'm6', 'm7', 'm8', 'f1', 'f2', 'f3', 'f4', 'f5',
    'steph', 'steph2', 'belinda', 'linda', 'Andrea', 'Alicia', 'Annie', 'aunty', 'anika',
    'grandma', 'grandpa', 'Andy', 'antonio', 'benjamin', 'boris', 'caleb', 'david', 'Denis',
    'Diogo', 'ed', 'edward', 'Gene', 'Henrique', 'Hugo', 'iven', 'Jacky', 'john', 'Lee',
    'marcelo', 'Marco', 'max', 'Michael', 'mike', 'norbert', 'pablo', 'paul', 'quincy', 'rob',
    'robert', 'sandro', 'shelby', 'travis', 'victor',
)  # fmt: skip
ESPEAK_VOICES = tuple(f'{ACCENTS[k % len(ACCENTS)]}+{name}' for k, name in enumerate(VARIANTS))
FLITE_VOICES = ('kal', 'kal16', 'awb', 'rms', 'slt')
# Held out of training: every ninth of espeak-ng, each of another accent, and a man and a woman.
VALIDATION_SPEAKERS = (
    *(f'espeak-ng-{name}' for name in ESPEAK_VOICES[3::9]),
    *(f'flite-{name}' for name in FLITE_VOICES[-2:]),
)
# (words per minute, pitch) of espeak-ng, and duration factors of flite.
TRAINING_SETTINGS = ((130, 40), (165, 50), (195, 62))
TRAINING_STRETCHES = (0.85, 1.0, 1.25)
SAMPLE_SETTINGS = ((148, 45), (178, 56))
SAMPLE_STRETCHES = (0.93, 1.1)
PAD_S = 0.05


@dataclass(frozen=True)
class Voice:
    """
    A program with the options that make one way of speaking.

    :param speaker: name of the voice without its settings.
    :param key: unique name with its settings.
    :param command: program and options, before the output file and the text.
    """

    speaker: str
    key: str
    command: tuple[str, ...]


def training_voices() -> list[Voice]:
    """All voices of the training set."""
    voices = _voices(TRAINING_SETTINGS, TRAINING_STRETCHES)
    return [voice for voice in voices if voice.speaker not in VALIDATION_SPEAKERS]


def validation_voices() -> list[Voice]:
    """Voices of speakers that training never hears."""
    voices = _voices(TRAINING_SETTINGS, TRAINING_STRETCHES)
    return [voice for voice in voices if voice.speaker in VALIDATION_SPEAKERS]


def sample_voices() -> list[Voice]:
    """Voices of the sample recordings: speeds and pitches that training never hears."""
    return _voices(SAMPLE_SETTINGS, SAMPLE_STRETCHES)


def speak_digits(
    requests: Sequence[tuple[Voice, int]], cache: Path | None = None, progress: bool = True
) -> list[Utterance]:
    """
    Speak digits, two at a time.

    :param requests: voice and digit of each.
    :param cache: folder that keeps what was spoken for the next time.
    :returns: utterances of 8 kHz, silence at both ends cut to a little.
    :raises MissingDependency: if a program is not installed.
    """
    for program in sorted({voice.command[0] for voice, _ in requests}):
        if shutil.which(program) is None:
            raise MissingDependency(
                f'{program} is not installed: apt-get install espeak-ng flite,'
                ' or build with --generated-voices none'
            )
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(2) as pool:
        folder = Path(scratch) if cache is None else cache
        folder.mkdir(parents=True, exist_ok=True)
        jobs = pool.map(partial(_speak, folder), requests)
        bar = tqdm(jobs, 'generate voices', len(requests), disable=not progress)
        return list(bar)


def _voices(settings: Sequence[tuple[int, int]], stretches: Sequence[float]) -> list[Voice]:
    voices = []
    for name in ESPEAK_VOICES:
        for speed, pitch in settings:
            command = ('espeak-ng', '-v', name, '-s', str(speed), '-p', str(pitch), '-w')
            voices.append(Voice(f'espeak-ng-{name}', f'espeak-ng_{name}_{speed}_{pitch}', command))
    for name in FLITE_VOICES:
        for stretch in stretches:
            option = f'duration_stretch={stretch}'
            options = ('flite', '-voice', name, '--setf', option, '-o')
            voices.append(Voice(f'flite-{name}', f'flite_{name}_{stretch}', options))
    return voices


def _speak(folder: Path, request: tuple[Voice, int]) -> Utterance:
    voice, digit = request
    path = folder / f'{voice.key}_{digit}.wav'
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            spoken, ready = Path(scratch, 'spoken.wav'), Path(scratch, 'ready.wav')
            _run(voice, spoken, WORDS[digit])
            write_wav(ready, _prepare(read_wav(spoken)))
            os.replace(ready, path)
    return Utterance(str(digit), voice.speaker, -1, read_wav(path), voice.key)


def _run(voice: Voice, path: Path, text: str) -> None:
    words = ('-t', text) if voice.command[0] == 'flite' else (text,)
    done = subprocess.run(
        (*voice.command, str(path), *words), capture_output=True, text=True, check=False
    )
    if done.returncode != 0 or not path.exists():
        reason = ' '.join(done.stderr.split())[:200]
        raise DataError(f'{" ".join(voice.command)}: cannot speak "{text}": {reason}')


def _prepare(waveform: Waveform) -> Waveform:
    samples = resample(waveform.samples, waveform.rate_hz, RATE_HZ)
    samples = trim_silence(samples, RATE_HZ, 40.0)
    samples = samples * np.float32(0.7 / max(float(np.abs(samples).max()), 1e-6))
    return Waveform(np.pad(samples, int(PAD_S * RATE_HZ)), RATE_HZ)
