"""Camera images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from mm_perception.errors import InvalidInput
from mm_perception.modalities.base import Modality, register_kind
from mm_perception.modalities.raw import Array


@dataclass(frozen=True)
class ImageOptions:
    """
    How a camera image becomes an array.

    :param channels: 1 for grey, 3 for RGB.
    :param square: cut the largest centred square out before resizing.
    :param invert: bright becomes dark, for dark ink on white paper.
    :param full_scale: value of white in float (depth) images; integers know their own.
    """

    height: int = 28
    width: int = 28
    channels: int = 1
    square: bool = True
    invert: bool = False
    full_scale: float = 1.0


@register_kind('image')
class ImageModality(Modality[ImageOptions]):
    """Raw: ``uint8 | uint16 | float32 [H, W]`` or ``uint8[H, W, 3]`` RGB."""

    options_type = ImageOptions

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(channels, height, width)``."""
        return self.options.channels, self.options.height, self.options.width

    def to_model(self, raw: np.ndarray) -> Array:
        """Grey or colour, square, area-resized, scaled to 0..1: ``float32[C, H, W]``."""
        if raw.ndim not in (2, 3) or raw.size == 0:
            raise InvalidInput(f'image has shape {raw.shape}; expected [H, W] or [H, W, 3]')
        image = self._match_channels(raw)
        if self.options.square:
            image = _centre_square(image)
        size = (self.options.width, self.options.height)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        array = self._scale(image, raw.dtype)
        if not np.isfinite(array).all():
            raise InvalidInput('image holds NaN or infinity')
        if self.options.invert:
            array = 1.0 - array
        return np.ascontiguousarray(array.reshape(*size[::-1], -1).transpose(2, 0, 1))

    def from_model(self, array: Array) -> np.ndarray:
        """``uint8[H, W]`` or ``uint8[H, W, 3]`` with the sensor's polarity."""
        values = 1.0 - array if self.options.invert else array
        pixels = np.clip(values * 255.0 + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0)
        return np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)

    def _match_channels(self, image: np.ndarray) -> np.ndarray:
        colour = image.ndim == 3 and image.shape[2] == 3
        if self.options.channels == 1:
            return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if colour else np.squeeze(image)
        return image if colour else cv2.cvtColor(np.squeeze(image), cv2.COLOR_GRAY2RGB)

    def _scale(self, image: np.ndarray, dtype: Any) -> Array:
        integer = np.issubdtype(dtype, np.integer)
        full = float(np.iinfo(dtype).max) if integer else self.options.full_scale
        return np.clip(image.astype(np.float32) / full, 0.0, 1.0)


def _centre_square(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(image[top : top + side, left : left + side])
