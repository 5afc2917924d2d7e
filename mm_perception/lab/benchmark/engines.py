"""Sections ``engine``, ``scaling`` and ``peers``: what single ticks take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np

from mm_perception.lab.benchmark.options import Options
from mm_perception.lab.benchmark.remote import BenchmarkFailed, RemoteContestants
from mm_perception.lab.benchmark.rows import (
    Case,
    Measured,
    Row,
    TimedCase,
    interleave,
    latency_row,
    ratio_row,
    value_row,
)
from mm_perception.lab.benchmark.subjects import start_subjects

REFERENCE, GPU = 'torch', 'cuda'
PEER, PEER_SCRIPT = 'multivae', 'latency.py'
BATCH_CALLS, BATCH_REPEATS = 3, 5
FEW, MANY = 4, 32
"""Numbers of modalities between which growth is judged."""
TAIL = (99, 99)
Durations = Mapping[Case, np.ndarray]
Contestants = dict[Case, TimedCase]


def measure_engines(options: Options) -> Measured:
    """Ticks, stages and throughput of every engine, with every number of threads."""
    starts = [
        lambda t=t: start_subjects('engine', t, bundle=options.bundle, batches=options.batches)
        for t in options.threads
    ]
    few = min(options.repeats, BATCH_REPEATS)
    with _running(starts) as (all_, notes):
        ticks = interleave(_only(all_, '_tick'), options.repeats, options.calls, 'ticks')
        stages = interleave(_only(all_, 'stage:'), options.repeats, options.calls, 'stages')
        batches = interleave(_only(all_, 'throughput'), few, BATCH_CALLS, 'batches')
    rows = [latency_row('engine', c, d, c.case == 'full_tick') for c, d in ticks.items()]
    rows += tick_ratios(ticks)
    rows += [latency_row('engine', case, d) for case, d in stages.items()]
    for case, durations in batches.items():
        size = int(case.case.rsplit('_', 1)[1])
        rates = 1e3 * size / np.median(durations, axis=1)
        rows.append(value_row('engine', case, rates, 'samples/s'))
    return Measured(tuple(rows), notes)


def tick_ratios(ticks: Durations) -> list[Row]:
    """
    Rows of the ratios that have targets: to the reference, and of one engine's own ticks.

    The reference is eager torch, on a GPU for what runs there, with whichever number of threads
    makes it fastest.
    """
    count = max(case.modalities for case in ticks)
    whole = {c: d for c, d in ticks.items() if c.case == 'full_tick' and c.modalities == count}
    rows = []
    for case, full in whole.items():
        rows.append(_ratio('engine', 'p99_over_p50', case, full, full, (99, 50)))
        typical = ticks.get(case._replace(case='typical_tick', modalities=count - 1))
        if typical is not None:
            rows.append(_ratio('engine', 'typical_over_full', case, typical, full))
        name = f'{REFERENCE}-{GPU}' if GPU in case.engine else REFERENCE
        reference = fastest(whole, name)
        if reference is not None and case.engine != name:
            rows.append(_ratio('engine', f'{REFERENCE}_over_this', case, reference, full))
    return rows


def measure_scaling(options: Options) -> Measured:
    """Whole ticks, and ticks with one new modality, of models of more and more modalities."""
    threads = options.threads[0]
    start = [lambda: start_subjects('scaling', threads, counts=options.counts)]
    with _running(start) as (contestants, notes):
        ticks = interleave(contestants, options.repeats, -(-options.calls // 2), 'scaling')
    rows = [latency_row('scaling', case, durations) for case, durations in ticks.items()]
    return Measured((*rows, *growth_ratios(ticks)), notes)


def growth_ratios(ticks: Durations) -> list[Row]:
    """Rows of how many times longer a tick takes with 32 modalities than with 4."""
    rows = []
    for case, durations in ticks.items():
        few = ticks.get(case._replace(modalities=FEW))
        if few is not None and case.modalities == MANY:
            name = f'{case.case}:{MANY}_over_{FEW}'
            rows.append(ratio_row('scaling', case._replace(case=name), durations, few))
    return rows


def measure_peers(options: Options) -> Measured:
    """Whole ticks of the engines, and the same networks in MultiVae."""
    if not options.peers.is_file():
        raise BenchmarkFailed(
            f'{options.peers}: not there; checks/peers/install.sh makes the environment of'
            ' MultiVae, --peers names its python'
        )
    script = options.peers.absolute().parents[2] / PEER_SCRIPT
    starts = [
        lambda t=t: start_subjects('whole_ticks', t, bundle=options.bundle)
        for t in options.threads
    ]
    starts += [
        lambda t=t: RemoteContestants([str(options.peers), str(script), options.bundle, str(t)], t)
        for t in options.threads
    ]
    with _running(starts) as (contestants, notes):
        ticks = interleave(contestants, options.repeats, options.calls, 'peers')
    rows = [latency_row('peers', case, durations, True) for case, durations in ticks.items()]
    return Measured((*rows, *peer_ratios(ticks)), notes)


def peer_ratios(ticks: Durations) -> list[Row]:
    """Rows of how many times longer MultiVae takes, with whichever threads it is fastest."""
    peer = fastest(ticks, PEER)
    if peer is None:
        return []
    rows = []
    for case, durations in ticks.items():
        if case.engine != PEER:
            rows.append(_ratio('peers', f'{PEER}_over_this', case, peer, durations))
            rows.append(_ratio('peers', f'{PEER}_over_this:p99', case, peer, durations, TAIL))
    return rows


def fastest(ticks: Durations, engine: str) -> np.ndarray | None:
    """Durations of an engine with the number of threads that gives the lowest median."""
    found = [durations for case, durations in ticks.items() if case.engine == engine]
    return min(found, key=np.median, default=None)


def _ratio(
    section: str,
    name: str,
    case: Case,
    over: np.ndarray,
    under: np.ndarray,
    percents: tuple[int, int] = (50, 50),
) -> Row:
    return ratio_row(section, case._replace(case=name), over, under, percents)


def _only(contestants: Contestants, part: str) -> Contestants:
    return {case: c for case, c in contestants.items() if part in case.case}


@contextmanager
def _running(
    starts: Sequence[Callable[[], RemoteContestants]],
) -> Iterator[tuple[Contestants, tuple[str, ...]]]:
    """All contestants of several processes, and what they say is missing."""
    contestants: Contestants = {}
    notes: dict[str, None] = {}
    with ExitStack() as stack:
        for start in starts:
            remote = stack.enter_context(start())
            contestants |= remote.contestants
            notes |= dict.fromkeys(remote.facts.get('missing', ()))
        yield contestants, tuple(notes)
