"""Markdown that a user reads: tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(heads: Sequence[str], rows: Iterable[Iterable[object]]) -> list[str]:
    """
    Write a table.

    :param heads: titles of the columns.
    :param rows: cells of each line, as text or as what ``str`` makes of them.
    :returns: lines without line ends; a bar within a cell is escaped.
    """
    return [_line(heads), '|---' * len(heads) + '|', *map(_line, rows)]


def _line(cells: Iterable[object]) -> str:
    escaped = (str(cell).replace('|', r'\|') for cell in cells)
    return f'| {" | ".join(escaped)} |'
