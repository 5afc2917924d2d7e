"""Augmentations of training arrays, on the device that trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mm_perception.config import from_plain
from mm_perception.errors import ConfigError

Augmentation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Affine:
    """
    Random affine changes of arrays with two last axes (images, spectrograms).

    :param shift: largest shift along the last two axes, in elements.
    :param scale: largest relative change of size, per axis.
    :param rotation_deg: largest rotation, for images.
    :param gain: largest change of the values that are not zero, added.
    :param noise: standard deviation of Gaussian noise.
    """

    shift: tuple[float, ...] = (0.0, 0.0)
    scale: tuple[float, ...] = (0.0, 0.0)
    rotation_deg: float = 0.0
    gain: float = 0.0
    noise: float = 0.0

    def __call__(self, data: Tensor) -> Tensor:
        """Change ``float[B, (C,) H, W]`` in 0..1; what comes in from outside is 0."""
        images = data if data.dim() == 4 else data[:, None]
        batch, _, height, width = images.shape

        def uniform(limit: float) -> Tensor:
            return (torch.rand(batch, device=data.device) * 2.0 - 1.0) * limit

        angle = uniform(self.rotation_deg * torch.pi / 180.0)
        rows, columns = 1.0 + uniform(self.scale[0]), 1.0 + uniform(self.scale[1])
        theta = torch.stack(
            [
                torch.stack([angle.cos() * columns, -angle.sin(), uniform(self.shift[1])], 1),
                torch.stack([angle.sin(), angle.cos() * rows, uniform(self.shift[0])], 1),
            ],
            dim=1,
        )
        theta = theta * theta.new_tensor([[1.0, 1.0, 2.0 / width], [1.0, 1.0, 2.0 / height]])
        grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
        moved = functional.grid_sample(images, grid, align_corners=False)
        if self.gain:
            moved = moved + uniform(self.gain)[:, None, None, None] * (moved > 0.02)
        if self.noise:
            moved = moved + torch.randn_like(moved) * self.noise
        return moved.clamp(0.0, 1.0).reshape(data.shape)


AUGMENTATIONS: dict[str, type[Affine]] = {'affine': Affine}


def build_augmentation(options: Mapping[str, Any], path: str) -> Augmentation:
    """
    Build an augmentation from ``type`` and its options; without a type, none.

    :raises ConfigError: on an unknown type or option.
    """
    if not options:
        return lambda data: data
    values = dict(options)
    name = values.pop('type', '')
    if name not in AUGMENTATIONS:
        known = ', '.join(AUGMENTATIONS)
        raise ConfigError(f'{path}.type: unknown augmentation "{name}"; known: {known}')
    return from_plain(AUGMENTATIONS[name], values, path)
