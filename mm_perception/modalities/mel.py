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
    samples: NDArray[np.floating], window_length: int, transform_length: int, hop: int
) -> NDArray[np.complexfloating]:
    """
    Fourier transforms of overlapping frames, the k-th centred on sample ``k * hop``.

    :param samples: ``float[n]``.
    :returns: ``complex[n // hop + 1, transform_length // 2 + 1]``.
    """
    half = window_length // 2
    padded = np.pad(samples, (half, window_length))
    starts = np.arange(len(samples) // hop + 1) * hop
    frames = padded[starts[:, None] + np.arange(window_length)]
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
    frames = len(magnitude)
    noise = np.random.default_rng(0).uniform(0.0, 2.0 * np.pi, magnitude.shape)
    spectrum = magnitude * np.exp(1j * noise)
    previous = np.zeros_like(spectrum)
    for _ in range(iterations):
        samples = _overlap_add(spectrum, window_length, transform_length, hop)
        rebuilt = short_time_spectrum(samples, window_length, transform_length, hop)[:frames]
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
