"""The folder that the demonstration of a policy leaves: summary.json, angles.png, index.html."""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import cv2
import numpy as np

from mm_perception.errors import DataError
from mm_perception.lab.demo.acting import LOST_S, Acted
from mm_perception.lab.demo.log import Phase
from mm_perception.lab.demo.pictures import FAINT, INK, PAPER, save_gif
from mm_perception.modalities.drawing import write_text
from mm_perception.rl.pendulum import RATE_HZ

WIDTH, PANEL, SIDE, GAP = 900, 64, 250, 8
SHADE, CURVE = (225, 225, 225), (200, 110, 20)
WORKS, OUT = (60, 140, 40), (40, 40, 215)
SQUARE, FRAME_W = 220, 460
FRAMES_HZ = 10.0
PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>mm_perception demo: a policy whose sensors die</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto;
       padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th { text-align: left; border-bottom: 2px solid #999; padding: .25rem .6rem; }
td { border-bottom: 1px solid #ddd; padding: .25rem .6rem; }
.met { color: #17692b; } .missed { color: #b3261e; font-weight: bold; }
img { max-width: 100%; }
</style>
</head>
<body>
<h1>A policy whose sensors die</h1>
<p>A pendulum is swung up from its camera, its microphones and its joint, which the node
<code>cmi</code> fuses into one latent; the node <code>policy</code> acts on that alone. In each
episode sensors fall silent at step $lost and stay silent. Bundle: <code>$bundle</code>.</p>
<h2>Targets</h2>
<table><tr><th>figure</th><th>measured</th><th>target</th><th></th></tr>
$targets
</table>
<h2>Returns, from the same start in each row</h2>
<table><tr><th>out</th><th>live</th><th>offline</th><th>all sensors</th><th>zero action</th>
<th>random</th><th>normalised</th><th>up in the last second</th></tr>
$rows
</table>
<h2>Angle from upright</h2>
<img alt="angle over time, an episode per row" src="data:image/png;base64,$angles">
<p>Grey: the sensors are out. Normalised: 0 is a random policy's return, 1 that of this policy with
all sensors. Offline: the same episode without topics. $when</p>
</body>
</html>
""")


def write_acting_report(
    folder: Path, summary: Mapping[str, Any], log: Acted, phases: Sequence[Phase]
) -> None:
    """
    Write the folder.

    :raises DataError: if it cannot be written.
    """
    png = bytes(cv2.imencode('.png', draw_angles(log, phases))[1])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / 'summary.json').write_text(json.dumps(summary, indent=1) + '\n')
        (folder / 'angles.png').write_bytes(png)
        (folder / 'index.html').write_text(_page(summary, png), encoding='utf-8')
    except OSError as error:
        raise DataError(f'{folder}: cannot be written ({error.strerror}); see --out') from error


def draw_angles(log: Acted, phases: Sequence[Phase]) -> np.ndarray:
    """
    Draw the angle over time, an episode per row.

    :returns: ``uint8[H, W, 3]``, BGR.
    """
    canvas = np.full((len(phases) * PANEL + GAP, WIDTH, 3), PAPER, np.uint8)
    for k, phase in enumerate(phases):
        panel = canvas[GAP + k * PANEL : (k + 1) * PANEL]
        height, pitch = len(panel) - 1, (WIDTH - SIDE - GAP) / (phase.duration_s * RATE_HZ)
        if phase.missing:
            lost = SIDE + round(LOST_S * RATE_HZ * pitch)
            cv2.rectangle(panel, (lost, 0), (WIDTH - GAP, height), SHADE, -1)
        write_text(panel, phase.name, (8, 22), INK, 0.45)
        middle = height // 2
        cv2.line(panel, (SIDE, middle), (WIDTH - GAP, middle), FAINT, 1)
        truths = log.episode(k)
        angles = np.array([math.remainder(truth['state'][0], 2 * math.pi) for truth in truths])
        steps = np.array([truth['step'] for truth in truths])
        breaks = np.flatnonzero(np.abs(np.diff(angles)) > math.pi) + 1
        for part in np.split(np.arange(len(angles)), breaks):
            across = SIDE + steps[part] * pitch
            down = middle * (1.0 - angles[part] / math.pi)
            points = np.stack((across, down), axis=1).round().astype(np.int32)
            cv2.polylines(panel, [points], False, CURVE, 2, cv2.LINE_AA)
    return canvas


def write_acting_gif(
    file: Path, log: Acted, phases: Sequence[Phase], names: Sequence[str]
) -> None:
    """
    Write a moving picture of all episodes.

    :param names: of the sensors.
    :raises DataError: if there is nothing to show, or the file cannot be written.
    :raises MissingDependency: without Pillow.
    """
    every = round(RATE_HZ / FRAMES_HZ)
    frames = [
        _frame(truth, phase, names)
        for k, phase in enumerate(phases)
        for truth in log.episode(k)[::every]
    ]
    save_gif(file, frames, [round(1e3 / FRAMES_HZ)] * len(frames))


def _frame(truth: Mapping[str, Any], phase: Phase, names: Sequence[str]) -> np.ndarray:
    """The pendulum beside its sensors: ``uint8[H, W, 3]``, BGR."""
    frame = np.full((SQUARE, FRAME_W, 3), PAPER, np.uint8)
    middle, reach, angle = SQUARE // 2, 0.4 * SQUARE, truth['state'][0]
    tip = (round(middle - reach * math.sin(angle)), round(middle - reach * math.cos(angle)))
    cv2.line(frame, (middle, middle), tip, INK, 10, cv2.LINE_AA)
    cv2.circle(frame, tip, 12, CURVE, -1, cv2.LINE_AA)
    cv2.circle(frame, (middle, middle), 6, FAINT, -1, cv2.LINE_AA)
    write_text(frame, 'all sensors' if not phase.missing else phase.name, (SQUARE, 28), INK, 0.45)
    for k, name in enumerate(names):
        out = name in truth['faults']
        top = 64 + 30 * k
        cv2.circle(frame, (SQUARE + 8, top - 5), 6, OUT if out else WORKS, -1, cv2.LINE_AA)
        write_text(frame, f'{name}: {"out" if out else "works"}', (SQUARE + 24, top), INK, 0.5)
    seconds = truth['step'] / RATE_HZ
    told = f'{seconds:4.1f} s   return {truth["return"]:.0f}'
    write_text(frame, told, (SQUARE, SQUARE - 20), FAINT, 0.5)
    return frame


def _page(summary: Mapping[str, Any], png: bytes) -> str:
    return PAGE.substitute(
        lost=summary['lost_at_step'],
        bundle=html.escape(summary['bundle']),
        targets='\n'.join(_target_row(target) for target in summary['targets']),
        rows='\n'.join(_episode_row(row) for row in summary['episodes']),
        angles=base64.b64encode(png).decode(),
        when=html.escape(f'{summary["seconds"]} s, {summary["started"]}.'),
    )


def _target_row(target: Mapping[str, Any]) -> str:
    limit = f'{target["at_least"]:g} or more'
    if 'at_most' in target:
        limit = f'{target["at_least"]:g} to {target["at_most"]:g}'
    word = 'met' if target['met'] else 'missed'
    cells = html.escape(target['name']), f'{target["value"]:.4g}', limit
    return _cells(*cells, f'<span class="{word}">{word}</span>')


def _episode_row(row: Mapping[str, Any]) -> str:
    numbers = [f'{row[key]:.1f}' for key in RETURNS]
    up = '-' if row['upright'] is None else f'{row["upright"]:.0%}'
    out = html.escape(', '.join(row['missing']) or 'nothing')
    return _cells(out, *numbers, f'{row["normalised"]:.1%}', up)


RETURNS = ('return', 'offline', 'all_sensors', 'zero_action', 'random')


def _cells(*cells: str) -> str:
    return '<tr>' + ''.join(f'<td>{cell}</td>' for cell in cells) + '</tr>'
