"""The errors of what was filled in over time, as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from mm_perception.lab.demo.error_judge import ErrorJudge, Errors
from mm_perception.lab.demo.judge import TicksOf
from mm_perception.modalities.drawing import write_text

WIDTH, PANEL, SIDE, TOP, BOTTOM = 1000, 110, 110, 34, 26
GAP = 14
PAPER, SHADE, INK, FAINT = (255, 255, 255), (240, 240, 240), (45, 45, 45), (125, 125, 125)
OURS, HOLD = (200, 110, 20), (130, 130, 130)
HIGHEST = 98.0  # percentile of the errors that fills a panel
LABEL_EVERY_S = 10


def draw_errors(ticks: TicksOf, names: Sequence[str], judge: ErrorJudge) -> np.ndarray:
    """
    Draw the error of every modality while it is out, beside that of its last value held.

    :param ticks: of every phase.
    :returns: ``uint8[H, W, 3]``, BGR.
    """
    height = TOP + len(names) * PANEL + BOTTOM
    canvas = np.full((height, WIDTH, 3), PAPER, np.uint8)
    write_text(canvas, 'error of what was filled in', (SIDE, 20), OURS, 0.5)
    write_text(canvas, 'error of holding the last value', (SIDE + 260, 20), HOLD, 0.5)
    write_text(canvas, 'grey: the sensor is out', (SIDE + 560, 20), FAINT, 0.45)
    end_s = max(phase.end_s for phase in ticks)
    for row, name in enumerate(names):
        panel = canvas[TOP + row * PANEL : TOP + (row + 1) * PANEL - GAP]
        _draw_panel(panel, name, ticks, end_s, judge)
    for second in range(0, int(end_s) + 1, LABEL_EVERY_S):
        write_text(canvas, f'{second} s', (_across(second, end_s), height - 10), FAINT, 0.4)
    return canvas


def _draw_panel(
    panel: np.ndarray, name: str, ticks: TicksOf, end_s: float, judge: ErrorJudge
) -> None:
    write_text(panel, name, (8, 20), INK, 0.5)
    runs: list[list[tuple[float, Errors]]] = [[]]
    for phase, found in ticks.items():
        if name not in phase.missing:
            runs.append([])
            continue
        left, right = (_across(s, end_s) for s in (phase.start_s, phase.end_s))
        cv2.rectangle(panel, (left, 0), (right, len(panel) - 1), SHADE, -1)
        for tick in found:
            errors = None if name in tick.status.used else judge.errors(name, tick)
            if errors is not None:
                runs[-1].append((judge.elapsed_s(tick), errors))
    every = [e for run in runs for _, e in run]
    if not every:
        write_text(panel, 'not measured', (SIDE + 8, 20), FAINT, 0.45)
        return
    top = float(np.percentile([max(e.ours, e.hold) for e in every], HIGHEST)) or 1.0
    scale = f'{top:.2g}'
    write_text(panel, scale, (SIDE - 8 * len(scale) - 6, 34), FAINT, 0.4)
    write_text(panel, '0', (SIDE - 16, len(panel) - 4), FAINT, 0.4)
    for run in filter(None, runs):
        _draw_line(panel, [(t, e.hold / top) for t, e in run], end_s, HOLD)
        _draw_line(panel, [(t, e.ours / top) for t, e in run], end_s, OURS)


def _draw_line(
    panel: np.ndarray,
    line: Sequence[tuple[float, float]],
    end_s: float,
    colour: tuple[int, int, int],
) -> None:
    bottom = len(panel) - 1
    points = [(_across(t, end_s), round(bottom * (1.0 - min(level, 1.0)))) for t, level in line]
    cv2.polylines(panel, [np.array(points, np.int32)], False, colour, 2, cv2.LINE_AA)


def _across(elapsed_s: float, end_s: float) -> int:
    return SIDE + round((WIDTH - SIDE - 12) * elapsed_s / end_s)
