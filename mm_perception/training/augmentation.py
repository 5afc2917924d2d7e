"""Augmentations of training arrays, on the device that trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mm_perception.config import from_plain
from mm_perception.errors import ConfigError

Augmentation = Callable[[Tensor], Tensor]
# Values up to this count as background: blank paper, silence.
BACKGROUND = 0.02
# Deviation of a noise's level over a spectrogram, relative to the level.
FLOOR_SPREAD = 0.2
WAVES = 3


@dataclass(frozen=True)
class Affine:
    """
    Random affine changes of arrays with two last axes (images, spectrograms).

    :param shift: largest shift along the last two axes, in elements.
    :param scale: largest relative change of size, per axis; below 1.
    :param rotation_deg: largest rotation, for images.
    :param shear: largest slant, for images: shift of the columns per row.
    :param gain: largest change of the values that are not zero, added.
    :param noise: standard deviation of Gaussian noise.
    """

    shift: tuple[float, ...] = (0.0, 0.0)
    scale: tuple[float, ...] = (0.0, 0.0)
    rotation_deg: float = 0.0
    shear: float = 0.0
    gain: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ('shift', 'scale'):
            if len(getattr(self, name)) != 2:
                raise ValueError(f'{name}: give two numbers, for rows and columns')
        _check_limits(self, 'shift', 'rotation_deg', 'shear', 'gain', 'noise')
        _check_limits(self, 'scale', below=1.0)

    def __call__(self, data: Tensor) -> Tensor:
        """Change ``float[B, (C,) H, W]`` in 0..1; what comes in from outside is 0."""
        images = data if data.dim() == 4 else data[:, None]
        grid = functional.affine_grid(self._theta(images), list(images.shape), align_corners=False)
        moved = functional.grid_sample(images, grid, align_corners=False)
        if self.gain:
            gain = _uniform(moved, self.gain)[:, None, None, None]
            moved = moved + gain * (moved > BACKGROUND)
        if self.noise:
            moved = moved + torch.randn_like(moved) * self.noise
        return moved.clamp(0.0, 1.0).reshape(data.shape)

    def _theta(self, images: Tensor) -> Tensor:
        """Where each place of the result comes from, ``float[B, 2, 3]``."""
        height, width = images.shape[2:]
        angle = _uniform(images, self.rotation_deg * torch.pi / 180.0)
        rows = 1.0 + _uniform(images, self.scale[0])
        columns = 1.0 + _uniform(images, self.scale[1])
        across, down = _uniform(images, self.shift[1]), _uniform(images, self.shift[0])
        first = torch.stack([angle.cos() * columns, -angle.sin(), across * 2.0 / width], dim=1)
        second = torch.stack([angle.sin(), angle.cos() * rows, down * 2.0 / height], dim=1)
        if self.shear:
            slant = _uniform(images, self.shear)[:, None]
            first = first + slant * functional.pad(second[:, :2], (0, 1))
        return torch.stack([first, second], dim=1)


@dataclass(frozen=True)
class Spectral(Affine):
    """
    An affine change, and what a microphone or another voice does to a spectrogram.

    The masks are those of Park et al. 2019 (SpecAugment). An autoencoder is trained to give
    back what it is shown, masks and noise included.

    :param tilt: largest change of the highest frequency against the lowest, added where there
        is sound, half of it at each end.
    :param noise_floor: highest level of a noise below which no frame with sound falls.
    :param frequency_mask: most neighbouring rows that are silenced.
    :param time_mask: most neighbouring columns that are silenced.
    """

    tilt: float = 0.0
    noise_floor: float = 0.0
    frequency_mask: int = 0
    time_mask: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_limits(self, 'tilt', 'frequency_mask', 'time_mask')
        _check_limits(self, 'noise_floor', below=1.0)

    def __call__(self, data: Tensor) -> Tensor:
        """Change ``float[B, mels, frames]`` in 0..1."""
        sound = super().__call__(data)
        mels, frames = sound.shape[1:]
        if self.tilt:
            slope = torch.linspace(-0.5, 0.5, mels, device=sound.device)
            change = _uniform(sound, self.tilt)[:, None, None] * slope[:, None]
            sound = sound + change * (sound > BACKGROUND)
        if self.noise_floor:
            level = _uniform(sound, self.noise_floor).abs()[:, None, None]
            floor = level * (1.0 + FLOOR_SPREAD * torch.randn_like(sound))
            heard = sound.amax(dim=1, keepdim=True) > BACKGROUND
            sound = torch.where(heard, torch.maximum(sound, floor), sound)
        if self.frequency_mask:
            sound = sound * _outside_of_band(sound, mels, self.frequency_mask)[:, :, None]
        if self.time_mask:
            sound = sound * _outside_of_band(sound, frames, self.time_mask)[:, None, :]
        return sound.clamp(0.0, 1.0)


@dataclass(frozen=True)
class Stroke:
    """
    Another hand for pen strokes in the plane, which fill the unit box again afterwards.

    Points stay at equal steps only about: changes of direction and warp are meant to be small.

    :param rotation_deg: largest rotation.
    :param scale: largest relative change of width and of height; below 1.
    :param shear: largest slant: sideways shift per height.
    :param warp: largest bend: amplitude of the slowest of a few smooth waves along the stroke,
        per coordinate, in widths of the box.
    """

    rotation_deg: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    warp: float = 0.0

    def __post_init__(self) -> None:
        _check_limits(self, 'rotation_deg', 'shear', 'warp')
        _check_limits(self, 'scale', below=1.0)

    def __call__(self, data: Tensor) -> Tensor:
        """Change ``float[B, 2 * points]`` in 0..1, point by point."""
        points = data.reshape(len(data), -1, 2) - 0.5
        points = points @ self._matrix(data).transpose(1, 2)
        if self.warp:
            points = points + self._waves(points)
        low, high = points.amin(dim=1, keepdim=True), points.amax(dim=1, keepdim=True)
        size = (high - low).amax(dim=2, keepdim=True).clamp_min(1e-6)
        boxed = (points - (low + high) / 2.0) / size + 0.5
        return boxed.clamp(0.0, 1.0).reshape(data.shape)

    def _matrix(self, data: Tensor) -> Tensor:
        """Rotation after slant after stretch, ``float[B, 2, 2]``."""
        angle = _uniform(data, self.rotation_deg * torch.pi / 180.0)
        width, height = 1.0 + _uniform(data, self.scale), 1.0 + _uniform(data, self.scale)
        slant = _uniform(data, self.shear)
        cosine, sine = angle.cos(), angle.sin()
        first = torch.stack([cosine * width, (cosine * slant - sine) * height], dim=1)
        second = torch.stack([sine * width, (sine * slant + cosine) * height], dim=1)
        return torch.stack([first, second], dim=1)

    def _waves(self, points: Tensor) -> Tensor:
        """A smooth displacement of every point: cosines of falling amplitude along the stroke."""
        along = torch.linspace(0.0, torch.pi, points.shape[1], device=points.device)
        waves = torch.arange(1, WAVES + 1, device=points.device)
        amplitudes = torch.rand(len(points), 2, WAVES, device=points.device) * 2.0 - 1.0
        shapes = torch.cos(waves[:, None] * along) / waves[:, None]
        return self.warp * (amplitudes @ shapes).transpose(1, 2)


AUGMENTATIONS: dict[str, type[Affine | Stroke]] = {
    'affine': Affine,
    'spectral': Spectral,
    'stroke': Stroke,
}


def build_augmentation(options: Mapping[str, Any], path: str) -> Augmentation:
    """
    Build an augmentation from ``type`` and its options; without a type, none.

    It computes in float32 where training is in mixed precision, too.

    :raises ConfigError: on an unknown type or option, or a value out of range.
    """
    if not options:
        return lambda data: data
    values = dict(options)
    name = values.pop('type', '')
    if name not in AUGMENTATIONS:
        known = ', '.join(AUGMENTATIONS)
        raise ConfigError(f'{path}.type: unknown augmentation "{name}"; known: {known}')
    try:
        augmentation = from_plain(AUGMENTATIONS[name], values, path)
    except ValueError as error:
        raise ConfigError(f'{path}.{error}') from error

    def exactly(data: Tensor) -> Tensor:
        with torch.autocast(data.device.type, enabled=False):
            return augmentation(data)

    return exactly


def _uniform(data: Tensor, limit: float) -> Tensor:
    """One number between plus and minus the limit for every sample, ``float[B]``."""
    return (torch.rand(len(data), device=data.device) * 2.0 - 1.0) * limit


def _outside_of_band(data: Tensor, count: int, widest: int) -> Tensor:
    """0 in a band of up to ``widest`` of ``count`` neighbours, else 1: ``float[B, count]``."""
    width = torch.rand(len(data), 1, device=data.device) * widest
    first = torch.rand(len(data), 1, device=data.device) * (count - width)
    place = torch.arange(count, device=data.device) + 0.5
    return ((place < first) | (place >= first + width)).to(data.dtype)


def _check_limits(options: Any, *names: str, below: float = math.inf) -> None:
    for name in names:
        value = getattr(options, name)
        for number in value if isinstance(value, tuple) else (value,):
            if not 0 <= number < below:
                raise ValueError(f'{name}: is {number}; give 0 or more, below {below:g}')
