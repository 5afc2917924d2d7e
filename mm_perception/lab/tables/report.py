"""The figures of a table, ours beside the paper's, as Markdown and as JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mm_perception.evaluation.coherence import versions
from mm_perception.evaluation.generation import Row
from mm_perception.lab.tables.runner import Results
from mm_perception.lab.tables.table import Column, Table
from mm_perception.lab.tables.trial import Trial
from mm_perception.markdown import markdown_table

NO_TARGET = '-'
Figure = tuple[float, ...]
"""Mean over seeds, and standard deviation over them unless there is one; empty: none."""


class Line(NamedTuple):
    """
    A line of a table.

    :param target: what is generated, or ``-`` where the table is not by target.
    :param figures: ours, by column; those that were not measured are absent.
    """

    dataset: str
    variant: str
    target: str
    figures: Mapping[str, Figure]


def lines_of(results: Results) -> list[Line]:
    """All lines of a table, in its order."""
    table = results.table
    rows = [
        (found['dataset'], found['variant'], [_row(plain) for plain in found['rows']])
        for found in results.found
    ]
    lines = []
    for dataset in table.datasets:
        names = results.names(dataset)
        for variant in table.variants:
            mine = [part for d, v, part in rows if (d, v) == (dataset, variant)]
            for target in names if table.by_target else (NO_TARGET,):
                known = {k: _figure(mine, c, target, names) for k, c in table.columns.items()}
                figures = {key: figure for key, figure in known.items() if figure}
                if figures:
                    lines.append(Line(dataset, variant, target, figures))
    return lines


def json_content(results: Results) -> dict[str, Any]:
    """All rows, each complete in itself, for machines."""
    model = ('family', 'variant', 'dataset', 'bundle', 'seed')
    training = ('dataset', 'variant', 'seed', 'training_seconds', 'seconds')
    return {
        'table': results.table.name,
        'scale': results.options.scale,
        'rows': [
            {**{key: found[key] for key in model}, 'test_set': results.table.split, **row}
            for found in results.found
            for row in found['rows']
        ],
        'classifier_accuracy': results.accuracy,
        'training': [{key: found[key] for key in training} for found in results.found],
        'versions': versions(),
        'seconds': round(results.seconds, 1),
    }


def markdown(results: Results, pictures: Mapping[str, Path], at: Path) -> str:
    """
    Write a table down.

    :param pictures: files by title.
    :param at: folder of the Markdown file, from which pictures are linked.
    """
    table, lines = results.table, lines_of(results)
    parts = [f'## {table.title}', '', *_about(results), '']
    for dataset in table.datasets:
        if len(table.datasets) > 1:
            parts += [f'### {dataset}', '']
        parts += _grids(table, [line for line in lines if line.dataset == dataset])
    parts += [*(f'- {note}' for note in table.notes), '']
    for title, file in pictures.items():
        parts += [f'![{title}]({Path(os.path.relpath(file, at)).as_posix()})', '']
    training = [
        [
            trial.folder.name,
            found['family'],
            _epochs(trial),
            f'{sum(found["training_seconds"].values()):.0f}',
            f'{found["seconds"]["measure"]:.0f}',
        ]
        for trial, found in zip(results.trials, results.found)
        if found['seed'] == 0
    ]
    heads = ['trained', 'family', 'epochs', 'training (s)', 'measuring (s)']
    return '\n'.join([*parts, *markdown_table(heads, training)]) + '\n'


def paper_figure(table: Table, line: Line, column: str) -> Figure:
    """What the paper reports for a line and a column, if it does."""
    by_variant = table.paper.get(line.dataset, {})
    return by_variant.get(line.variant, {}).get(line.target, {}).get(column, ())


def _row(plain: Mapping[str, Any]) -> Row:
    return Row(**{**plain, 'observed': tuple(plain['observed'])})


def _figure(
    by_seed: Sequence[Sequence[Row]], column: Column, target: str, names: Sequence[str]
) -> Figure:
    asked = [
        [r.value for r in rows if column.holds(r, names) and target in (NO_TARGET, r.target)]
        for rows in by_seed
    ]
    values = [column.factor * float(np.mean(part)) for part in asked if part]
    if len(values) < 2:
        return tuple(values)
    return float(np.mean(values)), float(np.std(values, ddof=1))


def _about(results: Results) -> list[str]:
    table, options = results.table, results.options
    scale = table.scale(options.scale)
    seeds = options.seeds or scale.seeds
    flags = '' if options.scale == 'default' else f' --scale {options.scale}'
    limit = f'; at most {options.epochs} epochs' if options.epochs else ''
    rows = f'{scale.rows:,}' if scale.rows else 'all'
    tests = f'{scale.test_rows:,}' if scale.test_rows else 'all'
    paper = ' The paper: mean ± spread of its runs.' if table.paper else ''
    accuracy = [
        f'{name} {100 * value:.1f} % ({dataset})'
        for dataset, by_name in results.accuracy.items()
        for name, value in by_name.items()
    ]
    read = f'The classifiers read real {table.split} data with {", ".join(accuracy)}.'
    return [
        f'`mm-perception evaluate --table {table.name}{flags}`. {table.source}; ours is the mean'
        f' over {seeds} {"seed" if seeds == 1 else "seeds, ± the standard deviation over them"};'
        f' {rows} training rows, {tests} {table.split} rows{limit}.{paper}',
        *(['', read] if accuracy else []),
    ]


def _grids(table: Table, lines: Sequence[Line]) -> list[str]:
    """One grid for all columns, or one per metric."""
    metrics = dict.fromkeys(column.metric for column in table.columns.values())
    apart = table.by_target or table.by_metric
    parts = []
    for group in [{metric} for metric in metrics] if apart else [set(metrics)]:
        columns = {k: c for k, c in table.columns.items() if c.metric in group}
        parts += [*_grid(table, [x for x in lines if x.figures.keys() & columns], columns), '']
    return parts


def _grid(table: Table, lines: Sequence[Line], columns: Mapping[str, Column]) -> list[str]:
    reported = {key for line in lines for key in columns if paper_figure(table, line, key)}
    heads = ['model', *(['target'] if table.by_target else [])]
    for key, column in columns.items():
        heads += [column.title, *(['paper'] if key in reported else [])]
    grid = []
    for line in lines:
        cells = [table.variants[line.variant].title, *([line.target] if table.by_target else [])]
        for key, column in columns.items():
            cells.append(_text(line.figures.get(key, ()), column))
            if key in reported:
                cells.append(_text(paper_figure(table, line, key), column))
        grid.append(cells)
    return markdown_table(heads, grid)


def _text(figure: Figure, column: Column) -> str:
    """As in a table, such as ``93.4 ± 1.2``."""
    return ' ± '.join(f'{value:.{column.digits}f}' for value in figure)


def _epochs(trial: Trial) -> str:
    if trial.bundle:
        return 'as shipped'
    spec = trial.spec
    stages = [f'{name} {spec.unimodal[name].epochs}' for name in trial.unimodal]
    stages.append(f'top {spec.top.epochs}' if stages else f'{spec.top.epochs}')
    if any(modality.data_weight for modality in spec.model.modalities):
        stages.append(f'refinement {spec.refinement.epochs}')
    return ', '.join(stages)
