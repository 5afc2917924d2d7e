"""Charts of a table's figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

from mm_perception.experiments.pictures.canvas import FAINT, INK, new_figure, write_figure
from mm_perception.experiments.report import Figure, Line, lines_of, paper_figure
from mm_perception.experiments.runner import Outcome
from mm_perception.experiments.table import OTHERS, Column


def draw_bars(outcome: Outcome, folder: Path) -> dict[str, Path]:
    """Accuracy by the number of observed modalities, a panel per target; the paper's as marks."""
    table, lines = outcome.plan.table, lines_of(outcome)
    keys = {
        column.count: key
        for key, column in table.columns.items()
        if column.metric == 'accuracy' and column.given == OTHERS and column.estimator != 'mean'
    }
    targets = list(dict.fromkeys(line.target for line in lines))
    if not lines:
        return {}
    title = f'{table.title}: accuracy of what is generated, by the number of modalities observed'
    figure = new_figure(title, 3.1 * len(targets), 3.9)
    panels = figure.subplots(1, len(targets), sharey=True, squeeze=False)[0]
    for panel, target in zip(panels, targets):
        chosen = [line for line in lines if line.target == target]
        for k, line in enumerate(chosen):
            _bars(panel, outcome, line, keys, (k - (len(chosen) - 1) / 2) * 0.8 / len(chosen))
        panel.set_title(target, fontsize=9)
        panel.set_xlabel('modalities observed', fontsize=8)
        panel.set_xticks(sorted(keys))
        panel.set_ylim(0, 105)
        panel.tick_params(labelsize=8)
        panel.grid(axis='y', color='#e5e5e5')
        panel.set_axisbelow(True)
    panels[0].set_ylabel('accuracy (%)', fontsize=8)
    panels[0].plot([], [], 'D', color=INK, markersize=4, label='the paper')
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center', ncols=5, fontsize=8)
    return {title: write_figure(figure, folder, 'bars')}


def draw_curve(outcome: Outcome, folder: Path) -> dict[str, Path]:
    """Figures along the axis on which the variants stand, as Fig. A.21 of Vasco et al. 2022."""
    table, lines = outcome.plan.table, lines_of(outcome)
    if not lines:
        return {}
    title = f'{table.title}, by the {table.curve}'
    metrics = list(dict.fromkeys(column.metric for column in table.columns.values()))
    figure = new_figure(title, 4.2 * len(metrics), 3.4)
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for panel, metric in zip(panels, metrics):
        columns = {k: c for k, c in table.columns.items() if c.metric == metric}
        for key, column in columns.items():
            _curve(panel, outcome, lines, key, column)
        panel.set_xlabel(table.curve, fontsize=8)
        unit = '%' if columns[next(iter(columns))].factor == 100 else 'lower is better'
        panel.set_ylabel(f'{metric} ({unit})', fontsize=8)
        panel.legend(fontsize=8)
        panel.tick_params(labelsize=8)
        panel.grid(color='#e5e5e5')
    return {title: write_figure(figure, folder, 'curve')}


def _bars(panel: Any, outcome: Outcome, line: Line, keys: dict[int, str], offset: float) -> None:
    table = outcome.plan.table
    position = list(table.variants).index(line.variant)
    width = 0.8 / len(table.variants)
    known = {count: line.figures[key] for count, key in keys.items() if key in line.figures}
    panel.bar(
        [count + offset for count in known],
        [figure.mean for figure in known.values()],
        width,
        yerr=[figure.spread or 0.0 for figure in known.values()],
        error_kw={'elinewidth': 0.8, 'ecolor': FAINT},
        color=matplotlib.colormaps['tab10'](position % 10),
        label=table.variants[line.variant].title,
    )
    for count, key in keys.items():
        reported = paper_figure(table, line, key)
        if reported is not None:
            panel.plot(count + offset, reported.mean, 'D', color=INK, markersize=3.5)


def _curve(panel: Any, outcome: Outcome, lines: Sequence[Line], key: str, column: Column) -> None:
    points: dict[float, Figure] = {
        outcome.plan.table.variants[line.variant].x: line.figures[key]
        for line in lines
        if key in line.figures
    }
    panel.errorbar(
        list(points),
        [figure.mean for figure in points.values()],
        [figure.spread or 0.0 for figure in points.values()],
        marker='o',
        markersize=3.5,
        capsize=2,
        label=column.title,
    )
