"""Short-time spectra, mel filters and phase recovery, in numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
    return (total / np.maximum(weight, 1e-3))[half : half + length]
