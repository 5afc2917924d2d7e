"""
Augmentations of training arrays, on the device that trains.

Each gives two arrays: what an encoder is shown, and what the decoder shall make of it. Another
hand or voice is in both; what disturbs a sensor is in the first alone, so that encoders learn to
look through it.
"""

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

Pair = tuple[Tensor, Tensor]
Augmentation = Callable[[Tensor], Pair]
# Values up to this count as background: blank paper, silence.
BACKGROUND = 0.02
WAVES = 3
NOISE_BUMPS, BUMP_DB = 8, 3.0


@dataclass(frozen=True)
class Affine:
    """
    Random affine changes of arrays with two last axes (images, spectrograms).

    :param shift: largest shift along the last two axes, in elements.
    :param scale: largest relative change of size, per axis; below 1.
    :param rotation_deg: largest rotation, for images.
    :param shear: largest slant, for images: shift of the columns per row.
    :param gain: largest change of the values that are not zero, added.
    :param noise: standard deviation of Gaussian noise, which is to be looked through.
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

    def __call__(self, data: Tensor) -> Pair:
        """Change ``float[B, (C,) H, W]`` in 0..1; what comes in from outside is 0."""
        moved = self._moved(data)
        return self._disturbed(moved).clamp(0.0, 1.0), moved

    def _moved(self, data: Tensor) -> Tensor:
        images = data if data.dim() == 4 else data[:, None]
        grid = functional.affine_grid(self._theta(images), list(images.shape), align_corners=False)
        moved = functional.grid_sample(images, grid, align_corners=False)
        if self.gain:
            gain = _uniform(moved, self.gain)[:, None, None, None]
            moved = moved + gain * (moved > BACKGROUND)
        return moved.clamp(0.0, 1.0).reshape(data.shape)

    def _disturbed(self, moved: Tensor) -> Tensor:
        return moved + torch.randn_like(moved) * self.noise if self.noise else moved

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
class Ink(Affine):
    """
    An affine change, and what pens and cameras do to a drawing, which is to be looked through.

    :param pen: how far lines become thicker or thinner: 1 is by a pixel at each side.
    :param blur: largest standard deviation of a Gaussian, in pixels.
    """

    pen: float = 0.0
    blur: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_limits(self, 'blur')
        _check_limits(self, 'pen', below=1.0 + 1e-9)

    def _disturbed(self, moved: Tensor) -> Tensor:
        images = moved if moved.dim() == 4 else moved[:, None]
        if self.pen:
            change = _uniform(images, self.pen)[:, None, None, None]
            thick = functional.max_pool2d(images, 3, 1, 1)
            thin = -functional.max_pool2d(-images, 3, 1, 1)
            images = images + change.abs() * (torch.where(change > 0, thick, thin) - images)
        if self.blur:
            images = self._blurred(images)
        return super()._disturbed(images.reshape(moved.shape))

    def _blurred(self, images: Tensor) -> Tensor:
        """Each by a Gaussian of its own, along rows and columns, ``float[B, C, H, W]``."""
        sigma = _uniform(images, self.blur).abs()[:, None, None] + 1e-3
        for size in images.shape[2:]:
            place = torch.arange(size, device=images.device)
            weight = torch.exp(-0.5 * ((place[:, None] - place) / sigma) ** 2)
            weight = weight / weight.sum(dim=2, keepdim=True)
            images = (weight[:, None] @ images).transpose(2, 3)
        return images


@dataclass(frozen=True)
class Spectral(Affine):
    """
    An affine change, and what a microphone, a room or another voice does to a spectrogram.

    What is not the voice's is to be looked through. The masks are those of Park et al. 2019
    (SpecAugment).

    :param tilt: largest change of the highest frequency against the lowest, added where there
        is sound, half of it at each end.
    :param background: highest level of a noise of random colour, which lasts up to as many
        frames longer than the sound as it may come late.
    :param echo: frames within which echoes fall by 60 dB, at most.
    :param delay: most frames by which the sound comes late.
    :param frequency_mask: most neighbouring rows that are silenced.
    :param time_mask: most neighbouring columns that are silenced.
    :param range_db: of the spectrogram's values from 0 to 1, as in its preprocessing.
    """

    tilt: float = 0.0
    background: float = 0.0
    echo: float = 0.0
    delay: int = 0
    frequency_mask: int = 0
    time_mask: int = 0
    range_db: float = 60.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_limits(self, 'tilt', 'frequency_mask', 'time_mask', 'echo', 'delay')
        _check_limits(self, 'background', below=1.0)
        if not 0.0 < self.range_db < math.inf:
            raise ValueError(f'range_db: is {self.range_db}; give more than 0')

    def _moved(self, data: Tensor) -> Tensor:
        sound = super()._moved(data)
        if self.tilt:
            slope = torch.linspace(-0.5, 0.5, sound.shape[1], device=sound.device)
            change = _uniform(sound, self.tilt)[:, None, None] * slope[:, None]
            sound = sound + change * (sound > BACKGROUND)
        return sound.clamp(0.0, 1.0)

    def _disturbed(self, moved: Tensor) -> Tensor:
        """Change ``float[B, mels, frames]`` in 0..1."""
        sound = super()._disturbed(moved).clamp(0.0, 1.0)
        mels, frames = sound.shape[1:]
        if self.delay:
            late = _whole(sound, self.delay)[:, None]
            source = torch.arange(frames, device=sound.device) - late
            there = (source >= 0)[:, None]
            sound = sound.gather(2, source.clamp(0)[:, None].expand_as(sound)) * there
        if self.echo or self.background:
            sound = self._heard_in_a_room(sound)
        if self.frequency_mask:
            sound = sound * _outside_of_band(sound, mels, self.frequency_mask)[:, :, None]
        if self.time_mask:
            sound = sound * _outside_of_band(sound, frames, self.time_mask)[:, None, :]
        return sound

    def _heard_in_a_room(self, sound: Tensor) -> Tensor:
        """Add echoes and noise to the power, and give it a peak of 1 again."""
        power = 10.0 ** ((sound - 1.0) * self.range_db / 10.0) * (sound > 0)
        if self.echo:
            power = power @ self._echoes(sound)
        if self.background:
            power = power + self._noise_power(sound)
        decibel = 10.0 * power.clamp_min(1e-12).log10()
        return 1.0 + (decibel - decibel.amax(dim=(1, 2), keepdim=True)) / self.range_db

    def _echoes(self, sound: Tensor) -> Tensor:
        """What each frame adds to later ones, ``float[B, frames, frames]``."""
        place = torch.arange(sound.shape[2], device=sound.device)
        lag = (place - place[:, None]).clamp_min(0)
        decay = _uniform(sound, self.echo).abs()[:, None, None] + 0.1
        strength = torch.rand(len(sound), 1, 1, device=sound.device)
        return torch.where(
            lag > 0, strength * 10.0 ** (-6.0 * lag / decay), (lag == 0).float()
        ).triu()

    def _noise_power(self, sound: Tensor) -> Tensor:
        """Of a noise that is some frames longer than the sound, ``float[B, mels, frames]``."""
        count, mels, frames = sound.shape
        place = (torch.arange(mels, device=sound.device) + 4.0) / (mels + 4.0)
        colour = 0.5 * (1.0 + _uniform(sound, 1.4))[:, None] * -10.0 * place.log10()
        bumps = torch.randn(count, 1, NOISE_BUMPS, device=sound.device) * BUMP_DB
        bumps = functional.interpolate(bumps, mels, mode='linear')[:, 0]
        level = (_uniform(sound, self.background).abs()[:, None] - 1.0) * self.range_db
        shape = 10.0 ** ((colour - colour.mean(1, keepdim=True) + bumps + level) / 10.0)
        # The power of noise in a narrow band varies from frame to frame about as chi squared.
        uniform = torch.rand(2, count, -(-mels // 2), frames, device=sound.device)
        varied = -torch.log1p(-uniform).mean(0)  # finite for every number below 1
        varied = varied.repeat_interleave(2, dim=1)[:, :mels]
        heard = (sound.amax(dim=1) > BACKGROUND) * torch.arange(1, frames + 1, device=sound.device)
        end = heard.amax(dim=1) + _whole(sound, max(self.delay, 1))
        lasts = torch.arange(frames, device=sound.device) < end[:, None]
        return shape[:, :, None] * varied * lasts[:, None]


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

    def __call__(self, data: Tensor) -> Pair:
        """Change ``float[B, 2 * points]`` in 0..1, point by point."""
        points = data.reshape(len(data), -1, 2) - 0.5
        points = points @ self._matrix(data).transpose(1, 2)
        if self.warp:
            points = points + self._waves(points)
        low, high = points.amin(dim=1, keepdim=True), points.amax(dim=1, keepdim=True)
        size = (high - low).amax(dim=2, keepdim=True).clamp_min(1e-6)
        boxed = (points - (low + high) / 2.0) / size + 0.5
        boxed = boxed.clamp(0.0, 1.0).reshape(data.shape)
        return boxed, boxed

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
    'ink': Ink,
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
        return lambda data: (data, data)
    values = dict(options)
    name = values.pop('type', '')
    if name not in AUGMENTATIONS:
        known = ', '.join(AUGMENTATIONS)
        raise ConfigError(f'{path}.type: unknown augmentation "{name}"; known: {known}')
    try:
        augmentation = from_plain(AUGMENTATIONS[name], values, path)
    except ValueError as error:
        raise ConfigError(f'{path}.{error}') from error

    def exactly(data: Tensor) -> Pair:
        with torch.autocast(data.device.type, enabled=False):
            return augmentation(data)

    return exactly


def _uniform(data: Tensor, limit: float) -> Tensor:
    """One number between plus and minus the limit for every sample, ``float[B]``."""
    return (torch.rand(len(data), device=data.device) * 2.0 - 1.0) * limit


def _whole(data: Tensor, most: int) -> Tensor:
    """One whole number from 0 to ``most`` for every sample, ``int64[B]``."""
    return torch.randint(most + 1, (len(data),), device=data.device)


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
