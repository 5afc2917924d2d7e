"""Recordings of written and spoken digits as raw sensor data: shipped samples and real ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mm_perception.errors import DataError
from mm_perception.lab.digits.pen import (
    DIGITS,
    PENDIGITS_TEST_FILE,
    PENDIGITS_TRAIN_FILE,
    one_stroke,
    read_pendigits,
    split_of_writer,
)
from mm_perception.lab.digits.speech import read_fsdd, read_wav, split_utterances, write_wav
from mm_perception.modalities import Motion, Waveform
from mm_perception.resources import read_file

FORMAT = 1
LIST_FILE = 'recordings.json'
STROKES_FILE = 'strokes.json'
SPEECH_FOLDER = 'speech'
LEAD_S = 0.02
PAUSE_S = 0.5
MAX_JSON_BYTES = 64 << 20


@dataclass(frozen=True)
class Recording:
    """
    One digit, written and spoken.

    :param stroke: ``float32[T, 2]``, y up.
    :param source: who wrote and who spoke.
    """

    label: str
    stroke: Motion
    speech: Waveform
    source: str

    @property
    def needed_s(self) -> float:
        """Seconds that its speech takes, with the pause after which listeners know it is over."""
        return LEAD_S + self.speech.seconds + PAUSE_S


def save_recordings(path: Path, recordings: Sequence[Recording]) -> None:
    """Write ``recordings.json``, ``strokes.json`` and ``speech/*.wav`` into a folder."""
    speech = path / SPEECH_FOLDER
    speech.mkdir(parents=True, exist_ok=True)
    strokes, entries = {}, []
    for number, recording in enumerate(recordings):
        name = f'{recording.label}_{number:03d}'
        write_wav(speech / f'{name}.wav', recording.speech)
        strokes[name] = {
            'points': [[round(float(x), 3) for x in point] for point in recording.stroke.points],
            'times_s': [round(float(t), 4) for t in recording.stroke.times_s],
        }
        entry = {'label': recording.label, 'stroke': name, 'speech': f'{name}.wav'}
        entries.append({**entry, 'source': recording.source})
    lines = [f'{json.dumps(name)}: {json.dumps(s, separators=(",", ":"))}'
             for name, s in strokes.items()]  # fmt: skip
    (path / STROKES_FILE).write_text('{\n' + ',\n'.join(lines) + '\n}\n')
    text = {'format': FORMAT, 'recordings': entries}
    (path / LIST_FILE).write_text(json.dumps(text, indent=1) + '\n')


def load_recordings(path: Path) -> list[Recording]:
    """
    Read a folder of recordings.

    :raises DataError: if a file is missing or broken.
    """
    listed = _read_json(path / LIST_FILE)
    strokes = _read_json(path / STROKES_FILE)
    try:
        if listed['format'] != FORMAT:
            raise DataError(f'{path / LIST_FILE}: format {listed["format"]} is unknown')
        return [
            Recording(
                str(entry['label']),
                _motion(strokes[entry['stroke']]),
                read_wav(path / SPEECH_FOLDER / _own_name(entry['speech'])),
                str(entry['source']),
            )
            for entry in listed['recordings']
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f'{path}: recordings do not fit together ({error!r})') from error


def real_recordings(
    data_root: Path, split: str = 'test', seed: int = 0, per_label: int = 10
) -> list[Recording]:
    """
    Pair recorded pendigits strokes with FSDD recordings at random, in the order of the labels.

    :param data_root: folder of the raw recordings.
    :param split: ``train``, ``validation``, ``test``, or ``test_speaker`` (a speaker that is
        held out).
    :raises DataError: if the split is unknown, or a recording missing or broken.
    """
    spoken = split_utterances(read_fsdd(data_root))
    if split not in spoken:
        raise DataError(f'no split "{split}" of recordings; known: {", ".join(spoken)}')
    writers = split.removesuffix('_speaker')
    file = PENDIGITS_TEST_FILE if writers == 'test' else PENDIGITS_TRAIN_FILE
    written = one_stroke(read_pendigits(data_root / file))
    written = [digit for digit in written if split_of_writer(digit.writer) == writers]
    rng = np.random.default_rng(seed)
    recordings = []
    for label in DIGITS:
        digits = [digit for digit in written if digit.label == label]
        utterances = [utterance for utterance in spoken[split] if utterance.label == label]
        if min(len(digits), len(utterances)) == 0:
            raise DataError(f'{data_root}: no recordings of the digit {label} for {split}')
        pens = rng.permutation(max(len(digits), per_label))[:per_label] % len(digits)
        voices = rng.permutation(max(len(utterances), per_label))[:per_label] % len(utterances)
        for pen, voice in zip(pens, voices, strict=True):
            digit, utterance = digits[pen], utterances[voice]
            source = f'{digit.source} ({digit.writer}), {utterance.source}'
            recordings.append(Recording(label, digit.motion, utterance.waveform, source))
    return recordings


def _motion(stroke: dict[str, list[float]]) -> Motion:
    points = np.array(stroke['points'], np.float32)
    times_s = np.array(stroke['times_s'], np.float32)
    if points.ndim != 2 or len(points) != len(times_s):
        raise ValueError('points and times_s of a stroke differ in length')
    return Motion(points, times_s)


def _own_name(name: str) -> str:
    """Name of a file of the folder, which leads out of it nowhere."""
    if name != Path(name).name:
        raise ValueError(f'{name[:80]!r} is no name of a file')
    return name


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(read_file(path, MAX_JSON_BYTES))
    except (ValueError, RecursionError) as error:
        raise DataError(f'{path}: broken ({error})') from error
    if not isinstance(data, dict):
        raise DataError(f'{path}: broken (no object)')
    return data
