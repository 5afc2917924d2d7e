"""How the encodings of images lie in memory, to read and to write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image

from mm_perception.errors import InvalidInput


@dataclass(frozen=True)
class Layout:
    """
    How one encoding lies in memory.

    :param dtype: of one element, without its byte order.
    :param channels: elements per pixel of a row.
    :param to_rgb: OpenCV's conversion to RGB; None: grey or RGB as it is.
    :param chroma_rows: a second plane of colour follows, of half as many rows.
    :param even: width and height (or, of packed pixels, width) come in pairs.
    """

    dtype: str
    channels: int = 1
    to_rgb: int | None = None
    chroma_rows: bool = False
    even: bool = False


# The order of channels without a name is that of OpenCV, as for cv_bridge.
LAYOUTS = {
    'mono8': Layout('u1'),
    '8UC1': Layout('u1'),
    'rgb8': Layout('u1', 3),
    'bgr8': Layout('u1', 3, cv2.COLOR_BGR2RGB),
    '8UC3': Layout('u1', 3, cv2.COLOR_BGR2RGB),
    'rgba8': Layout('u1', 4, cv2.COLOR_RGBA2RGB),
    'bgra8': Layout('u1', 4, cv2.COLOR_BGRA2RGB),
    '8UC4': Layout('u1', 4, cv2.COLOR_BGRA2RGB),
    'mono16': Layout('u2'),
    '16UC1': Layout('u2'),
    'rgb16': Layout('u2', 3),
    'bgr16': Layout('u2', 3, cv2.COLOR_BGR2RGB),
    'rgba16': Layout('u2', 4, cv2.COLOR_RGBA2RGB),
    'bgra16': Layout('u2', 4, cv2.COLOR_BGRA2RGB),
    '16UC3': Layout('u2', 3, cv2.COLOR_BGR2RGB),
    '16UC4': Layout('u2', 4, cv2.COLOR_BGRA2RGB),
    '32FC1': Layout('f4'),
    '32FC3': Layout('f4', 3, cv2.COLOR_BGR2RGB),
    'yuv422': Layout('u1', 2, cv2.COLOR_YUV2RGB_UYVY, even=True),
    'uyvy': Layout('u1', 2, cv2.COLOR_YUV2RGB_UYVY, even=True),
    'yuv422_yuy2': Layout('u1', 2, cv2.COLOR_YUV2RGB_YUY2, even=True),
    'yuyv': Layout('u1', 2, cv2.COLOR_YUV2RGB_YUY2, even=True),
    'nv12': Layout('u1', 1, cv2.COLOR_YUV2RGB_NV12, chroma_rows=True, even=True),
    'nv21': Layout('u1', 1, cv2.COLOR_YUV2RGB_NV21, chroma_rows=True, even=True),
    **{
        f'bayer_{order.lower()}{8 * size}': Layout(
            f'u{size}', 1, getattr(cv2, f'COLOR_Bayer{order}2RGB'), even=True
        )
        for order in ('RGGB', 'BGGR', 'GBRG', 'GRBG')
        for size in (1, 2)
    },
}
DEPTH = '16UC1'
"""Depth in whole units (REP 118): 0 is no return."""


def layout_of(encoding: str) -> Layout:
    """
    Find the layout of an encoding.

    :raises InvalidInput: if it is not in the table.
    """
    layout = LAYOUTS.get(encoding)
    if layout is None:
        raise InvalidInput(f'encoding {encoding[:32]!r} is not one of {", ".join(LAYOUTS)}')
    return layout


def check_even(encoding: str, layout: Layout, width: int, rows: int) -> None:
    """
    Check that pixels which share colour come in pairs.

    :raises InvalidInput: if one is left over.
    """
    if layout.even and (width % 2 or (layout.channels == 1 and rows % 2)):
        raise InvalidInput(f'{encoding} image of {width}x{rows}: pixels come in pairs')


def view_pixels(message: Image, layout: Layout) -> NDArray[Any]:
    """Rows as they lie in the message: ``[rows, W]`` or ``[rows, W, channels]``."""
    height, width, step = message.height, message.width, message.step
    if height == 0 or width == 0:
        raise InvalidInput(f'image is empty ({width}x{height})')
    dtype = np.dtype(('>' if message.is_bigendian else '<') + layout.dtype)
    row = width * layout.channels * dtype.itemsize
    if step < row:
        raise InvalidInput(f'step {step} is less than a row of {row} bytes ({message.encoding})')
    rows = height * 3 // 2 if layout.chroma_rows else height
    check_even(message.encoding, layout, width, height)
    if len(message.data) != step * rows:
        raise InvalidInput(
            f'data has {len(message.data)} bytes; step {step} x {rows} rows = {step * rows}'
        )
    strides = (step, layout.channels * dtype.itemsize, dtype.itemsize)
    shape = (rows, width, layout.channels)
    pixels: NDArray[Any] = np.ndarray(shape, dtype, memoryview(message.data), 0, strides)
    return pixels[:, :, 0] if layout.channels == 1 else pixels


def as_native(image: NDArray[Any]) -> NDArray[Any]:
    """Numbers as this machine has them."""
    if image.dtype.isnative and image.flags.aligned:
        return image
    return image.astype(image.dtype.newbyteorder('='))


def encode_pixels(pixels: NDArray[Any], encoding: str, step: int, big: bool) -> NDArray[Any]:
    """
    Lay pixels out as an encoding has them: the way back from what is read of an image.

    :param pixels: grey ``[H, W]`` or RGB ``[H, W, 3]`` in the numbers of the encoding; NaN is
        no return.
    :param step: bytes of a row, at least.
    :param big: whether numbers are big-endian.
    :returns: ``uint8[rows, step]``.
    """
    layout = layout_of(encoding)
    dtype = np.dtype(('>' if big else '<') + layout.dtype)
    if layout.to_rgb is not None or layout.channels > 1:
        pixels = _as_colour(pixels)
    elif pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    if dtype.kind == 'u':
        limit = np.iinfo(dtype).max
        pixels = np.clip(np.rint(np.nan_to_num(pixels, nan=0.0)), 0, limit).astype(
            f'u{dtype.itemsize}'
        )
    laid = _laid_out(pixels, encoding, layout)
    rows = np.ascontiguousarray(laid, dtype).view(np.uint8).reshape(len(laid), -1)
    padding = step - rows.shape[1]
    return np.pad(rows, ((0, 0), (0, padding))) if padding > 0 else rows


def _as_colour(pixels: NDArray[Any]) -> NDArray[Any]:
    return np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else pixels


def _laid_out(pixels: NDArray[Any], encoding: str, layout: Layout) -> NDArray[Any]:
    """Grey or RGB in the order of an encoding: ``[rows, W]`` or ``[rows, W, channels]``."""
    if encoding.startswith('bayer'):
        mosaic = np.empty_like(pixels[:, :, 0])
        for k, colour in enumerate(encoding[6:10]):
            row, column = divmod(k, 2)
            mosaic[row::2, column::2] = pixels[row::2, column::2, 'rgb'.index(colour)]
        return mosaic
    if layout.chroma_rows:
        return _with_chroma(pixels, encoding == 'nv21')
    if layout.channels == 2:
        code = layout.to_rgb == cv2.COLOR_YUV2RGB_UYVY
        return cv2.cvtColor(pixels, cv2.COLOR_RGB2YUV_UYVY if code else cv2.COLOR_RGB2YUV_YUY2)
    if layout.channels > 1 and layout.to_rgb in _BGR:
        pixels = pixels[:, :, ::-1]
    if layout.channels == 4:
        opaque = np.full_like(pixels[:, :, :1], np.iinfo(pixels.dtype).max)
        pixels = np.concatenate((pixels, opaque), axis=2)
    return pixels


_BGR = (cv2.COLOR_BGR2RGB, cv2.COLOR_BGRA2RGB)


def _with_chroma(pixels: NDArray[Any], swapped: bool) -> NDArray[Any]:
    """Brightness, then rows in which the two planes of colour alternate."""
    height, width = pixels.shape[:2]
    planes = cv2.cvtColor(pixels, cv2.COLOR_RGB2YUV_I420)
    chroma = planes[height:].reshape(2, height // 2, width // 2)
    pairs = np.stack(chroma[::-1] if swapped else chroma, axis=2).reshape(height // 2, width)
    return np.concatenate((planes[:height], pairs))
