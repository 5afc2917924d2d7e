"""Rows of a benchmark, its options, and how calls are timed in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypeVar

import numpy as np
from tqdm import tqdm

PERCENTS = tuple(range(101))
Turns = Sequence[np.ndarray] | np.ndarray
"""Durations of the calls of each repeat (ms)."""


class Case(NamedTuple):
    """
    What is measured.

    :param case: such as ``full_tick``, ``stage:fuse``.
    :param threads: of the engine; 0 where it has none of its own.
    :param modalities: how many are present; 0 where that means nothing.
    """

    case: str
    engine: str = ''
    threads: int = 0
    modalities: int = 0


@dataclass(frozen=True)
class Row:
    """
    A latency (``p50_ms``, ``p99_ms``) or another figure (``value``, ``unit``).

    :param repeats: how often it was measured over again.
    :param spread: lowest and highest of the repeats' medians (ms) or values.
    :param percentiles_ms: percentiles 0 to 100 of all durations, where their distribution counts.
    """

    section: str
    case: str
    engine: str = ''
    threads: int = 0
    modalities: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    value: float | None = None
    unit: str = ''
    repeats: int = 1
    spread: tuple[float, float] | None = None
    percentiles_ms: tuple[float, ...] | None = None

    @property
    def key(self) -> Case:
        """What was measured."""
        return Case(self.case, self.engine, self.threads, self.modalities)

    def plain(self) -> dict[str, Any]:
        """As data for JSON; what does not apply is left out."""
        names = {'p50_ms', 'p99_ms'} if self.value is None else {'value', 'unit'}
        names |= {'section', 'case', 'engine', 'threads', 'modalities', 'repeats'}
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: v for k, v in plain.items() if k in names or v not in (None, '')}


def read_row(plain: Mapping[str, Any]) -> Row:
    """Undo :meth:`Row.plain`."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
    return Row(**values)


def latency_row(section: str, case: Case, turns: Turns, distribution: bool = False) -> Row:
    """
    Row of a latency: percentiles over all calls of all repeats.

    :param distribution: keep the percentiles for a picture.
    """
    durations_ms = np.concatenate(list(turns))
    p50, p99 = np.percentile(durations_ms, (50, 99))
    medians = [np.median(turn) for turn in turns]
    every = np.percentile(durations_ms, PERCENTS) if distribution else ()
    return Row(
        section,
        *case,
        p50_ms=_short(p50),
        p99_ms=_short(p99),
        repeats=len(turns),
        spread=(_short(min(medians)), _short(max(medians))),
        percentiles_ms=tuple(_short(value) for value in every) or None,
    )


def value_row(section: str, case: Case, values: Sequence[float] | np.ndarray, unit: str) -> Row:
    """
    Row of another figure: the median over the repeats.

    :param values: one per repeat.
    """
    return Row(
        section,
        *case,
        value=_short(np.median(values)),
        unit=unit,
        repeats=len(values),
        spread=(_short(np.min(values)), _short(np.max(values))),
    )


def ratio_row(
    section: str,
    case: Case,
    over: Turns,
    under: Turns,
    percents: tuple[int, int] = (50, 50),
) -> Row:
    """
    Row of a ratio of two latencies, taken repeat by repeat.

    What slows the machine for a while slows both alike, and drops out.

    :param over: measured in turn with ``under``.
    :param percents: which percentile of the one is divided by which of the other.
    """
    above = np.array([np.percentile(turn, percents[0]) for turn in over])
    below = np.array([np.percentile(turn, percents[1]) for turn in under])
    return value_row(section, case, above / below, 'ratio')


def _short(value: Any) -> float:
    return float(f'{float(value):.5g}')


@dataclass(frozen=True)
class Measured:
    """
    What a section gives.

    :param notes: what could not be measured, and why; one sentence each.
    """

    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


FIRST_CALLS = 3
Key = TypeVar('Key')
TimedCase = Callable[[int], np.ndarray]
"""Makes a number of calls; gives the duration of each, ``float[calls]`` in ms."""


def clocked(call: Callable[[], object]) -> TimedCase:
    """Time every call; the first ones of a turn, which find other data in the caches, are not."""

    def measure(calls: int) -> np.ndarray:
        for _ in range(FIRST_CALLS):
            call()
        durations_ms = np.empty(calls)
        for k in range(calls):
            begin = time.perf_counter_ns()
            call()
            durations_ms[k] = (time.perf_counter_ns() - begin) * 1e-6
        return durations_ms

    return measure


def interleave(
    contestants: Mapping[Key, TimedCase], repeats: int, calls: int, title: str
) -> dict[Key, np.ndarray]:
    """
    Let every contestant make its calls in every repeat, each time in another order.

    :param title: of the progress bar.
    :returns: ``float[repeats, calls]`` per contestant (ms).
    """
    keys = list(contestants)
    durations_ms = {key: np.empty((repeats, calls)) for key in keys}
    with tqdm(total=repeats * len(keys), desc=f'{title:>9}', unit='turn', leave=False) as bar:
        for repeat in range(repeats):
            first = repeat % len(keys)
            for key in keys[first:] + keys[:first]:
                durations_ms[key][repeat] = contestants[key](calls)
                bar.update()
    return durations_ms
