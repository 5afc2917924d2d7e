"""Picture of a judgement: error over the time since the loss, a panel per target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from mm_perception.evaluation.judgement import OURS, OutageRow, is_ours, most_observed

DPI = 110
ACROSS = 3
INK, FAINT = '#2d2d2d', '#8a8a8a'
COLOURS = {
    'hold': '#1f6fb4',
    'mean': '#8a8a8a',
    'constant_velocity': '#b8860b',
    'damped_velocity': '#17a2b8',
    'ridge': '#1b9e77',
    'ridge_memory': '#0b5d43',
    'knn': '#7b4ea3',
    'kalman': '#c2185b',
}
OWN = ('#d95f02', '#e9a066', '#f3c9a5')
MARGIN = 1.08
EXTRAPOLATION = 'constant_velocity'
"""Method that may leave its panel: the others would lie flat on its floor."""


def draw_outages(rows: Sequence[OutageRow], title: str, file: Path) -> None:
    """
    Draw the mean error over all rows of a cell, such as those of several seeds.

    :param rows: those with the most other sensors at work are drawn.
    :param file: ``.png``.
    """
    shown = most_observed(rows)
    names = list(dict.fromkeys(row.target for row in shown))
    methods = sorted({row.method for row in shown}, key=lambda m: (not is_ours(m), m))
    columns = min(ACROSS, len(names))
    lines = math.ceil(len(names) / columns)
    figure = Figure(figsize=(4.0 * columns, 3.0 * lines + 0.9), layout='constrained')
    figure.suptitle(title, fontsize=11, color=INK)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    for panel, name in zip(panels, names):
        _draw_target(panel, [row for row in shown if row.target == name], methods)
        panel.set_title(name, fontsize=10, color=INK, loc='left')
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center', ncols=5, fontsize=8, frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=DPI)


def _draw_target(panel: Any, rows: Sequence[OutageRow], methods: Sequence[str]) -> None:
    ages = sorted({row.age_s for row in rows})
    own = iter(OWN)
    largest = [0.0]
    for method in methods:
        mine = [row for row in rows if row.method == method]
        known = [age for age in ages if any(row.age_s == age for row in mine)]
        errors = [float(np.mean([r.error for r in mine if r.age_s == age])) for age in known]
        first = method == OURS
        panel.plot(
            known,
            errors,
            '-o',
            color=next(own) if is_ours(method) else COLOURS.get(method, FAINT),
            linewidth=2.6 if first else 1.2,
            markersize=5 if first else 2.5,
            zorder=3 if first else 2,
            label=method,
        )
        if method != EXTRAPOLATION and errors:
            largest += errors
    if max(largest):
        panel.set_ylim(0, MARGIN * max(largest))
    panel.set_xscale('log')
    panel.set_xticks(ages, [f'{age:g}' for age in ages])
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel('seconds since the last good value', fontsize=8, color=INK)
    panel.set_ylabel(rows[0].unit if rows else '', fontsize=8, color=INK)
    panel.tick_params(labelsize=8)
    panel.grid(color=FAINT, linewidth=0.3, alpha=0.6)
    for side in ('top', 'right'):
        panel.spines[side].set_visible(False)
