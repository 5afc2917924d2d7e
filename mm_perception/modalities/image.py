"""Camera images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mm_perception.errors import ConfigError, InvalidInput
from mm_perception.modalities.base import (
    BLACK,
    FROZEN,
    HOLES,
    SATURATED,
    Array,
    Fault,
    Modality,
    Thresholds,
    Trace,
    register_kind,
    sampled_rows,
)
from mm_perception.modalities.ink import normalise_ink
from mm_perception.modalities.stacking import StackOptions
from mm_perception.spec import ModalitySpec

OVERSAMPLING = 4
EMPTY_SHARE = 1e-6
"""Of an area below which nothing in it is finite, but for rounding."""


NONE, INK = 'none', 'ink'


@dataclass(frozen=True)
class ImageOptions(StackOptions):
    """
    How a camera image becomes an array.

    :param channels: 1 for grey, 3 for RGB.
    :param square: cut the largest centred square out before resizing.
    :param invert: bright becomes dark, for dark ink on white paper.
    :param roi: what is looked at: x, y, width and height in pixels of the sensor; empty: all.
    :param normalise: ``none``, or ``ink`` for what is drawn on a page: it is found whatever the
        light, the paper and the pen are, centred, and becomes 1 on 0; of one channel.
    :param full_scale: value of white in float and 16-bit images, in their unit, such as the
        farthest depth; 1.0 of 16 bits: all of them.
    """

    height: int = 28
    width: int = 28
    channels: int = 1
    square: bool = True
    invert: bool = False
    normalise: str = NONE
    full_scale: float = 1.0
    roi: tuple[int, ...] = ()


@register_kind('image')
class ImageModality(Modality[ImageOptions]):
    """Raw: ``uint8 | uint16 | float32``, ``[H, W]`` or RGB ``[H, W, 3]``; NaN is no value."""

    options_type = ImageOptions

    def __init__(self, spec: ModalitySpec) -> None:
        super().__init__(spec)
        options = self.options
        if options.normalise not in (NONE, INK):
            raise ConfigError(
                f'{spec.name}: normalise is "{options.normalise}"; known: {NONE}, {INK}'
            )
        if options.normalise == INK and options.channels != 1:
            raise ConfigError(f'{spec.name}: normalise: ink needs channels: 1')
        roi = options.roi
        if roi and not (len(roi) == 4 and min(roi[:2]) >= 0 and min(roi[2:]) > 0):
            raise ConfigError(f'{spec.name}: roi is {list(roi)}; give x, y, width, height')

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(channels, height, width)``."""
        return self.options.channels, self.options.height, self.options.width

    def to_model(self, raw: NDArray[Any]) -> Array:
        """Grey or colour, square, area-resized, scaled to 0..1: ``float32[C, H, W]``."""
        if raw.ndim not in (2, 3) or raw.shape[2:] not in ((), (1,), (3,)) or raw.size == 0:
            raise InvalidInput(f'image has shape {raw.shape}; expected [H, W] or [H, W, 3]')
        image = raw[self.region(*raw.shape[:2])]
        if self.options.normalise == INK:
            return self._ink(image)
        # Grey of the whole frame, then one channel to resize, is faster than the other way.
        image = self._match_channels(image)
        size = (self.options.width, self.options.height)
        small = _shrink(image, size)
        if not np.isfinite(small).all():
            small = _mean_of_finite(image, size)
        array = self._scale(small, raw.dtype)
        if self.options.invert:
            array = 1.0 - array
        return np.ascontiguousarray(array.reshape(*size[::-1], -1).transpose(2, 0, 1))

    def region(self, height: int, width: int) -> tuple[slice, slice]:
        """
        Rows and columns of a frame that the array shows.

        :raises InvalidInput: if the frame is smaller than ``roi`` says.
        """
        left, top, right, bottom = 0, 0, width, height
        if self.options.roi:
            left, top, right, bottom = self.options.roi
            right, bottom = left + right, top + bottom
        if right > width or bottom > height:
            raise InvalidInput(
                f'image is {width}x{height}; roi reaches to {right}x{bottom}: mend'
                ' preprocessing.roi, or the resolution of the camera'
            )
        if self.options.square:
            side = min(right - left, bottom - top)
            top, left = top + (bottom - top - side) // 2, left + (right - left - side) // 2
            right, bottom = left + side, top + side
        return slice(top, bottom), slice(left, right)

    def paint(self, frame: NDArray[Any], array: Array) -> NDArray[Any]:
        """
        Put what an array shows in its place in a frame; around it the frame stays.

        :param frame: raw value, of any size that :meth:`to_model` takes; not changed.
        """
        rows, columns = self.region(*frame.shape[:2])
        values = (1.0 - array if self.options.invert else array).transpose(1, 2, 0)
        values = np.clip(values, 0.0, 1.0) * self._full(frame.dtype)
        if frame.dtype.kind in 'iu':
            values = np.rint(values)
        small = np.ascontiguousarray(values, frame.dtype)
        if small.shape[2] == 3 and frame.ndim == 2:
            small = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        size = columns.stop - columns.start, rows.stop - rows.start
        patch = cv2.resize(small, size, interpolation=cv2.INTER_LINEAR)
        painted = frame.copy()
        painted[rows, columns] = patch if patch.ndim == frame.ndim else patch[:, :, None]
        return painted

    def to_models(self, raws: Sequence[Any] | NDArray[Any]) -> Array:
        """All at once where they have the size of the model's array: ``float32[N, C, H, W]``."""
        if not isinstance(raws, np.ndarray) or raws.dtype != np.uint8 or self._changes:
            return super().to_models(raws)
        if raws.shape[1:] != (*self.shape[1:], self.shape[0]):
            return super().to_models(raws)
        array = self._scale(raws, raws.dtype)
        if self.options.invert:
            array = 1.0 - array
        return np.ascontiguousarray(array.transpose(0, 3, 1, 2))

    @property
    def _changes(self) -> bool:
        """Whether more is done with an image of the right size than to scale its values."""
        uneven = self.options.square and self.options.height != self.options.width
        return uneven or bool(self.options.roi) or self.options.normalise != NONE

    def from_model(self, array: Array) -> NDArray[Any]:
        """``uint8[H, W]`` or ``uint8[H, W, 3]`` with the sensor's polarity."""
        values = 1.0 - array if self.options.invert else array
        pixels = np.clip(values * 255.0 + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0)
        return np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)

    def draw(self, array: Array, side: int) -> NDArray[Any]:
        """The pixels, enlarged."""
        pixels = self.from_model(array)
        code = cv2.COLOR_GRAY2BGR if pixels.ndim == 2 else cv2.COLOR_RGB2BGR
        bgr = cv2.cvtColor(pixels, code)
        return np.asarray(cv2.resize(bgr, (side, side), interpolation=cv2.INTER_NEAREST))

    def trace(self, raw: NDArray[Any]) -> Trace:
        """Some rows: a camera that works has noise in them, whatever it looks at."""
        rows = sampled_rows(raw)
        if rows.strides[-1] < 0:  # BGR seen as RGB: copied much faster as it lies in memory
            rows = rows[..., ::-1]
        return Trace(np.ascontiguousarray(rows).tobytes(), FROZEN)

    def find_fault(self, raw: NDArray[Any], array: Array, thresholds: Thresholds) -> Fault | None:
        """Find too many holes, or no contrast at all."""
        if raw.dtype.kind == 'f':
            invalid = 1.0 - float(np.isfinite(sampled_rows(raw)).mean())
            if invalid > thresholds.max_invalid_fraction:
                return Fault(HOLES, f'{invalid:.0%} of the pixels are NaN or infinity')
        contrast = float(array.std())
        if contrast >= thresholds.min_contrast * thresholds.usual_std:
            return None
        level = self._brightness(raw, array)
        name = BLACK if level < 0.5 else SATURATED
        return Fault(name, f'{name}: all of it has a brightness of {level:.2f}')

    def _ink(self, image: NDArray[Any]) -> Array:
        """Normalised ink, ``float32[1, H, W]``."""
        image = image.reshape(image.shape[:2]) if image.shape[2:] == (1,) else image
        if image.dtype != np.uint8:
            finite = np.isfinite(image)
            if not finite.any():
                raise InvalidInput('image holds nothing but NaN or infinity', HOLES)
            image = self._scale(np.where(finite, image, image[finite].max()), image.dtype)
        size = self.options.height, self.options.width
        return normalise_ink(image, size, self.options.invert)[None]

    def _brightness(self, raw: NDArray[Any], array: Array) -> float:
        """Of a frame without contrast, 0 to 1: no ink says nothing of it."""
        if self.options.normalise == INK:
            return float(np.nanmean(self._scale(sampled_rows(raw), raw.dtype)))
        level = float(array.mean())
        return 1.0 - level if self.options.invert else level

    def _match_channels(self, image: NDArray[Any]) -> NDArray[Any]:
        colour = image.shape[2:] == (3,)
        grey = image.reshape(image.shape[:2]) if not colour else image
        if self.options.channels == 1:
            return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if colour else grey
        return image if colour else cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)

    def _scale(self, image: NDArray[Any], dtype: Any) -> Array:
        return np.clip(image.astype(np.float32) / self._full(dtype), 0.0, 1.0)

    def _full(self, dtype: Any) -> float:
        """Value of white."""
        full = self.options.full_scale
        whole = dtype == np.uint8 or (dtype.kind in 'iu' and full == 1.0)
        return float(np.iinfo(dtype).max) if whole else full


def _mean_of_finite(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """
    Mean over what is finite in each area; where nothing is, over what is around it.

    :param image: ``float32[H, W]`` or ``float32[H, W, 3]``.
    """
    finite = np.isfinite(image)
    if not finite.any():
        raise InvalidInput('image holds nothing but NaN or infinity', HOLES)
    total = _shrink(np.where(finite, image, image.dtype.type(0)), size)
    share = _shrink(finite.astype(np.float32), size)
    known = (share > EMPTY_SHARE).astype(np.float32)
    mean = known * total / np.maximum(share, EMPTY_SHARE)
    while not known.all():  # each round reaches one pixel further
        around, weight = (cv2.blur(each, (3, 3)) for each in (mean, known))
        new = (known == 0) & (weight > 0.5 / 9)
        mean = np.where(new, around / np.maximum(weight, EMPTY_SHARE), mean)
        known[new] = 1.0
    return np.asarray(mean)


def _shrink(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """
    Mean over areas; first over blocks of whole pixels, which is several times as fast.

    :param size: width and height; the blocks leave :data:`OVERSAMPLING` times as many pixels.
    """
    height, width = image.shape[:2]
    most = min(width // size[0], height // size[1]) // OVERSAMPLING
    common = math.gcd(width, height)
    block = next((n for n in range(most, 1, -1) if common % n == 0), 1)
    if block > 1:
        blocks = width // block, height // block
        image = cv2.resize(image, blocks, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
