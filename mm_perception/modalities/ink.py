"""What is drawn on a page, whatever the light, the paper, the pen and its place are."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mm_perception.modalities.base import Array

WORKING_SIDE = 120
"""Pixels of the shorter side at which the page is looked at."""
LONGEST = 4 * WORKING_SIDE
"""Pixels of the longer side at most: an image of one row is no page."""
REACH = 0.35
"""Of the shorter side: what is darker than all paper within it is ink, what is wider is not."""
LEAST_DEPTH = 0.12
"""By which ink must be darker than its paper, in parts of the paper's brightness."""
NOISE_STEPS = 6.0
"""Deviations of the paper's noise by which ink must be darker than it."""
DARKEST_PAPER = 0.1
"""Brightness up to which paper counts as this bright: there is but noise in it."""
LEAST_SIDE = 0.12
"""Of the shorter side, for the longer side of what may be a drawing."""
LEAST_PART = 0.04
"""Of the largest piece's area, below which another piece is a speck."""
MOST_CONTACT = 0.7
"""Of a side of the image, above which what lies along it is no drawing."""
CLEARLY = 2.0
"""By which factor the other polarity must have more contrast to be taken."""
FILL, PEN = 0.75, 0.075
"""Longer side of the ink, and width of the pen in the result, of its shorter side."""
CANVAS_SIDE = 84
"""Pixels that the result is drawn with, if it has fewer."""
MOST_THINNED = 0.5
"""Of the pen's width, by which it is made thinner at most."""


def normalise_ink(page: NDArray[Any], size: tuple[int, int], dark: bool) -> Array:
    """
    Find what is drawn on a page; centre it, and give it a usual size, pen and contrast.

    The paper's brightness is followed over the page, so that light and shadow do not matter.
    What touches the border, such as the edge of a desk, counts only if nothing else is there.

    Of a page in colour the channel counts in which a pixel is darkest (lightest, if ink is
    light), so that ink of any colour stands out.

    :param page: ``uint8[H, W(, 3)]``, or ``float32[H, W(, 3)]`` in 0..1.
    :param size: height and width of the result.
    :param dark: whether ink is usually darker than paper; it is taken for the other way round
        where the contrast clearly says so.
    :returns: ``float32[height, width]``, 0 for paper and 1 for ink; all 0 for a blank page.
    """
    page = _working_copy(page, dark)
    depth = _depth(page, _is_dark(page, dark))
    found = _find_drawing(depth)
    if found is None:
        return np.zeros(size, np.float32)
    region = cv2.dilate(found, np.ones((5, 5), np.uint8)) > 0
    full = float(np.quantile(depth[found > 0], 0.75))
    share = np.clip((depth / full - 0.25) / 0.5, 0.0, 1.0) * region
    return _boxed(np.asarray(share, np.float32), size)


def _working_copy(page: NDArray[Any], dark: bool) -> Array:
    height, width = page.shape[:2]
    scale = min(WORKING_SIDE / min(height, width), LONGEST / max(height, width))
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    how = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_CUBIC
    small = cv2.resize(page, size, interpolation=how)
    if small.ndim == 3:
        pick = cv2.min if dark else cv2.max
        red, green, blue = cv2.split(small)
        small = pick(pick(red, green), blue)
    grey = small.astype(np.float32) / np.float32(255.0 if page.dtype == np.uint8 else 1.0)
    return np.asarray(cv2.GaussianBlur(grey, (3, 3), 0))


def _is_dark(page: Array, usually: bool) -> bool:
    """Whether ink is darker than paper: most of the page is paper."""
    few = np.sort(page[::2, ::2], axis=None)
    low, middle, high = (few[round(q * (len(few) - 1))] for q in (0.002, 0.5, 0.998))
    darker, lighter = middle - low, high - middle
    if usually:
        return bool(lighter <= CLEARLY * darker)
    return bool(darker > CLEARLY * lighter)


def _depth(page: Array, dark: bool) -> Array:
    """How far each pixel is from the paper around it, 0 to 1; ``float32[H, W]``."""
    side = round(REACH * WORKING_SIDE) | 1
    kernel = np.ones((side, side), np.uint8)
    if dark:
        paper = np.maximum(cv2.morphologyEx(page, cv2.MORPH_CLOSE, kernel), DARKEST_PAPER)
        return np.asarray(np.clip(paper - page, 0.0, None) / paper)
    paper = cv2.morphologyEx(page, cv2.MORPH_OPEN, kernel)
    return np.asarray((page - paper) / np.float32(max(float(page.max()), DARKEST_PAPER)))


def _find_drawing(depth: Array) -> NDArray[np.uint8] | None:
    """Pixels of the drawing, ``uint8[H, W]``; None where there is none."""
    few = np.sort(depth[::2, ::2], axis=None)
    noise = 1.5 * float(few[len(few) // 2])  # of paper, which is mostly within it
    least = max(LEAST_DEPTH, NOISE_STEPS * noise)
    strong = 0.5 * float(few[round(0.996 * (len(few) - 1))])
    # Strong ink on squared paper is seen first; then faint ink beside a dark desk.
    for threshold in sorted({max(strong, least), least}, reverse=True):
        found = _pieces((depth > threshold).astype(np.uint8))
        if found is not None:
            return found
    return None


def _pieces(mask: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Keep the pieces that make up a drawing; None where none may be one."""
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(mask)
    if count < 2:
        return None
    height, width = mask.shape
    left, top, wide, high, area = boxes.T
    inside = (left > 0) & (top > 0) & (left + wide < width) & (top + high < height)
    large = np.maximum(wide, high) >= LEAST_SIDE * WORKING_SIDE
    paper = np.arange(count) == 0
    kept = inside & ~paper
    if not (kept & large).any():
        kept = ~inside & ~paper & (_contact(labels, count) <= MOST_CONTACT)
    if not (kept & large).any():
        return None
    kept &= area >= LEAST_PART * area[kept & large].max()
    return np.asarray(kept[labels], np.uint8)


def _contact(labels: NDArray[Any], count: int) -> NDArray[Any]:
    """Largest share of a side of the image that each piece holds."""
    sides = (labels[0], labels[-1], labels[:, 0], labels[:, -1])
    shares = [np.bincount(side, minlength=count) / len(side) for side in sides]
    return np.asarray(np.max(shares, axis=0))


def _boxed(share: Array, size: tuple[int, int]) -> Array:
    """Centre the drawing by its bounding box, with a usual size and pen."""
    mask = np.asarray(share > 0.5, np.uint8)
    left, top, wide, high = cv2.boundingRect(mask)
    times = max(1, round(CANVAS_SIDE / min(size)))
    height, width = (times * side for side in size)
    side = min(height, width)
    pen = _pen(mask)
    scale = (FILL - PEN) * side / max(max(wide, high) - pen, 0.05 * WORKING_SIDE)
    scale = min(scale, FILL * side / (0.5 * LEAST_SIDE * WORKING_SIDE))
    x = width / 2 - scale * (left + wide / 2) + 0.5 * (scale - 1)
    y = height / 2 - scale * (top + high / 2) + 0.5 * (scale - 1)
    move = np.array([[scale, 0, x], [0, scale, y]])
    canvas = cv2.warpAffine(share, move, (width, height), flags=cv2.INTER_LINEAR)
    canvas = _even_pen(canvas, scale * pen, PEN * side)
    return np.asarray(cv2.resize(canvas, size[::-1], interpolation=cv2.INTER_AREA))


def _pen(mask: NDArray[np.uint8]) -> float:
    """Width of the pen in pixels: twice the distance to its edge, where that is largest."""
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 3)
    ridge = (padded > 0) & (distance >= cv2.dilate(distance, np.ones((3, 3), np.uint8)))
    return max(2.0 * float(np.median(distance[ridge])) - 0.5, 1.0)


def _even_pen(canvas: Array, pen: float, wanted: float) -> Array:
    change = max(wanted - pen, -MOST_THINNED * pen)
    side = round(abs(change)) + 1
    if side < 2:
        return canvas
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return np.asarray((cv2.dilate if change > 0 else cv2.erode)(canvas, kernel))
