"""The figures of a table, ours beside the paper's, as Markdown and as JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mm_perception.evaluation.coherence import versions
from mm_perception.lab.tables.runner import Outcome
from mm_perception.lab.tables.table import Column, Table
from mm_perception.lab.tables.trial import Job, found_rows

NO_TARGET = '-'


@dataclass(frozen=True)
class Estimate:
    """
    Mean over seeds.

    :param spread: standard deviation over seeds; None for a single one.
    """

    mean: float
    spread: float | None

    def text(self, digits: int) -> str:
        """As in a table, such as ``93.4 ± 1.2``."""
        spread = '' if self.spread is None else f' ± {self.spread:.{digits}f}'
        return f'{self.mean:.{digits}f}{spread}'


@dataclass(frozen=True)
class Line:
    """
    A line of a table.

    :param target: what is generated, or ``-`` where the table is not by target.
    :param figures: ours, by column; those that were not measured are absent.
    """

    dataset: str
    variant: str
    target: str
    figures: Mapping[str, Estimate]


def lines_of(outcome: Outcome) -> list[Line]:
    """All lines of a table, in its order."""
    table = outcome.plan.table
    lines = []
    for dataset, spec in outcome.plan.judges.items():
        names = spec.model.names
        for variant in table.variants:
            found = [
                f for f in outcome.found if (f['dataset'], f['variant']) == (dataset, variant)
            ]
            for target in names if table.by_target else (NO_TARGET,):
                figures = {
                    key: figure
                    for key, column in table.columns.items()
                    if (figure := _figure(found, column, target, names))
                }
                if figures:
                    lines.append(Line(dataset, variant, target, figures))
    return lines


def json_content(outcome: Outcome) -> dict[str, Any]:
    """All rows, each complete in itself, for machines."""
    rows = [
        {
            **{key: found[key] for key in ('family', 'variant', 'dataset', 'bundle', 'seed')},
            'test_set': outcome.plan.table.split,
            **row,
        }
        for found in outcome.found
        for row in found['rows']
    ]
    return {
        'table': outcome.plan.table.name,
        'scale': outcome.plan.settings.scale,
        'rows': rows,
        'classifier_accuracy': outcome.judged,
        'training': [_training(found) for found in outcome.found],
        'versions': versions(),
        'seconds': round(outcome.seconds, 1),
    }


def markdown(outcome: Outcome, pictures: Mapping[str, Path], at: Path) -> str:
    """
    Write a table down.

    :param pictures: files by title.
    :param at: folder of the Markdown file, from which pictures are linked.
    """
    table, lines = outcome.plan.table, lines_of(outcome)
    parts = [f'## {table.title}', '', *_about(outcome), '']
    for dataset in table.datasets:
        chosen = [line for line in lines if line.dataset == dataset]
        if len(table.datasets) > 1:
            parts += [f'### {dataset}', '']
        parts += _grids(table, chosen)
    parts += [*(f'- {note}' for note in table.notes), '']
    for title, file in pictures.items():
        parts += [f'![{title}]({Path(os.path.relpath(file, at)).as_posix()})', '']
    parts += _training_grid(outcome)
    return '\n'.join(parts) + '\n'


def _figure(
    found: Sequence[Mapping[str, Any]], column: Column, target: str, names: Sequence[str]
) -> Estimate | None:
    values = []
    for one in found:
        rows = [
            row.value
            for row in found_rows(one)
            if column.holds(row, names) and target in (NO_TARGET, row.target)
        ]
        if rows:
            values.append(column.factor * float(np.mean(rows)))
    if not values:
        return None
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Estimate(float(np.mean(values)), spread)


def paper_figure(table: Table, line: Line, column: str) -> Estimate | None:
    """What the paper reports for a line and a column, if it does."""
    by_variant = table.paper.get(line.dataset, {})
    reported = by_variant.get(line.variant, {}).get(line.target, {}).get(column)
    if reported is None:
        return None
    return Estimate(reported[0], reported[1] if len(reported) > 1 else None)


def _about(outcome: Outcome) -> list[str]:
    table, scale, settings = outcome.plan.table, outcome.plan.scale, outcome.plan.settings
    seeds = settings.seeds or scale.seeds
    flags = '' if settings.scale == 'default' else f' --scale {settings.scale}'
    limit = f'; at most {settings.epochs} epochs' if settings.epochs else ''
    rows = f'{scale.rows:,}' if scale.rows else 'all'
    tests = f'{scale.test_rows:,}' if scale.test_rows else 'all'
    paper = ' The paper: mean ± spread of its runs.' if table.paper else ''
    judged = [
        f'{name} {100 * value:.1f} % ({dataset})'
        for dataset, by_name in outcome.judged.items()
        for name, value in by_name.items()
    ]
    return [
        f'`mm-perception evaluate --table {table.name}{flags}`. {table.source}; ours is the mean'
        f' over {seeds} {"seed" if seeds == 1 else "seeds, ± the standard deviation over them"};'
        f' {rows} training rows, {tests} {table.split} rows{limit}.{paper}',
        *(
            ['', f'The classifiers read real {table.split} data with {", ".join(judged)}.']
            if judged
            else []
        ),
    ]


def _grids(table: Table, lines: Sequence[Line]) -> list[str]:
    """One grid for all columns, or one per metric."""
    metrics = dict.fromkeys(column.metric for column in table.columns.values())
    apart = table.by_target or table.by_metric
    groups = [{metric} for metric in metrics] if apart else [set(metrics)]
    parts = []
    for group in groups:
        columns = {k: c for k, c in table.columns.items() if c.metric in group}
        parts += [*_grid(table, [x for x in lines if x.figures.keys() & columns], columns), '']
    return parts


def _grid(table: Table, lines: Sequence[Line], columns: Mapping[str, Column]) -> list[str]:
    reported = {
        key for line in lines for key in columns if paper_figure(table, line, key) is not None
    }
    head = ['model', *(['target'] if table.by_target else [])]
    for key, column in columns.items():
        head += [column.title, *(['paper'] if key in reported else [])]
    grid = [_row(head), '|---' * len(head) + '|']
    for line in lines:
        cells = [table.variants[line.variant].title, *([line.target] if table.by_target else [])]
        for key, column in columns.items():
            cells.append(_text(line.figures.get(key), column))
            if key in reported:
                cells.append(_text(paper_figure(table, line, key), column))
        grid.append(_row(cells))
    return grid


def _text(figure: Estimate | None, column: Column) -> str:
    return '' if figure is None else figure.text(column.digits)


def _row(cells: Sequence[str]) -> str:
    return f'| {" | ".join(cell.replace("|", chr(92) + "|") for cell in cells)} |'


def _training_grid(outcome: Outcome) -> list[str]:
    lines = [
        '| trained | family | epochs | training (s) | measuring (s) |',
        '|---|---|---|---|---|',
    ]
    for job, found in zip(outcome.jobs, outcome.found):
        if found['seed'] == 0:
            seconds = found['seconds']
            lines.append(
                f'| {job.unit.folder.name} | {found["family"]} | {_epochs(job)} |'
                f' {sum(found["training_seconds"].values()):.0f} | {seconds["measure"]:.0f} |'
            )
    return lines


def _epochs(job: Job) -> str:
    if job.unit.bundle:
        return 'as shipped'
    unimodal = {name: job.spec.unimodal[name].epochs for name in job.unimodal}
    stages = [f'{name} {epochs}' for name, epochs in unimodal.items()]
    stages.append(f'top {job.spec.top.epochs}' if stages else f'{job.spec.top.epochs}')
    if any(modality.data_weight for modality in job.spec.model.modalities):
        stages.append(f'refinement {job.spec.refinement.epochs}')
    return ', '.join(stages)


def _training(found: Mapping[str, Any]) -> dict[str, Any]:
    keys = ('dataset', 'variant', 'seed', 'training_seconds', 'seconds')
    return {key: found[key] for key in keys}
