"""Signal processing in numpy: short-time spectra, mel filters, phase recovery, resampling."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mm_perception.errors import InvalidInput
from mm_perception.modalities.base import Array


def mel_filters(bins: int, transform_length: int, rate_hz: int) -> NDArray[np.float64]:
    """
    Triangular filters, equally spaced on the mel scale from 0 Hz to half the rate.

    :returns: ``float64[bins, transform_length // 2 + 1]``, each row of unit area.

    O'Shaughnessy 1987: mel = 2595 log10(1 + f / 700).
    """
    top = 2595.0 * np.log10(1.0 + rate_hz / 2 / 700.0)
    edges = 700.0 * (10.0 ** (np.linspace(0.0, top, bins + 2) / 2595.0) - 1.0)
    frequencies = np.linspace(0.0, rate_hz / 2, transform_length // 2 + 1)
    # A filter is never narrower than the transform resolves.
    resolution = rate_hz / transform_length
    low = np.minimum(edges[:-2], edges[1:-1] - resolution)[:, None]
    high = np.maximum(edges[2:], edges[1:-1] + resolution)[:, None]
    centre = edges[1:-1, None]
    rising = (frequencies - low) / (centre - low)
    falling = (high - frequencies) / (high - centre)
    filters = np.maximum(0.0, np.minimum(rising, falling))
    return np.asarray(filters / filters.sum(axis=1, keepdims=True))


class MelSpectrum:
    """
    Mel power of overlapping frames, those of a stream worked out once.

    A window that slides over a stream by whole hops shares most of its frames with the one
    before; they are remembered by their place, and only what came new is transformed.

    :param filters: of :func:`mel_filters`, ``float[bins, frequencies]``.
    :param window_length: samples per frame.
    :param transform_length: of the Fourier transform that the filters are made for.
    :param hop: samples between frames.
    """

    def __init__(
        self, filters: NDArray[np.floating], window_length: int, transform_length: int, hop: int
    ) -> None:
        self._filters = filters
        self._transform_length = transform_length
        self._window_length = window_length
        self._hop = hop
        self._known: tuple[object, int, NDArray[np.float64]] | None = None

    def power(
        self, samples: NDArray[np.floating], stream: object = None, start: int = 0
    ) -> NDArray[np.float64]:
        """
        Mel power of frames centred on every hop-th sample.

        :param samples: ``float[n]``; counts as silent before and after.
        :param stream: the stream that they are a piece of; None for a recording.
        :param start: position of the first sample in the stream.
        :returns: ``float64[bins, n // hop]``.
        """
        count = len(samples) // self._hop
        power = np.empty((len(self._filters), count))
        first, last = self._copy_known(power, samples, stream, start)
        new = np.r_[0:first, last:count]
        spectrum = short_time_spectrum(
            samples, self._window_length, self._transform_length, self._hop, new
        )
        power[:, new] = self._filters @ (spectrum.real**2 + spectrum.imag**2).T
        if stream is not None:
            self._known = stream, start, power
        return power

    def _copy_known(
        self, power: NDArray[np.float64], samples: NDArray[np.floating], stream: object, start: int
    ) -> tuple[int, int]:
        """Copy the frames that the last call has worked out; which these are."""
        if stream is None or self._known is None or self._known[0] is not stream:
            return 0, 0
        _, known_start, known = self._known
        shift, between = divmod(start - known_start, self._hop)
        # Frames that reach beyond the samples depend on where these end.
        half = self._window_length // 2
        first = -(-half // self._hop)
        end = (len(samples) - self._window_length + half) // self._hop + 1 - shift
        if between or shift < 0 or end <= first or known.shape != power.shape:
            return 0, 0
        power[:, first:end] = known[:, first + shift : end + shift]
        return first, end


HIGH_PASS_ORDER = 8
EDGE_S = 0.1


def high_pass(transform_length: int, rate_hz: int, edge_hz: float) -> NDArray[np.float64]:
    """
    Gain of a Butterworth high pass, 3 dB down at its edge; 1 everywhere for an edge of 0.

    :returns: ``float64[transform_length // 2 + 1]``.
    """
    frequencies = np.fft.rfftfreq(transform_length, 1.0 / rate_hz)
    if edge_hz == 0.0:
        return np.ones_like(frequencies)
    part = (frequencies / edge_hz) ** (2 * HIGH_PASS_ORDER)
    return np.asarray(np.sqrt(part / (1.0 + part)))


def without_lows(samples: Array, rate_hz: int, edge_hz: float) -> Array:
    """
    Take low frequencies out of a recording, without a delay: ``float32[n]``.

    A mirrored piece at each end keeps what is cut off there from ringing.
    """
    around = min(round(EDGE_S * rate_hz), len(samples) - 1)
    padded = np.pad(samples, around, 'reflect', reflect_type='odd')
    passed = np.fft.rfft(padded) * high_pass(len(padded), rate_hz, edge_hz)
    clean = np.fft.irfft(passed, len(padded))[around : around + len(samples)]
    return np.asarray(clean, np.float32)


def spread_mel(
    power: NDArray[np.floating], filters: NDArray[np.floating], iterations: int = 30
) -> NDArray[np.float64]:
    """
    Find a non-negative power spectrum whose mel bins are given.

    :param power: ``float[bins, frames]``.
    :param filters: of :func:`mel_filters`, ``float[bins, frequencies]``.
    :returns: ``float64[frequencies, frames]``.

    Lee and Seung 2001, multiplicative updates for the Kullback-Leibler divergence.
    """
    weight = np.maximum(filters.sum(axis=0), 1e-12)[:, None]
    spectrum = np.asarray(filters.T @ power / weight)
    for _ in range(iterations):
        spectrum *= filters.T @ (power / np.maximum(filters @ spectrum, 1e-12)) / weight
    return spectrum


def short_time_spectrum(
    samples: NDArray[np.floating],
    window_length: int,
    transform_length: int,
    hop: int,
    wanted: NDArray[np.integer],
) -> NDArray[np.complexfloating]:
    """
    Fourier transforms of overlapping frames, the k-th centred on sample ``k * hop``.

    :param samples: ``float[n]``.
    :param wanted: which frames, ``int[frames]``, each at most ``n // hop``.
    :returns: ``complex[frames, transform_length // 2 + 1]``.
    """
    half = window_length // 2
    padded = np.pad(samples, (half, window_length))
    frames = padded[(wanted * hop)[:, None] + np.arange(window_length)]
    return np.fft.rfft(frames * np.hanning(window_length), transform_length, axis=1)


def griffin_lim(
    magnitude: NDArray[np.floating],
    window_length: int,
    transform_length: int,
    hop: int,
    iterations: int = 32,
) -> NDArray[np.float64]:
    """
    Find a waveform whose short-time spectrum has a given magnitude.

    :param magnitude: ``float[frames, transform_length // 2 + 1]``.
    :returns: ``float64[frames * hop]``.

    Griffin and Lim 1984, with the acceleration of Perraudin et al. 2013.
    """
    every = np.arange(len(magnitude))
    noise = np.random.default_rng(0).uniform(0.0, 2.0 * np.pi, magnitude.shape)
    spectrum = magnitude * np.exp(1j * noise)
    previous = np.zeros_like(spectrum)
    for _ in range(iterations):
        samples = _overlap_add(spectrum, window_length, transform_length, hop)
        rebuilt = short_time_spectrum(samples, window_length, transform_length, hop, every)
        accelerated = rebuilt + 0.99 * (rebuilt - previous)
        previous = rebuilt
        spectrum = magnitude * np.exp(1j * np.angle(accelerated))
    return _overlap_add(spectrum, window_length, transform_length, hop)


def _overlap_add(
    spectrum: NDArray[np.complexfloating], window_length: int, transform_length: int, hop: int
) -> NDArray[np.float64]:
    window = np.hanning(window_length)
    frames = np.fft.irfft(spectrum, transform_length, axis=1)[:, :window_length] * window
    length = len(spectrum) * hop
    total = np.zeros(length + 2 * window_length)
    weight = np.zeros_like(total)
    for k, frame in enumerate(frames):
        total[k * hop : k * hop + window_length] += frame
        weight[k * hop : k * hop + window_length] += window**2
    half = window_length // 2
    return np.asarray((total / np.maximum(weight, 1e-3))[half : half + length])


LOBES = 10  # zero crossings of the filter on either side
MAX_DENOMINATOR = 1000  # bounds the filter; a rate is met within 1e-6
BLOCK = 4096  # outputs worked out at once, which bounds the memory


class StreamResampler:
    """
    Resamples a stream piece by piece: polyphase, anti-aliased by a Kaiser-windowed sinc.

    soxr 1.1 rejects aliases better (-140 dB; here -57) but gives its output 75 to 157 ms late at
    HQ and MQ; here it is 1.3 ms.

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

    def _outputs(self, known: Array, positions: NDArray[Any]) -> Array:
        last, phase = np.divmod(positions * self.down + self._half, self.up)
        taps = self._filters.shape[1]
        windows = np.lib.stride_tricks.sliding_window_view(known, taps)
        inputs = windows[last - taps + 1 - self._first]
        return np.asarray(np.einsum('nt,nt->n', inputs, self._filters[phase]))


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
