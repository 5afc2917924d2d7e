"""Strange conditions: what cameras, microphones and hands do to raw data, by name and level."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mm_perception.modalities import Motion, Waveform
from mm_perception.modalities.base import Array
from mm_perception.modalities.utterances import frame_levels

Pixels = NDArray[np.uint8]
Change = Callable[[Any, float, np.random.Generator], Any]
SPEECH_DB = 30.0
"""Below the loudest frame, from where on a frame is no speech and counts for no level."""


@dataclass(frozen=True)
class Condition:
    """
    Something that changes the raw data of one modality.

    :param levels: that are evaluated, in the unit that ``change`` tells.
    :param change: gives other data of the same type and size from raw data, a level, and a
        source of random numbers.
    """

    modality: str
    name: str
    levels: tuple[float, ...]
    change: Change

    def apply(self, raw: Any, level: float, seed: int) -> Any:
        """Change raw data; the same seed gives the same."""
        return self.change(raw, level, np.random.default_rng(seed))


def off_centre(image: Pixels, share: float, rng: np.random.Generator) -> Pixels:
    """Move in a random direction by a share of the height."""
    angle = rng.uniform(0.0, 2.0 * np.pi)
    step = share * image.shape[0] * np.array([np.cos(angle), np.sin(angle)])
    return _warp(image, np.column_stack((np.eye(2), step)))


def resize(image: Pixels, scale: float, rng: np.random.Generator) -> Pixels:
    """Make what is drawn larger or smaller around the centre."""
    return _warp(image, cv2.getRotationMatrix2D(_centre(image), 0.0, scale))


def rotate(image: Pixels, degrees: float, rng: np.random.Generator) -> Pixels:
    """Turn around the centre, to either side."""
    angle = degrees * rng.choice([-1.0, 1.0])
    return _warp(image, cv2.getRotationMatrix2D(_centre(image), angle, 1.0))


def grey_paper(image: Pixels, brightness: float, rng: np.random.Generator) -> Pixels:
    """Dim until white has this brightness, of 255."""
    return _pixels(image * np.float32(brightness / 255.0))


def gradient(image: Pixels, share: float, rng: np.random.Generator) -> Pixels:
    """Dim from nothing at one end to a share of the light at the other."""
    return _pixels(image * (1.0 - np.float32(share) * _ramp(image, rng))[:, :, None])


def pen_width(image: Pixels, factor: float, rng: np.random.Generator) -> Pixels:
    """Make lines of dark ink on light paper thicker or thinner; 1 changes nothing."""
    ink = np.asarray(image[:, :, 1] < 128, np.uint8)
    if not ink.any():
        return image
    distance = cv2.distanceTransform(ink, cv2.DIST_L2, 5)
    width = 4.0 * float(distance[ink > 0].mean())  # of a bar: its distances average a quarter
    side = round(abs(factor - 1.0) * width) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return np.asarray((cv2.erode if factor > 1.0 else cv2.dilate)(image, kernel), np.uint8)


def noise(image: Pixels, sigma: float, rng: np.random.Generator) -> Pixels:
    """Add Gaussian noise of a standard deviation, of 255."""
    return _pixels(image + rng.standard_normal(image.shape, np.float32) * np.float32(sigma))


def blur(image: Pixels, share: float, rng: np.random.Generator) -> Pixels:
    """Put out of focus: a Gaussian whose sigma is a share of the height."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), share * image.shape[0]), np.uint8)


def coloured_ink(image: Pixels, brightness: float, rng: np.random.Generator) -> Pixels:
    """Give the ink a random colour, whose strongest channel has a brightness of 255."""
    hue = np.array([[[rng.integers(180), 200, brightness]]], np.uint8)
    colour = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)
    return _pixels(colour + image.astype(np.float32) * (255.0 - colour) / 255.0)


def desk_edge(image: Pixels, share: float, rng: np.random.Generator) -> Pixels:
    """Let a dark desk show along a side of the centred square, a share of the height wide."""
    height, width = image.shape[:2]
    down, across = np.mgrid[0:height, 0:width].astype(np.float32)
    left = (width - height) / 2
    inward = (across - left, left + height - across, down, height - down)[rng.integers(4)]
    skew = np.float32(np.tan(np.radians(rng.uniform(-3.0, 3.0))))
    inward = inward + skew * (_ramp(image, rng) - np.float32(0.5)) * height
    desk = np.array([110.0, 80.0, 55.0], np.float32) * np.float32(rng.uniform(0.5, 1.3))
    shown = np.clip(inward - share * height, 0.0, 1.0)[:, :, None]
    return _pixels(image * shown + desk * (1.0 - shown))


def all_mildly(image: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """Do a little of everything; 1 is the usual extent of it."""
    image = pen_width(image, 1.0 + level * rng.uniform(-0.3, 0.3), rng)
    image = resize(image, 1.0 + level * rng.uniform(-0.25, 0.0), rng)
    image = off_centre(rotate(image, 5.0 * level, rng), 0.05 * level, rng)
    image = coloured_ink(image, 60.0 * level, rng)
    image = desk_edge(image, 0.03 * level, rng)
    image = gradient(grey_paper(image, 255.0 - 55.0 * level, rng), 0.2 * level, rng)
    return noise(blur(image, 0.004 * level, rng), 12.0 * level, rng)


def white_noise(sound: Waveform, snr_db: float, rng: np.random.Generator) -> Waveform:
    """Add noise that is as strong at all frequencies, at a ratio to the speech."""
    return _added(sound, rng.standard_normal(len(sound.samples)), snr_db)


def pink_noise(sound: Waveform, snr_db: float, rng: np.random.Generator) -> Waveform:
    """Add noise that is as strong in every octave from 20 Hz on, at a ratio to the speech."""
    count = len(sound.samples)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    frequency = np.maximum(np.fft.rfftfreq(count, 1.0 / sound.rate_hz), 20.0)
    return _added(sound, np.fft.irfft(spectrum / np.sqrt(frequency), count), snr_db)


def hum(sound: Waveform, snr_db: float, rng: np.random.Generator) -> Waveform:
    """Add the mains' 50 Hz with two weak harmonics, at a ratio to the speech."""
    phase = 2.0 * np.pi * 50.0 * np.arange(len(sound.samples)) / sound.rate_hz
    parts = [a * np.sin(n * phase + rng.uniform(0, 6.3)) for n, a in ((1, 1), (2, 0.2), (3, 0.2))]
    return _added(sound, np.sum(parts, axis=0), snr_db)


def offset(sound: Waveform, level: float, rng: np.random.Generator) -> Waveform:
    """Add a constant, of full scale."""
    return Waveform(sound.samples + np.float32(level), sound.rate_hz)


def reverberate(sound: Waveform, seconds: float, rng: np.random.Generator) -> Waveform:
    """Put into a room whose echoes fall by 60 dB within some seconds."""
    time_s = np.arange(int(seconds * sound.rate_hz)) / sound.rate_hz
    echoes = rng.standard_normal(len(time_s)) * 10.0 ** (-3.0 * time_s / seconds)
    echoes *= np.sqrt(0.5 / np.sum(echoes**2))  # 3 dB weaker than the direct sound
    echoes[0] += 1.0
    size = len(sound.samples) + len(echoes)
    heard = np.fft.irfft(np.fft.rfft(sound.samples, size) * np.fft.rfft(echoes, size), size)
    return Waveform(heard[: len(sound.samples)].astype(np.float32), sound.rate_hz)


def quieten(sound: Waveform, peak_db: float, rng: np.random.Generator) -> Waveform:
    """Scale to a peak in dB of full scale, and round to 16 bits as a recorder does."""
    peak = max(float(np.abs(sound.samples).max()), 1e-9)
    samples = sound.samples * np.float32(10.0 ** (peak_db / 20.0) / peak)
    return Waveform(np.rint(samples * 32768.0).astype(np.float32) / 32768.0, sound.rate_hz)


def turn_stroke(stroke: Motion, degrees: float, rng: np.random.Generator) -> Motion:
    """Write on a tablet that is turned to either side."""
    angle = np.radians(degrees) * rng.choice([-1.0, 1.0])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]], np.float32)
    return Motion(stroke.points @ turn, stroke.times_s)


def shake(stroke: Motion, share: float, rng: np.random.Generator) -> Motion:
    """Let every point jitter by a standard deviation, a share of the stroke's longer side."""
    size = float(np.ptp(stroke.points, axis=0).max())
    jitter = rng.standard_normal(stroke.points.shape, np.float32) * np.float32(share * size)
    return Motion(stroke.points + jitter, stroke.times_s)


CONDITIONS = (
    Condition('image', 'off_centre', (0.05, 0.10, 0.15), off_centre),
    Condition('image', 'size', (0.5, 0.7, 1.2), resize),
    Condition('image', 'grey_paper', (200.0, 150.0), grey_paper),
    Condition('image', 'gradient', (0.3, 0.4), gradient),
    Condition('image', 'pen_width', (0.3, 0.6, 1.5, 2.0), pen_width),
    Condition('image', 'rotation_deg', (15.0,), rotate),
    Condition('image', 'noise', (20.0, 40.0), noise),
    Condition('image', 'blur', (0.01, 0.02), blur),
    Condition('image', 'coloured_ink', (100.0, 200.0), coloured_ink),
    Condition('image', 'desk_edge', (0.05, 0.08), desk_edge),
    Condition('image', 'all_mildly', (1.0,), all_mildly),
    Condition('trajectory', 'rotation_deg', (15.0,), turn_stroke),
    Condition('trajectory', 'jitter', (0.02,), shake),
    Condition('sound', 'white_noise_db', (20.0, 10.0), white_noise),
    Condition('sound', 'pink_noise_db', (20.0,), pink_noise),
    Condition('sound', 'hum_db', (20.0, 0.0), hum),
    Condition('sound', 'offset', (0.05,), offset),
    Condition('sound', 'reverberation_s', (0.3, 0.6), reverberate),
    Condition('sound', 'peak_db', (-30.0,), quieten),
)


def levels() -> Iterator[tuple[Condition, float]]:
    """Every condition with each of its levels."""
    for condition in CONDITIONS:
        for level in condition.levels:
            yield condition, level


def _centre(image: Pixels) -> tuple[float, float]:
    return (image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2


def _warp(image: Pixels, matrix: NDArray[np.floating]) -> Pixels:
    size = image.shape[1], image.shape[0]
    return np.asarray(cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REPLICATE))


def _pixels(values: NDArray[np.floating]) -> Pixels:
    return np.clip(np.rint(values), 0.0, 255.0).astype(np.uint8)


def _ramp(image: Pixels, rng: np.random.Generator) -> Array:
    """From 0 to 1 across an image in a random direction, ``float32[H, W]``."""
    height, width = image.shape[:2]
    down, across = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    angle = rng.uniform(0.0, 2.0 * np.pi)
    ramp = np.float32(np.cos(angle)) * across + np.float32(np.sin(angle)) * down
    return np.asarray((ramp - ramp.min()) / np.ptp(ramp))


def _added(sound: Waveform, disturbance: NDArray[np.floating], snr_db: float) -> Waveform:
    levels = frame_levels(sound.samples, sound.rate_hz)
    spoken = levels[levels >= levels.max() * 10.0 ** (-SPEECH_DB / 20.0)]
    level = np.sqrt(np.mean(spoken**2)) * 10.0 ** (-snr_db / 20.0)
    scaled = disturbance * (level / np.sqrt(np.mean(disturbance**2)))
    return Waveform(sound.samples + scaled.astype(np.float32), sound.rate_hz)
