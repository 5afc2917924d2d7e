"""Spoken digits: recordings of the FSDD, and voices that are generated."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tempfile
import wave
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mm_perception.errors import DataError, MissingDependency
from mm_perception.modalities import Waveform
from mm_perception.modalities.dsp import resample
from mm_perception.modalities.utterances import trim_silence
from mm_perception.resources import read_file

MAX_WAV_BYTES = 64 << 20
FSDD_FOLDER = Path('fsdd/recordings')
TEST_INDICES = range(5)
VALIDATION_INDICES = range(45, 50)
_NAME = re.compile(r'([0-9])_([a-z]+)_([0-9]+)\.wav')


@dataclass(frozen=True)
class Utterance:
    """
    One spoken digit.

    :param speaker: unique over recorded and generated voices.
    :param index: number of the recording; -1 for generated ones.
    :param source: file name or program, for messages.
    """

    label: str
    speaker: str
    index: int
    waveform: Waveform
    source: str


def read_wav(path: Path) -> Waveform:
    """
    Read a mono 16-bit WAV file.

    :raises DataError: if it is missing, broken or of another format.
    """
    content = io.BytesIO(read_file(path, MAX_WAV_BYTES))
    try:
        with wave.open(content, 'rb') as file:
            channels, width, rate_hz, frames = file.getparams()[:4]
            data = file.readframes(frames)
    except (EOFError, wave.Error) as error:
        raise DataError(f'{path}: no readable WAV file ({error})') from error
    if channels != 1 or width != 2:
        raise DataError(f'{path}: {channels} channels of {8 * width} bit; expected mono, 16 bit')
    if not data or len(data) % 2:
        raise DataError(f'{path}: empty or cut off; copy the file again')
    return Waveform(np.frombuffer(data, '<i2').astype(np.float32) / 32768.0, rate_hz)


def write_wav(path: Path, waveform: Waveform) -> None:
    """Write a mono 16-bit WAV file."""
    samples = np.clip(np.rint(waveform.samples * 32768.0), -32768, 32767).astype('<i2')
    with wave.open(str(path), 'wb') as file:
        file.setparams((1, 2, waveform.rate_hz, len(samples), 'NONE', ''))
        file.writeframes(samples.tobytes())


def read_fsdd(data_root: Path) -> list[Utterance]:
    """
    Read all recordings of the Free Spoken Digit Dataset, ``{digit}_{speaker}_{index}.wav``.

    :param data_root: folder of the raw recordings.
    :raises DataError: if the folder is missing or empty, or a file is broken.
    """
    folder = data_root / FSDD_FOLDER
    utterances = []
    for path in sorted(folder.glob('*.wav')):
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise DataError(f'{path}: expected a name like 7_jackson_32.wav; remove the file')
        label, speaker, index = match.groups()
        utterances.append(
            Utterance(label, f'fsdd-{speaker}', int(index), read_wav(path), path.name)
        )
    if not utterances:
        raise DataError(
            f'{folder}: no recordings there; give the folder that holds fsdd/ with --data'
            ' or MM_PERCEPTION_DATA'
        )
    return utterances


def split_utterances(utterances: Sequence[Utterance]) -> dict[str, list[Utterance]]:
    """
    Split FSDD: index 0 to 4 is its official test set; the last speaker is held out entirely.

    Index 45 to 49 is held out of the rest for validation.

    :returns: ``train``, ``validation``, ``test`` and ``test_speaker``.
    """
    held_out = max(utterance.speaker for utterance in utterances)
    known = [u for u in utterances if u.speaker != held_out]
    held_back = (*TEST_INDICES, *VALIDATION_INDICES)
    return {
        'train': [u for u in known if u.index not in held_back],
        'validation': [u for u in known if u.index in VALIDATION_INDICES],
        'test': [u for u in known if u.index in TEST_INDICES],
        'test_speaker': [u for u in utterances if u.speaker == held_out],
    }


def change_speed(waveform: Waveform, tenths: int) -> Waveform:
    """Play faster or slower, which moves the pitch too; 10 tenths is the original speed."""
    return Waveform(resample(waveform.samples, tenths, 10), waveform.rate_hz)


def add_noise(waveform: Waveform, snr_db: float, rng: np.random.Generator) -> Waveform:
    """Add white noise at a signal-to-noise ratio."""
    samples = waveform.samples
    level = float(np.sqrt((samples**2).mean())) * 10.0 ** (-snr_db / 20.0)
    noise = rng.normal(0.0, level, len(samples)).astype(np.float32)
    return Waveform(samples + noise, waveform.rate_hz)


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
        from tqdm import tqdm

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
