"""Sections ``engine``, ``scaling`` and ``peers``: what single ticks take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np

from mm_perception.lab.benchmark.measurements import (
    Case,
    Cases,
    Measurement,
    Result,
    figure,
    interleave,
    latency,
    ratio,
)
from mm_perception.lab.benchmark.options import Options
from mm_perception.lab.benchmark.remote import BenchmarkFailed, RemoteCases
from mm_perception.lab.benchmark.subjects import start_subjects

REFERENCE, GPU = 'torch', 'cuda'
PEER, PEER_SCRIPT = 'multivae', 'latency.py'
BATCH_CALLS, BATCH_REPEATS = 3, 5
FEW, MANY = 4, 32
"""Numbers of modalities between which growth is judged."""
Durations = Mapping[Case, np.ndarray]


def measure_engines(options: Options) -> Result:
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
    rows = [latency(c, d, c.case == 'full_tick') for c, d in ticks.items()]
    rows += tick_ratios(ticks)
    rows += [latency(case, durations) for case, durations in stages.items()]
    for case, durations in batches.items():
        size = int(case.case.rsplit('_', 1)[1])
        rows.append(figure(case, 1e3 * size / np.median(durations, axis=1), 'samples/s'))
    return rows, notes


def tick_ratios(ticks: Durations) -> list[Measurement]:
    """
    Give the ratios that have targets: to the reference, and of one engine's own ticks.

    The reference is eager torch, on a GPU for what runs there, with whichever number of threads
    makes it fastest.
    """
    count = max(case.modalities for case in ticks)
    whole = {c: d for c, d in ticks.items() if c.case == 'full_tick' and c.modalities == count}
    rows = []
    for case, full in whole.items():
        rows.append(ratio(case._replace(case='p99_over_p50'), full, full, (99, 50)))
        typical = ticks.get(case._replace(case='typical_tick', modalities=count - 1))
        if typical is not None:
            rows.append(ratio(case._replace(case='typical_over_full'), typical, full))
        name = f'{REFERENCE}-{GPU}' if GPU in case.engine else REFERENCE
        reference = fastest(whole, name)
        if reference is not None and case.engine != name:
            over_this = case._replace(case=f'{REFERENCE}_over_this')
            rows.append(ratio(over_this, reference, full))
    return rows


def measure_scaling(options: Options) -> Result:
    """Whole ticks, and ticks with one new modality, of models of more and more modalities."""
    threads = options.threads[0]
    start = [lambda: start_subjects('scaling', threads, counts=options.counts)]
    with _running(start) as (cases, notes):
        ticks = interleave(cases, options.repeats, -(-options.calls // 2), 'scaling')
    rows = [latency(case, durations) for case, durations in ticks.items()]
    return rows + growth_ratios(ticks), notes


def growth_ratios(ticks: Durations) -> list[Measurement]:
    """Give how many times longer a tick takes with 32 modalities than with 4."""
    rows = []
    for case, durations in ticks.items():
        few = ticks.get(case._replace(modalities=FEW))
        if few is not None and case.modalities == MANY:
            name = f'{case.case}:{MANY}_over_{FEW}'
            rows.append(ratio(case._replace(case=name), durations, few))
    return rows


def measure_peers(options: Options) -> Result:
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
        lambda t=t: RemoteCases([str(options.peers), str(script), options.bundle, str(t)], t)
        for t in options.threads
    ]
    with _running(starts) as (cases, notes):
        ticks = interleave(cases, options.repeats, options.calls, 'peers')
    rows = [latency(case, durations, True) for case, durations in ticks.items()]
    return rows + peer_ratios(ticks), notes


def peer_ratios(ticks: Durations) -> list[Measurement]:
    """Give how many times longer MultiVae takes, with whichever threads it is fastest."""
    peer = fastest(ticks, PEER)
    if peer is None:
        return []
    rows = []
    for case, durations in ticks.items():
        if case.engine != PEER:
            name = f'{PEER}_over_this'
            rows.append(ratio(case._replace(case=name), peer, durations))
            rows.append(ratio(case._replace(case=f'{name}:p99'), peer, durations, (99, 99)))
    return rows


def fastest(ticks: Durations, engine: str) -> np.ndarray | None:
    """Durations of an engine with the number of threads that gives the lowest median."""
    found = [durations for case, durations in ticks.items() if case.engine == engine]
    return min(found, key=np.median, default=None)


def _only(cases: Cases, part: str) -> Cases:
    return {case: c for case, c in cases.items() if part in case.case}


@contextmanager
def _running(
    starts: Sequence[Callable[[], RemoteCases]],
) -> Iterator[tuple[Cases, list[str]]]:
    """All cases of several processes, and what they say is missing."""
    cases: Cases = {}
    notes: dict[str, None] = {}
    with ExitStack() as stack:
        for start in starts:
            remote = stack.enter_context(start())
            cases |= remote.cases
            notes |= dict.fromkeys(remote.facts.get('missing', ()))
        yield cases, list(notes)
