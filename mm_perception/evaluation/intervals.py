"""How often intervals hold, by sensor and time since the loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from mm_perception.evaluation.judgement import OutageRow

LOW, HIGH = 0.87, 0.93


class Coverage(NamedTuple):
    """
    Share of the values that lie within their intervals.

    :param exact: share of those that an interval of no width would hold.
    """

    share: float
    exact: float

    @property
    def most(self) -> float:
        """Of what is not exact, 93 % at most."""
        return self.exact + HIGH * (1.0 - self.exact)

    @property
    def holds(self) -> bool:
        """Whether the share is what it should be."""
        return LOW <= self.share <= self.most + 1e-3


def coverages(rows: Iterable[OutageRow], method: str) -> Mapping[tuple[str, float], Coverage]:
    """By target and age, over all subsets of the others; of rows that have intervals."""
    groups: dict[tuple[str, float], list[tuple[float, float, int]]] = {}
    for row in rows:
        if row.method == method and row.coverage90 is not None:
            cell = (row.coverage90, row.exact or 0.0, row.n)
            groups.setdefault((row.target, row.age_s), []).append(cell)
    return {key: _pooled(np.array(cells)) for key, cells in groups.items()}


def _pooled(cells: np.ndarray) -> Coverage:
    share, exact = np.average(cells[:, :2], axis=0, weights=cells[:, 2])
    return Coverage(float(share), float(exact))


def intervals_in_words(rows: Iterable[OutageRow], method: str) -> list[str]:
    """One line, if the method has intervals."""
    known = list(rows)
    found = coverages(known, method).values()
    if not found:
        return []
    shares = [coverage.share for coverage in found]
    inside = np.mean([coverage.holds for coverage in found])
    alone = [
        Coverage(row.coverage90, row.exact or 0.0)
        for row in known
        if row.method == method and row.coverage90 is not None
    ]
    return [
        f'- Intervals of 90 % hold {100 * min(shares):.0f} to {100 * max(shares):.0f} % of the'
        f' values by sensor and time since the loss, {100 * np.mean(shares):.0f} % in the mean.'
        f' {100 * inside:.0f} % of these shares lie within 87 to 93 %, the values that are held'
        f' exactly set aside above; cell by cell {100 * np.mean([c.holds for c in alone]):.0f} %.'
    ]
