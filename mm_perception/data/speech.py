"""Spoken digits: the reader of the Free Spoken Digit Dataset, WAV files, and its splits."""

from __future__ import annotations

import re
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mm_perception.errors import DataError
from mm_perception.modalities.raw import Waveform
from mm_perception.modalities.resampling import resample

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
    try:
        with wave.open(str(path), 'rb') as file:
            channels, width, rate_hz, frames = file.getparams()[:4]
            data = file.readframes(frames)
    except FileNotFoundError as error:
        raise DataError(f'{path}: no such file') from error
    except (OSError, EOFError, wave.Error) as error:
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
