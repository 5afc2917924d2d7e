"""Pictures of a benchmark: how ticks grow with the modalities, how latencies are distributed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from mm_perception.lab.benchmark.measurements import PERCENTS, Measurement, read_measurement

DPI = 110
SCALING = 'benchmark_scaling'
LATENCY = 'benchmark_latency'
INK, FAINT = '#2d2d2d', '#8a8a8a'
COLOURS = ('#1f6fb4', '#d95f02', '#1b9e77', '#7b4ea3', '#b8860b', '#666666')


def draw_pictures(content: Mapping[str, Any], folder: Path) -> dict[str, Path]:
    """
    Draw what the rows of a run allow.

    :param content: as in the JSON file.
    :returns: title -> file.
    """
    rows = [read_measurement(plain) for plain in content['rows']]
    folder.mkdir(parents=True, exist_ok=True)
    return {**_scaling(rows, folder), **_latency(rows, folder)}


def _scaling(rows: Sequence[Measurement], folder: Path) -> dict[str, Path]:
    chosen = [row for row in rows if row.section == 'scaling' and row.p50_ms is not None]
    if not chosen:
        return {}
    figure = _figure(6.4, 4.0)
    panel = figure.subplots()
    engines = list(dict.fromkeys(row.engine for row in chosen))
    for engine, colour in zip(engines, cycle(COLOURS)):
        for case, style in (('full_tick', '-o'), ('one_new_tick', '--s')):
            line = [row for row in chosen if (row.engine, row.case) == (engine, case)]
            counts = [row.modalities for row in line]
            medians = [row.p50_ms or 0.0 for row in line]
            label = (
                f'{engine}, {"all new, all decoded" if style == "-o" else "one new, one decoded"}'
            )
            panel.plot(counts, medians, style, color=colour, markersize=4, label=label)
    counts = sorted({row.modalities for row in chosen})
    _rules(panel, 'modalities present', 'median of a tick (ms)')
    panel.set_xscale('log', base=2)
    panel.set_yscale('log')
    _plain_numbers(panel.yaxis)
    panel.set_xticks(counts, [str(count) for count in counts])
    _legend(panel)
    title = 'A tick by the number of modalities'
    panel.set_title(title, fontsize=10, color=INK, loc='left')
    return {title: _write(figure, folder, SCALING)}


def _latency(rows: Sequence[Measurement], folder: Path) -> dict[str, Path]:
    panels = {
        'Whole tick, all modalities new and decoded': _whole_ticks(rows),
        'Camera image published to answer received': [
            row for row in rows if row.section == 'node' and row.percentiles_ms
        ],
    }
    panels = {title: chosen for title, chosen in panels.items() if chosen}
    if not panels:
        return {}
    figure = _figure(4.8 * len(panels), 3.8)
    for panel, (title, chosen) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items()
    ):
        colours = dict(zip(dict.fromkeys(row.engine for row in chosen), cycle(COLOURS)))
        for row in chosen:
            assert row.percentiles_ms is not None
            style = '--' if row.threads == 1 else '-'
            colour = colours[row.engine]
            panel.plot(row.percentiles_ms, PERCENTS, style, color=colour, label=_name(row))
        _rules(panel, 'ms', '% of calls that take no longer')
        panel.set_xscale('log')
        _plain_numbers(panel.xaxis)
        panel.set_ylim(0, 100)
        panel.axhline(50, color=FAINT, linewidth=0.6, linestyle=':')
        panel.set_title(title, fontsize=9, color=INK, loc='left')
        _legend(panel)
    return {'Distribution of latencies': _write(figure, folder, LATENCY)}


def _whole_ticks(rows: Sequence[Measurement]) -> list[Measurement]:
    """Those of the peers too, measured in turn with them; else those of the engines alone."""
    for section in ('peers', 'engine'):
        found = [r for r in rows if (r.section, r.case) == (section, 'full_tick')]
        most = max((row.modalities for row in found), default=0)
        chosen = [row for row in found if row.modalities == most and row.percentiles_ms]
        if chosen:
            return chosen
    return []


def _name(row: Measurement) -> str:
    if row.section == 'node':
        return f'{row.case.replace("_", " ")} ({row.engine})'
    return f'{row.engine}, {row.threads} thread{"" if row.threads == 1 else "s"}'


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout='constrained', dpi=DPI)


def _rules(panel: Any, x: str, y: str) -> None:
    panel.set_xlabel(x, fontsize=8)
    panel.set_ylabel(y, fontsize=8)
    panel.tick_params(labelsize=8, which='both')
    panel.grid(color='#e5e5e5', which='both', linewidth=0.6)
    panel.set_axisbelow(True)
    for side in ('top', 'right'):
        panel.spines[side].set_visible(False)


def _legend(panel: Any) -> None:
    """Below the panel, where no curve runs."""
    place = {'loc': 'upper center', 'bbox_to_anchor': (0.5, -0.14)}
    panel.legend(fontsize=8, frameon=False, ncols=2, **place)


def _plain_numbers(axis: Any) -> None:
    """Label a logarithmic axis at 1, 2 and 5."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
    axis.set_minor_formatter(NullFormatter())


def _write(figure: Figure, folder: Path, name: str) -> Path:
    file = folder / f'{name}.png'
    figure.savefig(file)
    return file
