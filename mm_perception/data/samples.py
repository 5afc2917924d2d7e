"""Sample recordings that the project generates itself, for the demo and tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mm_perception.data.folder import complete_folder
from mm_perception.data.handwriting import StrokeSampler, fit_handwriting
from mm_perception.data.pen import DIGITS, load_pen_digits
from mm_perception.data.recordings import LIST_FILE, Recording, save_recordings
from mm_perception.data.voices import sample_voices, speak_digits
from mm_perception.modalities.raw import Motion

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
