"""
The protocol of outages: a sensor is lost, and its value is wanted some time later.

A query is a pair of rows of one recording: ``lost``, the last with a good value of the target, and
``now``, the row to fill in. A method may use rows of any modality up to ``lost``, and those of the
observed modalities up to ``now``; nothing else.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from mm_perception.data.dataset import Dataset, Recording
from mm_perception.modalities.base import Array

AGES_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
QUERIES = 250
"""Of one target, subset and age; drawn evenly where there are more."""
FEWEST = 10
"""Queries below which a figure would tell nothing."""
OFF = 0.25
"""How far the rows' distance in time may be from the age, in parts of it."""


class Method(Protocol):
    """What fills in for a lost sensor."""

    name: str

    def fit(self, dataset: Dataset) -> None:
        """Learn from the recordings of a dataset."""
        ...

    def predict(
        self,
        dataset: Dataset,
        target: str,
        observed: tuple[str, ...],
        lost: np.ndarray,
        now: np.ndarray,
    ) -> Array:
        """
        Fill in a lost modality.

        :param observed: the modalities that still work.
        :param lost: row of the last good value of each query, ``int[Q]``.
        :param now: row to fill in, ``int[Q]``.
        :returns: ``float32[Q, *shape]``.
        """
        ...


@runtime_checkable
class HasIntervals(Protocol):
    """A method that also says how far off it may be."""

    def interval(
        self,
        dataset: Dataset,
        target: str,
        observed: tuple[str, ...],
        lost: np.ndarray,
        now: np.ndarray,
    ) -> tuple[Array, Array]:
        """
        Fill in, and say within how much of it the truth lies 9 times in 10.

        :returns: value and half of the interval, ``float32[Q, *shape]`` each.
        """
        ...


@dataclass(frozen=True)
class Outage:
    """
    Queries of one target, observed modalities and age.

    :param age_s: time from the last good value, nominal.
    :param lost: ``int[Q]``; ``now``: ``int[Q]``.
    """

    target: str
    observed: tuple[str, ...]
    age_s: float
    lost: np.ndarray
    now: np.ndarray


def tick_s(dataset: Dataset) -> float:
    """Usual time between two rows, in seconds; infinity if no recording has two."""
    steps = [np.diff(r.time_s) for r in dataset.recordings()]
    together = np.concatenate(steps) if steps else np.zeros(0)
    return float(np.median(together)) if len(together) else float('inf')


def pairs(
    dataset: Dataset,
    age_s: float,
    kept: Sequence[str] = (),
    lost: Sequence[str] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """
    Rows of one recording that lie an age apart, with no gap in time between them.

    :param kept: modalities that must be present in all rows from the first to the second.
    :param lost: modalities that must be present in the first and in the second.
    :returns: first and second rows, ``int64[K]`` each; none if the rate is too low for the age.
    """
    tick = tick_s(dataset)
    steps = max(1, round(age_s / tick))
    if abs(steps * tick - age_s) > OFF * age_s:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    parts = [_pairs(dataset, r, steps, tick, kept, lost) for r in dataset.recordings()]
    first, second = (np.concatenate(p) for p in zip(*parts))
    return first, second


def _pairs(
    dataset: Dataset,
    recording: Recording,
    steps: int,
    tick: float,
    kept: Sequence[str],
    lost: Sequence[str],
) -> tuple[np.ndarray, np.ndarray]:
    rows, time = recording.rows, recording.time_s
    if len(rows) <= steps:
        return rows[:0], rows[:0]
    first, second = rows[:-steps], rows[steps:]
    good = np.abs(time[steps:] - time[:-steps] - steps * tick) < tick / 2
    for name in kept:
        absent = np.cumsum(np.r_[0, ~dataset.present[rows, dataset.names.index(name)]])
        good &= absent[steps + 1 :] == absent[: -steps - 1]
    for name in lost:
        present = dataset.present[:, dataset.names.index(name)]
        good &= present[first] & present[second]
    return first[good], second[good]


def previous_rows(dataset: Dataset) -> np.ndarray:
    """Row before each one in its recording, ``int64[N]``; of a recording's first row, itself."""
    previous = np.arange(len(dataset))
    for recording in dataset.recordings():
        previous[recording.rows[1:]] = recording.rows[:-1]
    return previous


def draw_outage(
    dataset: Dataset, target: str, observed: tuple[str, ...], age_s: float
) -> Outage | None:
    """
    Queries of one target, subset and age, spread evenly over the recordings.

    The observed modalities are present all the time, the target at the loss and, as truth, now.

    :returns: None if there are too few to tell anything.
    """
    lost, now = pairs(dataset, age_s, observed, (target,))
    if len(now) < FEWEST:
        return None
    chosen = np.linspace(0, len(now) - 1, min(QUERIES, len(now))).round().astype(int)
    return Outage(target, observed, age_s, lost[chosen], now[chosen])


def outage_subsets(names: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """
    Targets with what is observed: all others, all but one more that is lost too, and each alone.

    :returns: target and observed modalities, in the order of ``names``.
    """
    result: dict[tuple[str, tuple[str, ...]], None] = {}
    for target in names:
        others = [name for name in names if name != target]
        for size in (len(others), len(others) - 1, 1):
            for subset in itertools.combinations(others, size) if size > 0 else ():
                result[target, subset] = None
    return list(result)
