"""A few recordings that are made in a moment: strokes that move, tones for speech."""

from __future__ import annotations

import numpy as np

from mm_perception.lab.digits.recordings import Recording
from mm_perception.modalities import Motion, Waveform

RATE_HZ = 16000
SPEECH_S = 0.3


def make_recordings(labels: str = '0123456789', per_label: int = 2) -> list[Recording]:
    """Every label has a stroke and a tone of its own."""
    recordings = []
    for label in labels:
        for take in range(per_label):
            angle = np.linspace(0.0, 1.0 + int(label), 40, dtype=np.float32)
            points = np.stack((np.cos(angle), np.sin(angle) * (1 + take)), axis=1)
            time_s = np.arange(int(SPEECH_S * RATE_HZ)) / RATE_HZ
            tone = 0.5 * np.sin(2 * np.pi * (200 + 150 * int(label)) * time_s)
            recordings.append(
                Recording(
                    label,
                    Motion(points.astype(np.float32), angle / 4),
                    Waveform(tone.astype(np.float32), RATE_HZ),
                    f'made, take {take}',
                )
            )
    return recordings
