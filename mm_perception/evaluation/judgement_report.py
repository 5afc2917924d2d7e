"""A judgement in words: tables for the model card, and what is not worth filling in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mm_perception.evaluation.intervals import intervals_in_words
from mm_perception.evaluation.judgement import (
    OURS,
    Cell,
    Judgement,
    OutageRow,
    most_observed,
    summary,
)
from mm_perception.markdown import markdown_table

HEAD = (
    'A sensor is lost, all others work: the error of what is filled in after that time. In'
    ' brackets: the ratio to the baseline that does best on the validation recordings.'
)


def judgement_report(judgement: Judgement) -> list[str]:
    """Lines of Markdown: errors by target and age, all methods in one figure, the remarks."""
    shown = shown_method(judgement)
    return [
        '## After a loss',
        '',
        HEAD,
        '',
        *error_table(judgement, shown),
        '',
        *sums_in_words(judgement, shown),
        '',
        *method_table(judgement),
        '',
        *not_worth_in_words(judgement, shown),
    ]


def shown_method(judgement: Judgement) -> str:
    """What a bundle fills in with: its memory, or without one what its model generates."""
    methods = [row.method for row in judgement.test]
    return OURS if OURS in methods else f'{OURS}:no_memory'


def error_table(judgement: Judgement, method: str = OURS) -> list[str]:
    """Error of a method by target and age, with the ratio to the best baseline of the cell."""
    ratios = judgement.ratios(method)
    first = [row for row in most_observed(judgement.test) if row.method == method]
    names = list(dict.fromkeys(row.target for row in first))
    ages = sorted({row.age_s for row in first})
    lines = []
    for name in names:
        mine = {row.age_s: row for row in first if row.target == name}
        unit = next(iter(mine.values())).unit
        cells = [_error(mine[age], ratios) if age in mine else '' for age in ages]
        lines.append([name, unit, *cells])
    return markdown_table(['target', 'unit', *(f'{age:g} s' for age in ages)], lines)


def _error(row: OutageRow, ratios: Mapping[Cell, float]) -> str:
    ratio = f' ({ratios[row.cell]:.2f})' if row.cell in ratios else ''
    return f'{row.error:.3g}{ratio}'


def method_table(judgement: Judgement) -> list[str]:
    """
    Ratio of each method to the best baseline, by how many sensors are lost.

    The geometric mean over the cells, and the worst cell.
    """
    methods = list(dict.fromkeys(row.method for row in judgement.test))
    found = {m: {part['lost']: part for part in summary(judgement, m)} for m in methods}
    groups = list(dict.fromkeys(lost for parts in found.values() for lost in parts))
    heads = ['method', *(f'{lost} lost: mean, worst' for lost in groups)]
    lines = [
        [method, *(_mean_and_worst(parts.get(lost)) for lost in groups)]
        for method, parts in found.items()
    ]
    return markdown_table(heads, lines)


def _mean_and_worst(part: Mapping[str, Any] | None) -> str:
    return f'{part["geometric_mean"]:.3f}, {part["worst"]:.2f}' if part else ''


def sums_in_words(judgement: Judgement, method: str = OURS) -> list[str]:
    """One line per number of sensors lost."""
    lines = []
    for part in summary(judgement, method):
        cell = part['worst_cell']
        lines.append(
            f'- {part["lost"]} lost, {part["cells"]} cells: geometric mean'
            f' {part["geometric_mean"]:.3f} of the best baseline;'
            f' {100 * part["within"]:.0f} % of the cells within 1.03; the worst'
            f' {part["worst"]:.2f} ({cell["target"]} from {", ".join(cell["observed"])} after'
            f' {cell["age_s"]:g} s).'
        )
    return [*lines, *intervals_in_words(judgement.test, method), *_jump(judgement, method)]


def _jump(judgement: Judgement, method: str) -> list[str]:
    rows = [row for row in judgement.test if row.method == method]
    jumps = [row.jump for row in rows if row.jump is not None]
    if not jumps:
        return []
    return [
        f'- In the first tick the value changes by up to {max(jumps):.2f} times what the sensor'
        ' usually does in a tick of these recordings.'
    ]


def not_worth_in_words(judgement: Judgement, method: str = OURS) -> list[str]:
    """What is as well held, or replaced by the mean, on the validation recordings."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for target, observed in judgement.not_worth(method):
        found.setdefault(target, []).append(observed)
    asked = {(row.target, row.observed) for row in judgement.validation if row.method == method}
    parts = []
    for target, subsets in found.items():
        everything = len(subsets) == sum(name == target for name, _ in asked)
        some = ', '.join(' + '.join(subset) for subset in subsets)
        parts.append(target if everything else f'{target} from {some}')
    if not parts:
        return []
    return [f'Not worth filling in, holding or the mean does as well: {"; ".join(parts)}.']
