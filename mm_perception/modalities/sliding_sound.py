"""The newest piece of a steady sound, such as a motor's."""

from __future__ import annotations

import numpy as np

from mm_perception.modalities.base import Window
from mm_perception.modalities.raw import Array, Stamped, Waveform
from mm_perception.modalities.resampling import StreamResampler


class SlidingSoundWindow(Window):
    """
    The last samples of a steady sound, at the rate of the analysis.

    It slides by whole hops, so that one value shares the frames of its spectrogram with the
    next. After a gap longer than itself, and at another sample rate, it fills anew.

    :param length: samples of a value.
    :param hop: samples by which it slides.
    :param rate_hz: of the analysis.
    """

    def __init__(self, length: int, hop: int, rate_hz: int) -> None:
        super().__init__()
        self._length = length
        self._hop = hop
        self._rate_hz = rate_hz
        self._samples: Array
        self._expected_ns: int | None
        self._taken: int  # samples of the stream that came
        self._end: int  # position after the last sample at the rate of the analysis
        self.clear()

    def clear(self) -> None:
        """Forget all samples and the last value."""
        super().clear()
        self._begin(self._rate_hz)

    def push(self, raw: Waveform, stamp_ns: int) -> None:
        """Take a chunk; ``stamp_ns`` is the time of its first sample."""
        gap_s = 0.0 if self._expected_ns is None else (stamp_ns - self._expected_ns) * 1e-9
        if raw.rate_hz != self._source_hz or abs(gap_s) > self._length / self._rate_hz:
            if gap_s < 0:
                super().clear()
            self._begin(raw.rate_hz)
        end_ns = stamp_ns + int(raw.seconds * 1e9)
        self._expected_ns = end_ns
        self._taken += len(raw.samples)
        new = raw.samples if self._resampler is None else self._resampler.push(raw.samples)
        self._samples = np.concatenate((self._samples, new))
        self._end += len(new)
        keep = self._length + self._end % self._hop
        self._samples = self._samples[-keep:]
        if len(self._samples) == keep:
            self._complete(end_ns)

    def _complete(self, end_ns: int) -> None:
        """Make the newest whole hops the value; some of the last samples may wait."""
        end = self._end - self._end % self._hop
        up, down = (self._resampler.up, self._resampler.down) if self._resampler else (1, 1)
        waiting_s = (self._taken - end * down / up) / self._source_hz
        value = Waveform(
            self._samples[: self._length], self._rate_hz, self._stream, end - self._length
        )
        self._latest = Stamped(value, end_ns - int(waiting_s * 1e9))

    def _begin(self, source_hz: int) -> None:
        self._source_hz = source_hz
        same = source_hz == self._rate_hz
        self._resampler = None if same else StreamResampler(source_hz, self._rate_hz)
        self._stream = object()
        self._samples = np.zeros(0, np.float32)
        self._taken = self._end = 0
        self._expected_ns = None
