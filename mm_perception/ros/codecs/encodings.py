"""The table of image encodings: how each lies in memory, and what makes grey or RGB of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

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


def mark_no_return(image: NDArray[Any]) -> NDArray[Any]:
    """
    Depth in whole units as numbers that can be missing.

    :param image: ``uint16[H, W]``, 0 where nothing came back.
    :returns: ``float32[H, W]``, NaN there.
    """
    depth = image.astype(np.float32)
    depth[image == 0] = np.nan
    return depth
