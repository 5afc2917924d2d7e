"""In which order, and for how long, recordings are on show."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mm_perception.data.recordings import Recording

LEAD_S = 0.02
PAUSE_S = 0.5
STEP_S = 0.1  # durations are whole multiples, so that frames at 30 Hz go on evenly


@dataclass(frozen=True)
class Shown:
    """
    A recording while all sensors show it.

    :param index: counts what has been shown.
    :param start_ns: on the node's clock.
    """

    recording: Recording
    index: int
    start_ns: int
    duration_s: float

    @property
    def end_ns(self) -> int:
        """When the next one begins."""
        return self.start_ns + round(self.duration_s * 1e9)


def shuffled(recordings: Sequence[Recording], seed: int) -> Iterator[Recording]:
    """Go through the recordings for ever: every label once, in random order, then again."""
    rng = np.random.default_rng(seed)
    by_label: dict[str, list[Recording]] = defaultdict(list)
    for recording in recordings:
        by_label[recording.label].append(recording)
    queues: dict[str, list[Recording]] = defaultdict(list)
    while True:
        for label in rng.permutation(sorted(by_label)):
            if not queues[label]:
                order = rng.permutation(len(by_label[label]))
                queues[label] = [by_label[label][k] for k in order]
            yield queues[label].pop()


class Playlist:
    """
    Shows one recording after the other.

    :param recordings: to choose from, at least one.
    :param period_s: how long each is shown; longer if its speech and a pause need it.
    :param seed: of the order.
    :param start_ns: when the first one begins.
    """

    def __init__(
        self, recordings: Sequence[Recording], period_s: float, seed: int, start_ns: int
    ) -> None:
        self._order = shuffled(recordings, seed)
        self._period_s = period_s
        self.shown = self._show(0, start_ns)

    def advance(self) -> None:
        """Go on to the next recording, which begins where this one ends."""
        self.shown = self._show(self.shown.index + 1, self.shown.end_ns)

    def _show(self, index: int, start_ns: int) -> Shown:
        recording = next(self._order)
        needed_s = max(self._period_s, spoken_s(recording))
        return Shown(recording, index, start_ns, math.ceil(needed_s / STEP_S - 1e-6) * STEP_S)


def spoken_s(recording: Recording) -> float:
    """Seconds that its speech takes, with the pause after which listeners know it is over."""
    return LEAD_S + recording.speech.seconds + PAUSE_S


def sound_track(shown: Shown) -> np.ndarray:
    """What a microphone would hear: the speech, again as often as it fits; ``float32[n]``."""
    speech = shown.recording.speech
    track = np.zeros(round(shown.duration_s * speech.rate_hz), np.float32)
    lead = round(LEAD_S * speech.rate_hz)
    slot = round(spoken_s(shown.recording) * speech.rate_hz)
    for start in range(lead, len(track) - slot + lead + 1, slot):
        track[start : start + len(speech.samples)] = speech.samples
    return track
