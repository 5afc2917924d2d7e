"""Utterances: words between silences, found in a stream whatever the noise is."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque

import numpy as np

from mm_perception.modalities.base import NOISY, Array, Stamped, Waveform, Window

FRAME_S = 0.02
FLOOR_RMS = 1e-3
NOISE_S, NOISE_QUANTILE = 3.0, 0.1
EXPECTED_FRAMES = 5
"""Of the floor, which a stream is taken to begin with: its first word is not its noise."""
ABOVE_NOISE, STILL_ABOVE_NOISE = 3.0, 1.7
"""Of the noise, from where on a frame begins an utterance, and goes on with it."""
LEAD_FRAMES = 5
"""Before the first loud frame that belong to the utterance: many begin softly."""
NOISY_RMS = 4e-3
SHORTEST_FRAMES = 2
LOWEST_HZ = 140.0
"""Of what counts for speech: below are offsets of microphones, the mains' hum and rumble."""


def frame_levels(samples: Array, rate_hz: int) -> Array:
    """
    Root mean square of consecutive frames of 20 ms.

    :param samples: ``float32[n]``.
    :returns: ``float32[ceil(n / frame)]``; the last frame is padded with zeros.
    """
    length = max(int(rate_hz * FRAME_S), 1)
    padded = np.pad(samples, (0, -len(samples) % length))
    return np.asarray(np.sqrt((padded.reshape(-1, length) ** 2).mean(axis=1)))


def speech_levels(samples: Array, rate_hz: int) -> Array:
    """
    Root mean square of consecutive frames of 20 ms above :data:`LOWEST_HZ`.

    :param samples: ``float32[n]``, whole frames.
    :returns: ``float32[n / frame]``.
    """
    length = max(int(rate_hz * FRAME_S), 1)
    shape = np.hanning(length + 2)[1:-1].astype(np.float32)
    spectrum = np.fft.rfft(samples.reshape(-1, length) * shape, axis=1)
    lowest = math.ceil(LOWEST_HZ * length / rate_hz)
    power = (spectrum.real**2 + spectrum.imag**2)[:, lowest:].sum(axis=1)
    return np.asarray(np.sqrt(2.0 * power / (length * (shape**2).sum())), np.float32)


def trim_silence(samples: Array, rate_hz: int, silence_db: float) -> Array:
    """
    Cut what is quieter than the loudest frame by ``silence_db`` off both ends.

    :param samples: ``float32[n]``.
    :returns: ``float32[m]``, m <= n, at least one frame.
    """
    levels = frame_levels(samples, rate_hz)
    active = np.flatnonzero(levels >= levels.max() * 10.0 ** (-silence_db / 20.0))
    length = max(int(rate_hz * FRAME_S), 1)
    return samples[active[0] * length : (active[-1] + 1) * length]


class NoiseLevel:
    """
    Level of the noise in a stream: a low quantile of the levels of the last seconds.

    It goes on while somebody speaks, so that a noise that sets in is learned whatever it is
    taken for at first.
    """

    def __init__(self) -> None:
        self._levels = deque([FLOOR_RMS] * EXPECTED_FRAMES, maxlen=round(NOISE_S / FRAME_S))
        self._sorted = list(self._levels)

    def take(self, level: float) -> None:
        """Take the level of one frame."""
        if len(self._levels) == self._levels.maxlen:
            del self._sorted[bisect_left(self._sorted, self._levels[0])]
        self._levels.append(level)
        insort(self._sorted, level)

    @property
    def rms(self) -> float:
        """The quantile, never quite 0."""
        level = self._sorted[int(NOISE_QUANTILE * len(self._sorted))]
        return max(level, 0.1 * FLOOR_RMS)

    @property
    def median(self) -> float:
        """Of the levels: what it is called by."""
        return max(self._sorted[len(self._sorted) // 2], 0.1 * FLOOR_RMS)


class UtteranceWindow(Window):
    """
    Finds utterances in a stream of chunks.

    An utterance begins with a frame louder than both an absolute floor and the noise, and ends
    with a pause or after ``seconds``. Its stamp is the time of its last sample.

    :param seconds: longest utterance; the rest of a longer one is skipped.
    :param pause_s: silence that ends an utterance.
    :param silence_db: dB below the utterance's loudest frame that count as silence.
    """

    def __init__(self, seconds: float, pause_s: float, silence_db: float) -> None:
        super().__init__()
        self._longest = round(seconds / FRAME_S) + LEAD_FRAMES - 1
        # Of the frames that a pause touches the first and the last hold some sound.
        self._pause = max(math.ceil(pause_s / FRAME_S - 1e-6) - 1, 1)
        self._pause_s = pause_s
        self._silence = 10.0 ** (-silence_db / 20.0)
        self.clear()

    @property
    def pending(self) -> tuple[str, str]:
        """Say how loud the noise is, where it hides speech."""
        threshold = 20.0 * np.log10(self._threshold())
        noise = 20.0 * np.log10(self._noise.median)
        if self._noise.rms < NOISY_RMS:
            return '', f'no utterance in it: speech counts from {threshold:.0f} dBFS on'
        return NOISY, (
            f'noisy: its background is at {noise:.0f} dBFS and speech counts from'
            f' {threshold:.0f} dBFS on; quieten it, or bring the microphone nearer'
        )

    def clear(self) -> None:
        """Forget the utterance under way, the noise level and the last value."""
        super().clear()
        self._rest: Array = np.zeros(0, np.float32)
        self._frames: list[Array] = []
        self._lead: deque[Array] = deque(maxlen=LEAD_FRAMES)
        self._noise = NoiseLevel()
        self._peak = 0.0
        self._quiet = 0  # frames
        self._before = 0  # frames before the first loud one
        self._skipping = False
        self._expected_ns: int | None = None

    def push(self, raw: Waveform, stamp_ns: int) -> None:
        """
        Take a chunk.

        :param stamp_ns: time of the chunk's first sample; after a gap of more than the
            pause an utterance under way counts as ended.
        """
        if self._expected_ns is not None:
            gap_s = (stamp_ns - self._expected_ns) * 1e-9
            if gap_s < -self._longest * FRAME_S:
                self.clear()
            elif gap_s > self._pause_s:
                self._end(raw.rate_hz, self._expected_ns)
                self._rest = np.zeros(0, np.float32)
        start_ns = stamp_ns - int(len(self._rest) / raw.rate_hz * 1e9)
        samples = np.concatenate((self._rest, raw.samples))
        length = max(int(raw.rate_hz * FRAME_S), 1)
        count = len(samples) // length
        self._rest = samples[count * length :]
        self._expected_ns = stamp_ns + int(raw.seconds * 1e9)
        levels = speech_levels(samples[: count * length], raw.rate_hz) if count else ()
        for k, level in enumerate(levels):
            end_ns = start_ns + int((k + 1) * length / raw.rate_hz * 1e9)
            frame = samples[k * length : (k + 1) * length]
            self._take(frame, float(level), raw.rate_hz, end_ns)

    def advance(self, now_ns: int) -> None:
        """End the utterance under way if the stream has stopped for longer than a pause."""
        if self._expected_ns is not None and self._frames:
            if (now_ns - self._expected_ns) * 1e-9 > self._pause_s + FRAME_S:
                rate_hz = round(len(self._frames[0]) / FRAME_S)
                self._end(rate_hz, self._expected_ns)

    def _threshold(self) -> float:
        return max(ABOVE_NOISE * self._noise.rms, 2.0 * FLOOR_RMS)

    def _take(self, frame: Array, level: float, rate_hz: int, end_ns: int) -> None:
        self._noise.take(level)
        still = STILL_ABOVE_NOISE / ABOVE_NOISE if self._frames else 1.0
        loud = level > max(still * self._threshold(), self._peak * self._silence)
        self._quiet = 0 if loud else self._quiet + 1
        self._lead.append(frame)
        if not self._frames and not (loud and not self._skipping):
            self._skipping = self._skipping and self._quiet < self._pause
            return
        if not self._frames:
            self._frames, self._before = list(self._lead), len(self._lead) - 1
        else:
            self._frames.append(frame)
        self._peak = max(self._peak, level)
        if len(self._frames) >= self._longest:
            self._skipping = self._quiet == 0
            self._end(rate_hz, end_ns)
        elif self._quiet >= self._pause:
            self._end(rate_hz, end_ns - int(self._quiet * FRAME_S * 1e9))

    def _end(self, rate_hz: int, end_ns: int) -> None:
        spoken = len(self._frames) - self._quiet - self._before >= SHORTEST_FRAMES
        # By now a noise that set in is known; speech still stands out of it.
        if spoken and self._peak > self._threshold():
            self._latest = Stamped(Waveform(np.concatenate(self._frames), rate_hz), end_ns)
        self._frames = []
        self._lead.clear()
        self._peak = 0.0
