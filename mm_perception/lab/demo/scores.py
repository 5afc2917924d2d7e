"""Figures of a demonstration, from what was received; in the form of summary.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mm_perception.lab.demo.judge import Criterion, Figures
from mm_perception.lab.demo.log import FAULT, Log, Phase, Received, Tick, phase_at

PUBLISHED = 0.95
RATE_TOLERANCE = 0.05


def ticks_by_phase(
    log: Log, ticks: Iterable[Tick], phases: Sequence[Phase]
) -> dict[Phase, list[Tick]]:
    """Sort ticks into the phases in which they happened."""
    sorted_in: dict[Phase, list[Tick]] = {phase: [] for phase in phases}
    for tick in ticks:
        phase = phase_at(phases, log.elapsed_s(tick.status.tick_ns))
        if phase is not None:
            sorted_in[phase].append(tick)
    return sorted_in


FiguresOf = Callable[[str, Sequence[Tick]], dict[str, Any]]
CriteriaOf = Callable[[str, Figures], list[Criterion]]


def score_phase(
    phase: Phase, ticks: Sequence[Tick], names: Sequence[str], figures_of: FiguresOf
) -> dict[str, Any]:
    """
    Figures of one phase.

    Counted from when the node no longer uses a modality; judged only in ticks in which
    everything that is used, and just what should be, is of the same recording.

    :param figures_of: judges such ticks of a modality.
    """
    expected = frozenset(names) - frozenset(phase.missing)
    exact = [tick for tick in ticks if tick.status.used == expected]
    settled = [tick for tick in exact if tick.showing is not None]
    return {
        'name': phase.name,
        'missing': list(phase.missing),
        'fault': FAULT if phase.missing else None,
        'start_s': round(phase.start_s, 2),
        'seconds': round(phase.duration_s, 2),
        'latents': len(ticks),
        'settled_fraction': _share(len(settled), len(exact)),
        'modalities': {
            name: _score_modality(name, ticks, settled, figures_of) for name in phase.missing
        },
    }


def _score_modality(
    name: str, ticks: Sequence[Tick], settled: Sequence[Tick], figures_of: FiguresOf
) -> dict[str, Any]:
    unused = [tick for tick in ticks if name not in tick.status.used]
    published = [tick for tick in unused if name in tick.generated]
    scored = [tick for tick in settled if name in tick.generated]
    states = Counter(tick.status.states[name] for tick in unused)
    return {
        'published_fraction': _share(len(published), len(unused)),
        'state': states.most_common(1)[0][0] if states else None,
        'n': len(scored),
        **figures_of(name, scored),
    }


def rate_hz(entries: Sequence[Received]) -> float | None:
    """Mean rate of receipt."""
    if len(entries) < 2:
        return None
    return (len(entries) - 1) / ((entries[-1].receipt_ns - entries[0].receipt_ns) * 1e-9)


def latency_ms(latents: Iterable[Received]) -> dict[str, float] | None:
    """
    Time from the stamp of the newest input to the receipt of the first latent that has it.

    Later latents of the same input tell its age, not the node's speed.
    """
    values, newest_ns = [], 0
    for latent in latents:
        if latent.stamp_ns is not None and latent.stamp_ns > newest_ns:
            newest_ns = latent.stamp_ns
            values.append((latent.receipt_ns - latent.stamp_ns) * 1e-6)
    if not values:
        return None
    p50, p99 = np.percentile(values, (50, 99))
    return {'p50': round(float(p50), 2), 'p99': round(float(p99), 2)}


def one_sensor_out(phases: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Figures of each modality when it alone is missing."""
    return {
        phase['missing'][0]: phase['modalities'][phase['missing'][0]]
        for phase in phases
        if len(phase['missing']) == 1
    }


def targets(
    singles: Mapping[str, Figures],
    criteria_of: CriteriaOf,
    measured_hz: float | None,
    wanted_hz: float,
) -> list[Criterion]:
    """What has to be reached; ``criteria_of`` says it of the figures of a modality."""
    result = []
    for name, scores in singles.items():
        result += criteria_of(name, scores)
        published = scores['published_fraction']
        result.append(Criterion(f'published fraction of {name}', published, PUBLISHED))
    low, high = ((1 + sign * RATE_TOLERANCE) * wanted_hz for sign in (-1, 1))
    return [*result, Criterion('latent rate (Hz)', measured_hz, low, high)]


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
