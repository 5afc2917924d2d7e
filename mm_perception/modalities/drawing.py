"""Small pictures of arrays that kinds of modalities share: bars, curves, paths, text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

PAPER, INK, FAINT = (250, 250, 250), (40, 40, 40), (205, 205, 205)
MARK = (30, 90, 200)
USUAL_SIDE = 160  # for which the lengths below are meant
MAX_BARS = 32
Colour = tuple[int, int, int]


def blank(side: int) -> NDArray[Any]:
    """Empty square: ``uint8[side, side, 3]``."""
    return np.full((side, side, 3), PAPER, np.uint8)


def write_text(
    canvas: NDArray[Any], text: str, origin: tuple[int, int], colour: Colour, size: float = 0.48
) -> None:
    """Write a line of text; ``origin`` is where its baseline begins, in pixels."""
    cv2.putText(canvas, text, origin, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)


def draw_bars(array: NDArray[Any], labels: Sequence[str], side: int) -> NDArray[Any]:
    """
    Draw values in 0..1 as bars, beside their labels where there are any.

    :param array: ``float[...]``; the first 32 values are drawn.
    :param labels: one per value, or none.
    :returns: ``uint8[side, side, 3]``, BGR.
    """
    picture, scale = blank(side), side / USUAL_SIDE
    values = np.clip(np.asarray(array, np.float64).reshape(-1)[:MAX_BARS], 0.0, 1.0)
    pitch = (side - 8 * scale) / len(values)
    left = round((34 if labels else 6) * scale)
    for k, value in enumerate(values):
        top, bottom = 4 * scale + k * pitch, 4 * scale + (k + 1) * pitch - 2 * scale
        if labels:
            origin = round(5 * scale), int((top + bottom) / 2) + round(4 * scale)
            write_text(picture, labels[k][:3], origin, INK, 0.38 * scale)
        right = left + value * (side - left - 6 * scale)
        cv2.rectangle(picture, (left, int(top)), (int(right), int(bottom)), MARK, -1)
    return picture


def draw_path(points: NDArray[Any], side: int) -> NDArray[Any]:
    """
    Draw a path in the plane, its first point marked.

    :param points: ``float[T, 2]`` in 0..1, y up.
    :returns: ``uint8[side, side, 3]``, BGR.
    """
    picture, scale = blank(side), side / USUAL_SIDE
    margin = 12 * scale
    room = side - 2 * margin
    pixels = np.stack((margin + points[:, 0] * room, margin + (1.0 - points[:, 1]) * room), axis=1)
    _polyline(picture, pixels, INK, max(round(2 * scale), 1))
    start = int(pixels[0, 0]), int(pixels[0, 1])
    cv2.circle(picture, start, max(round(4 * scale), 2), MARK, -1, cv2.LINE_AA)
    return picture


def draw_curves(curves: NDArray[Any], side: int) -> NDArray[Any]:
    """
    Draw curves over each other, each in a colour of its own.

    :param curves: ``float[T, curves]`` in 0..1.
    :returns: ``uint8[side, side, 3]``, BGR.
    """
    picture, margin = blank(side), 6 * side / USUAL_SIDE
    across = np.linspace(margin, side - margin, len(curves))
    for k, curve in enumerate(curves.T):
        pixels = np.stack((across, side - margin - curve * (side - 2 * margin)), axis=1)
        hue = np.array([[[(k * 47) % 180, 200, 160]]], np.uint8)
        blue, green, red = (int(v) for v in cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0])
        _polyline(picture, pixels, (blue, green, red), 1)
    return picture


def _polyline(picture: NDArray[Any], pixels: NDArray[Any], colour: Colour, width: int) -> None:
    fixed = np.rint(pixels * 16).astype(np.int32)  # 4 fractional bits
    cv2.polylines(picture, [fixed], False, colour, width, cv2.LINE_AA, 4)
