"""A picture of what was observed beside what was generated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from mm_perception.modalities import Modality

CELL = 160
MARGIN = 6
HEAD = 40
SIDE = 22
PAPER, INK, FAINT = (250, 250, 250), (40, 40, 40), (205, 205, 205)
OBSERVED, GENERATED, ABSENT = (120, 80, 30), (30, 90, 200), (150, 150, 150)
FONT = cv2.FONT_HERSHEY_SIMPLEX
Draw = Callable[[Modality[Any], np.ndarray], np.ndarray]


@dataclass(frozen=True)
class MosaicColumn:
    """
    One modality in the mosaic.

    :param observed: model array of what the sensor gave, or None.
    :param generated: model array of what the model generated, or None.
    :param caption: a few words under the name, such as the state.
    """

    modality: Modality[Any]
    observed: np.ndarray | None
    generated: np.ndarray | None
    caption: str = ''


def render_mosaic(columns: Sequence[MosaicColumn]) -> np.ndarray:
    """
    Draw the observed values in one row, the generated ones below.

    :returns: ``uint8[H, W, 3]``, BGR.
    """
    pitch = CELL + MARGIN
    height, width = HEAD + 2 * pitch, SIDE + len(columns) * pitch
    canvas = np.full((height, width, 3), PAPER, np.uint8)
    for row, text in enumerate(('observed', 'generated')):
        strip = np.full((SIDE, CELL, 3), PAPER, np.uint8)
        _write(strip, text, (CELL // 2 - 36, SIDE - 7), (OBSERVED, GENERATED)[row])
        top = HEAD + row * pitch
        canvas[top : top + CELL, :SIDE] = np.rot90(strip)
    for k, column in enumerate(columns):
        left = SIDE + k * pitch
        _write(canvas, column.modality.spec.name, (left, 16), INK)
        _write(canvas, column.caption, (left, 33), ABSENT, 0.4)
        for row, array in enumerate((column.observed, column.generated)):
            cell = _cell(column.modality, array, (OBSERVED, GENERATED)[row])
            top = HEAD + row * pitch
            canvas[top : top + CELL, left : left + CELL] = cell
    return canvas


def _cell(modality: Modality[Any], array: np.ndarray | None, frame: tuple[int, ...]) -> np.ndarray:
    if array is None:
        cell = np.full((CELL, CELL, 3), PAPER, np.uint8)
        cv2.line(cell, (CELL // 3, CELL // 2), (2 * CELL // 3, CELL // 2), FAINT, 2)
        frame = FAINT
    else:
        cell = np.ascontiguousarray(_DRAW.get(modality.spec.kind, _bars)(modality, array))
    cv2.rectangle(cell, (0, 0), (CELL - 1, CELL - 1), frame, 1)
    return cell


def _image(modality: Modality[Any], array: np.ndarray) -> np.ndarray:
    pixels = modality.from_model(array)
    code = cv2.COLOR_GRAY2BGR if pixels.ndim == 2 else cv2.COLOR_RGB2BGR
    return cv2.resize(cv2.cvtColor(pixels, code), (CELL, CELL), interpolation=cv2.INTER_NEAREST)


def _sound(modality: Modality[Any], array: np.ndarray) -> np.ndarray:
    levels = np.clip(array[::-1] * 255.0, 0, 255).astype(np.uint8)
    enlarged = cv2.resize(levels, (CELL, CELL), interpolation=cv2.INTER_LINEAR)
    return cv2.applyColorMap(enlarged, cv2.COLORMAP_VIRIDIS)


def _trajectory(modality: Modality[Any], array: np.ndarray) -> np.ndarray:
    cell = np.full((CELL, CELL, 3), PAPER, np.uint8)
    points = np.asarray(array, np.float64).reshape(-1, modality.options.dimensions)
    if points.shape[1] != 2:
        return _curves(cell, points)
    room = CELL - 24
    pixels = np.stack((12 + points[:, 0] * room, 12 + (1.0 - points[:, 1]) * room), axis=1)
    cv2.polylines(cell, [_fixed(pixels)], False, INK, 2, cv2.LINE_AA, 4)
    start = tuple(int(v) for v in pixels[0])
    cv2.circle(cell, start, 4, GENERATED, -1, cv2.LINE_AA)
    return cell


def _curves(cell: np.ndarray, points: np.ndarray) -> np.ndarray:
    across = np.linspace(6, CELL - 6, len(points))
    for k, curve in enumerate(points.T):
        pixels = np.stack((across, CELL - 6 - curve * (CELL - 12)), axis=1)
        hue = np.array([[[(k * 47) % 180, 200, 160]]], np.uint8)
        colour = tuple(int(v) for v in cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0])
        cv2.polylines(cell, [_fixed(pixels)], False, colour, 1, cv2.LINE_AA, 4)
    return cell


def _bars(modality: Modality[Any], array: np.ndarray) -> np.ndarray:
    """Values in 0..1 as bars, beside their labels where there are any."""
    cell = np.full((CELL, CELL, 3), PAPER, np.uint8)
    values = np.clip(np.asarray(array, np.float64).reshape(-1)[:32], 0.0, 1.0)
    pitch = (CELL - 8) / len(values)
    left = 34 if modality.labels else 6
    for k, value in enumerate(values):
        top, bottom = 4 + k * pitch, 4 + (k + 1) * pitch - 2
        if modality.labels:
            _write(cell, modality.labels[k][:3], (5, int((top + bottom) / 2) + 4), INK, 0.38)
        right = left + value * (CELL - left - 6)
        cv2.rectangle(cell, (left, int(top)), (int(right), int(bottom)), GENERATED, -1)
    return cell


_DRAW: dict[str, Draw] = {
    'image': _image,
    'sound': _sound,
    'trajectory': _trajectory,
}


def _fixed(pixels: np.ndarray) -> np.ndarray:
    """Fixed-point pixels with 4 fractional bits, as cv2's ``shift`` wants."""
    return np.rint(pixels * 16).astype(np.int32)


def _write(
    canvas: np.ndarray,
    text: str,
    origin: tuple[int, int],
    colour: tuple[int, ...],
    size: float = 0.48,
) -> None:
    cv2.putText(canvas, text, origin, FONT, size, colour, 1, cv2.LINE_AA)
