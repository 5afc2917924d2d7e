"""Utterances: where speech begins and ends, in a recording and in a live stream."""

from __future__ import annotations

import numpy as np

from mm_perception.modalities.base import Window
from mm_perception.modalities.raw import Array, Stamped, Waveform

FRAME_S = 0.02
FLOOR_RMS = 1e-3


def frame_levels(samples: Array, rate_hz: int) -> Array:
    """
    Root mean square of consecutive frames of 20 ms.

    :param samples: ``float32[n]``.
    :returns: ``float32[ceil(n / frame)]``; the last frame is padded with zeros.
    """
    length = max(int(rate_hz * FRAME_S), 1)
    padded = np.pad(samples, (0, -len(samples) % length))
    return np.sqrt((padded.reshape(-1, length) ** 2).mean(axis=1))


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


class UtteranceWindow(Window):
    """
    Finds utterances in a stream of chunks.

    An utterance begins with a frame louder than both an absolute floor and the running
    noise level, and ends with a pause or after ``seconds``. Its stamp is the time of its
    last sample.

    :param seconds: longest utterance; the rest of a longer one is skipped.
    :param pause_s: silence that ends an utterance.
    :param silence_db: dB below the utterance's loudest frame that count as silence.
    """

    def __init__(self, seconds: float, pause_s: float, silence_db: float) -> None:
        super().__init__()
        self._seconds = seconds
        self._pause_s = pause_s
        self._silence = 10.0 ** (-silence_db / 20.0)
        self.clear()

    def clear(self) -> None:
        """Forget the utterance under way, the noise level and the last value."""
        super().clear()
        self._rest: Array = np.zeros(0, np.float32)
        self._frames: list[Array] = []
        self._lead: Array | None = None
        self._noise = FLOOR_RMS
        self._peak = 0.0
        self._quiet_s = 0.0
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
            if gap_s < -self._seconds:
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
        levels = frame_levels(samples[: count * length], raw.rate_hz) if count else ()
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

    def _take(self, frame: Array, level: float, rate_hz: int, end_ns: int) -> None:
        threshold = max(4.0 * self._noise, 2.0 * FLOOR_RMS, self._peak * self._silence)
        loud = level > threshold
        self._quiet_s = 0.0 if loud else self._quiet_s + FRAME_S
        if not self._frames and not (loud and not self._skipping):
            self._wait(frame, level)
            return
        if not self._frames and self._lead is not None:
            self._frames.append(self._lead)
        self._frames.append(frame)
        self._peak = max(self._peak, level)
        if len(self._frames) * FRAME_S >= self._seconds:
            self._skipping = self._quiet_s == 0.0
            self._end(rate_hz, end_ns)
        elif self._quiet_s >= self._pause_s:
            self._end(rate_hz, end_ns - int(self._quiet_s * 1e9))

    def _wait(self, frame: Array, level: float) -> None:
        if self._quiet_s >= self._pause_s:
            self._skipping = False
        if not self._skipping:
            self._noise = 0.95 * self._noise + 0.05 * max(level, 0.1 * FLOOR_RMS)
        self._lead = frame

    def _end(self, rate_hz: int, end_ns: int) -> None:
        spoken = len(self._frames) * FRAME_S - self._quiet_s
        if spoken >= 3 * FRAME_S:
            self._latest = Stamped(Waveform(np.concatenate(self._frames), rate_hz), end_ns)
        self._frames = []
        self._lead = None
        self._peak = 0.0
