"""Measurements of a benchmark, its options, and how calls are timed alternately."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypeVar

import numpy as np
from tqdm import tqdm

PERCENTS = tuple(range(101))
Repeats = Sequence[np.ndarray] | np.ndarray
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
class Measurement:
    """
    A latency (``p50_ms``, ``p99_ms``) or another figure (``value``, ``unit``): a row of the JSON.

    :param repeats: how often it was measured over again.
    :param spread: lowest and highest of the repeats' medians (ms) or values.
    :param percentiles_ms: percentiles 0 to 100 of all durations, where their distribution counts.
    :param section: of the benchmark.
    """

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
    section: str = ''

    @property
    def key(self) -> Case:
        """What was measured."""
        return Case(self.case, self.engine, self.threads, self.modalities)

    @property
    def main(self) -> float:
        """The figure that counts: the value, or the median latency (ms)."""
        main = self.value if self.p50_ms is None else self.p50_ms
        assert main is not None
        return main

    def plain(self) -> dict[str, Any]:
        """As data for JSON; what does not apply is left out."""
        names = {'p50_ms', 'p99_ms'} if self.value is None else {'value', 'unit'}
        names |= {'section', 'case', 'engine', 'threads', 'modalities', 'repeats'}
        plain = {'section': self.section} | {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: v for k, v in plain.items() if k in names or v not in (None, '')}


def read_measurement(plain: Mapping[str, Any]) -> Measurement:
    """Undo :meth:`Measurement.plain`."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
    return Measurement(**values)


def latency(case: Case, repeats: Repeats, distribution: bool = False) -> Measurement:
    """
    Latency of a case: percentiles over all calls of all repeats.

    :param distribution: keep the percentiles for a picture.
    """
    durations_ms = np.concatenate(list(repeats))
    p50, p99 = np.percentile(durations_ms, (50, 99))
    medians = [np.median(durations) for durations in repeats]
    every = np.percentile(durations_ms, PERCENTS) if distribution else ()
    return Measurement(
        *case,
        p50_ms=_short(p50),
        p99_ms=_short(p99),
        repeats=len(repeats),
        spread=(_short(min(medians)), _short(max(medians))),
        percentiles_ms=tuple(_short(value) for value in every) or None,
    )


def figure(case: Case, values: Sequence[float] | np.ndarray, unit: str) -> Measurement:
    """
    Another figure of a case: the median over the repeats.

    :param values: one per repeat.
    """
    return Measurement(
        *case,
        value=_short(np.median(values)),
        unit=unit,
        repeats=len(values),
        spread=(_short(np.min(values)), _short(np.max(values))),
    )


def ratio(
    case: Case, over: Repeats, under: Repeats, percents: tuple[int, int] = (50, 50)
) -> Measurement:
    """
    Ratio of two latencies, taken repeat by repeat.

    What slows the machine for a while slows both alike, and drops out.

    :param over: measured alternately with ``under``.
    :param percents: which percentile of the one is divided by which of the other.
    """
    above = np.array([np.percentile(durations, percents[0]) for durations in over])
    below = np.array([np.percentile(durations, percents[1]) for durations in under])
    return figure(case, above / below, 'ratio')


def _short(value: Any) -> float:
    return float(f'{float(value):.5g}')


Result = tuple[list[Measurement], list[str]]
"""What a section gives: measurements, and what could not be measured and why."""

FIRST_CALLS = 3
Key = TypeVar('Key')
TimedCase = Callable[[int], np.ndarray]
"""Makes a number of calls; gives the duration of each, ``float[calls]`` in ms."""
Cases = dict[Case, TimedCase]


def clocked(call: Callable[[], object]) -> TimedCase:
    """Time every call but the first ones, which find other data in the caches."""

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
    cases: Mapping[Key, TimedCase], repeats: int, calls: int, title: str
) -> dict[Key, np.ndarray]:
    """
    Let every case make its calls in every repeat, each time in another order.

    :param title: of the progress bar.
    :returns: ``float[repeats, calls]`` per case (ms).
    """
    keys = list(cases)
    durations_ms = {key: np.empty((repeats, calls)) for key in keys}
    with tqdm(total=repeats * len(keys), desc=f'{title:>9}', unit='case', leave=False) as bar:
        for repeat in range(repeats):
            first = repeat % len(keys)
            for key in keys[first:] + keys[:first]:
                durations_ms[key][repeat] = cases[key](calls)
                bar.update()
    return durations_ms
