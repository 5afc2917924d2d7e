"""A pen stroke as a camera sees it: dark ink on white paper."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mm_perception.modalities.raw import Array

INK = 15
PAPER = 255
FILL = 0.68
LINE_WIDTH = 0.075
MAX_POINTS = 100
SUBPIXEL_BITS = 4


def render_stroke(points: Array, height: int = 480, width: int = 640) -> NDArray[np.uint8]:
    """
    Draw a stroke, centred; its longer side and the pen's width fill 75 % of the height.

    :param points: ``float32[T, 2]``, any unit, y up.
    :param height: of the image, pixels.
    :param width: of the image, pixels.
    :returns: RGB image ``uint8[height, width, 3]``.
    """
    points = np.asarray(points, np.float32)
    if len(points) > MAX_POINTS:
        points = _thin(points)
    low, high = points.min(axis=0), points.max(axis=0)
    scale = FILL * min(height, width) / max(float((high - low).max()), 1e-6)
    offset = np.array([(width - 1) / 2, (height - 1) / 2])
    pixels = (points - (low + high) / 2) * [scale, -scale] + offset
    image = np.full((height, width), PAPER, np.uint8)
    fixed = np.rint(pixels * (1 << SUBPIXEL_BITS)).astype(np.int32)
    thickness = max(round(LINE_WIDTH * min(height, width)), 1)
    cv2.polylines(image, [fixed], False, INK, thickness, cv2.LINE_AA, SUBPIXEL_BITS)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB))


def _thin(points: Array) -> Array:
    """Keep MAX_POINTS points, equally spaced along the path."""
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    position = np.concatenate(([0.0], np.cumsum(steps)))
    wanted = np.linspace(0.0, position[-1], MAX_POINTS)
    return np.stack([np.interp(wanted, position, axis) for axis in points.T], axis=1)
