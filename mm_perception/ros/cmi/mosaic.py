"""A picture of what was observed beside what was generated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from mm_perception.fusion.results import Fused
from mm_perception.modalities import Modality
from mm_perception.modalities.drawing import (
    FAINT,
    INK,
    PAPER,
    Colour,
    blank,
    draw_bars,
    write_text,
)
from mm_perception.ros.codecs import picture_message

CELL = 160
MARGIN = 6
HEAD = 40
SIDE = 22
MEAN = 3.0
OBSERVED, GENERATED, ABSENT = (120, 80, 30), (30, 90, 200), (150, 150, 150)


@dataclass(frozen=True)
class MosaicColumn:
    """
    One modality in the mosaic.

    :param observed: model array of what the sensor gave, or None.
    :param generated: model array of what the model generated, or None.
    :param caption: a few words under the name, such as the state.
    """

    modality: Modality[Any]
    observed: NDArray[Any] | None
    generated: NDArray[Any] | None
    caption: str = ''


def render_mosaic(
    columns: Sequence[MosaicColumn],
    cell: int = CELL,
    latent: tuple[NDArray[Any], NDArray[Any]] | None = None,
) -> NDArray[Any]:
    """
    Draw the observed values in one row, the generated ones below, the latent beside them.

    :param cell: side of one value's picture in pixels.
    :param latent: mean and std of the joint posterior, ``float[D]`` each, empty while there is
        none; None leaves the column out.
    :returns: ``uint8[H, W, 3]``, BGR.
    """
    pitch = cell + MARGIN
    count = len(columns) + (latent is not None)
    height, width = HEAD + 2 * pitch, SIDE + count * pitch
    canvas = np.full((height, width, 3), PAPER, np.uint8)
    rows = (('observed', OBSERVED), ('generated', GENERATED))
    for row, (text, colour) in enumerate(rows):
        strip = np.full((SIDE, cell, 3), PAPER, np.uint8)
        write_text(strip, text, (cell // 2 - 36, SIDE - 7), colour)
        top = HEAD + row * pitch
        canvas[top : top + cell, :SIDE] = np.rot90(strip)
    for k, column in enumerate(columns):
        left = SIDE + k * pitch
        write_text(canvas, column.modality.spec.name, (left, 16), INK)
        write_text(canvas, column.caption, (left, 33), ABSENT, 0.4)
        for row, array in enumerate((column.observed, column.generated)):
            top = HEAD + row * pitch
            picture = _draw(column.modality, array, rows[row][1], cell)
            canvas[top : top + cell, left : left + cell] = picture
    if latent is not None:
        _draw_latent(canvas[:, SIDE + len(columns) * pitch :], latent, cell)
    return canvas


def _draw_latent(
    canvas: NDArray[Any], latent: tuple[NDArray[Any], NDArray[Any]], cell: int
) -> None:
    """Bars of the mean, from -MEAN to MEAN, and below of the std, of which the prior's is 1."""
    mean, std = latent
    write_text(canvas, 'latent', (0, 16), INK)
    if not mean.size:
        return
    write_text(canvas, f'mean, below std {float(np.mean(std)):.2f}', (0, 33), ABSENT, 0.4)
    for row, values in enumerate((0.5 + mean / (2 * MEAN), std)):
        top = HEAD + row * (cell + MARGIN)
        canvas[top : top + cell, :cell] = draw_bars(values, (), cell)


def _draw(
    modality: Modality[Any], array: NDArray[Any] | None, frame: Colour, side: int
) -> NDArray[Any]:
    if array is None:
        picture, frame = blank(side), FAINT
        cv2.line(picture, (side // 3, side // 2), (2 * side // 3, side // 2), FAINT, 2)
    else:
        picture = np.ascontiguousarray(modality.draw(array, side))
    cv2.rectangle(picture, (0, 0), (side - 1, side - 1), frame, 1)
    return picture


def mosaic_message(fused: Fused, modalities: Mapping[str, Modality[Any]], header: Header) -> Image:
    """Draw what a tick used and generated."""
    result = fused.result
    generated = result.reconstructions if result else {}
    nothing = np.empty(0)
    picture = render_mosaic(
        [
            MosaicColumn(
                modality,
                fused.observed.get(name),
                generated.get(name),
                fused.verdicts[name].state.value,
            )
            for name, modality in modalities.items()
        ],
        latent=(result.mean, result.std) if result else (nothing, nothing),
    )
    return picture_message(picture, header)
