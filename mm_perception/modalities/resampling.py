"""Change of the sample rate, of recordings and of streams, in numpy."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import numpy as np

from mm_perception.errors import InvalidInput
from mm_perception.modalities.raw import Array

LOBES = 10  # zero crossings of the filter on either side
MAX_DENOMINATOR = 1000  # bounds the filter; a rate is met within 1e-6
BLOCK = 4096  # outputs worked out at once, which bounds the memory


class StreamResampler:
    """
    Resamples a stream piece by piece: polyphase, anti-aliased by a Kaiser-windowed sinc.

    :param rate_hz: of what comes.
    :param target_hz: of what leaves.
    :raises InvalidInput: if ``rate_hz`` is not positive, or over 1000 times the target.
    """

    def __init__(self, rate_hz: int, target_hz: int) -> None:
        if rate_hz <= 0:
            raise InvalidInput(f'sample rate {rate_hz} Hz is not positive')
        ratio = Fraction(target_hz, rate_hz).limit_denominator(MAX_DENOMINATOR)
        if ratio == 0:
            raise InvalidInput(f'sample rate {rate_hz} Hz is too high to be made {target_hz} Hz')
        self.up, self.down = ratio.numerator, ratio.denominator
        self._half = LOBES * max(self.up, self.down)
        self._filters = _polyphase_filters(self.up, self.down)
        taps = self._filters.shape[1]
        self._rest: Array = np.zeros(taps, np.float32)
        self._first = -taps  # position of the rest's first sample in the stream
        self._next = 0  # position of the next output

    def push(self, samples: Array) -> Array:
        """
        Take samples of the stream.

        :param samples: ``float32[n]``.
        :returns: outputs that no later sample can change, ``float32[m]``.
        """
        known = np.concatenate((self._rest, samples))
        end = self._first + len(known)
        stop = max(self._next, -((self._half - end * self.up) // self.down))
        blocks = [
            self._outputs(known, np.arange(begin, min(begin + BLOCK, stop)))
            for begin in range(self._next, stop, BLOCK)
        ]
        self._next = stop
        taps = self._filters.shape[1]
        oldest = (stop * self.down + self._half) // self.up - taps + 1
        keep = min(max(oldest - self._first, 0), len(known))
        self._rest, self._first = known[keep:], self._first + keep
        return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)

    def _outputs(self, known: Array, positions: np.ndarray) -> Array:
        last, phase = np.divmod(positions * self.down + self._half, self.up)
        taps = self._filters.shape[1]
        windows = np.lib.stride_tricks.sliding_window_view(known, taps)
        inputs = windows[last - taps + 1 - self._first]
        return np.einsum('nt,nt->n', inputs, self._filters[phase])


def resample(samples: Array, rate_hz: int, target_hz: int) -> Array:
    """
    Resample a recording, silent before and after: ``float32[n]``.

    :raises InvalidInput: if ``rate_hz`` is not positive, or over 1000 times the target.
    """
    if rate_hz == target_hz:
        return samples
    resampler = StreamResampler(rate_hz, target_hz)
    count = -(-len(samples) * resampler.up // resampler.down)
    after = (LOBES + 1) * max(resampler.up, resampler.down) // resampler.up + 1
    padded = np.pad(np.asarray(samples, np.float32), (0, after))
    return resampler.push(padded)[:count]


@lru_cache(maxsize=4)
def _polyphase_filters(up: int, down: int) -> Array:
    """Filter of every phase, to be multiplied with inputs in the order of time."""
    half = LOBES * max(up, down)
    time = np.arange(-half, half + 1) / max(up, down)
    response = np.sinc(time) * np.kaiser(2 * half + 1, 5.0)
    response *= up / response.sum()
    taps = -(-len(response) // up)
    padded = np.pad(response, (0, taps * up - len(response)))
    filters = padded.reshape(taps, up).T[:, ::-1]
    return np.ascontiguousarray(filters, np.float32)
