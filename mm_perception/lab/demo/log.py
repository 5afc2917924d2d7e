"""Phases of a demonstration, and what a consumer of the topics received in them."""

from __future__ import annotations

import bisect
import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

FAULT = 'silent'
PRESENT_S, BACK_S = 2.5, 2.0
SINGLE_S, GROUP_S, QUICK_S = 6.5, 1.3, 2.0
MARGIN_S = 0.2


@dataclass(frozen=True)
class Phase:
    """
    A time in which the same sensors are out.

    :param missing: names of modalities, in the order of the model.
    :param start_s: from the start of the schedule.
    :param duration_s: all of it, until the next phase begins.
    """

    missing: tuple[str, ...]
    start_s: float
    duration_s: float

    @property
    def name(self) -> str:
        """What happens, in words."""
        return ' + '.join(self.missing) + ' out' if self.missing else 'all present'

    @property
    def end_s(self) -> float:
        """When the next phase begins."""
        return self.start_s + self.duration_s


def plan_phases(
    max_age_s: Mapping[str, float], scale: float = 1.0, quick: bool = False
) -> tuple[Phase, ...]:
    """
    Plan phases in which every proper subset of the sensors is out once.

    One sensor fails or returns at a time (a Gray code). A failure counts from when its last
    value is stale, so a phase is longer by that; sensors whose values stay fresh the longest
    change least often.

    :param max_age_s: per modality how long a value stays fresh.
    :param scale: of all durations but that wait.
    :param quick: only one sensor is out at a time, and briefly.
    """
    quick_first = sorted(max_age_s, key=lambda name: max_age_s[name])
    phases = [Phase((), 0.0, PRESENT_S * scale)]
    for missing in _walk(quick_first):
        if quick and len(missing) > 1:
            continue
        before = phases[-1].missing
        wait_s = max((max_age_s[m] + MARGIN_S for m in missing if m not in before), default=0.0)
        scored_s = QUICK_S if quick else SINGLE_S if len(missing) == 1 else GROUP_S
        ordered = tuple(name for name in max_age_s if name in missing)
        phases.append(Phase(ordered, phases[-1].end_s, wait_s + scored_s * scale))
    return (*phases, Phase((), phases[-1].end_s, BACK_S * scale))


def _walk(names: Sequence[str]) -> list[set[str]]:
    """All non-empty proper subsets; neighbours differ in one name (but for the full set)."""
    codes = [number ^ (number >> 1) for number in range(1, 2 ** len(names))]
    subsets = [{name for k, name in enumerate(names) if code >> k & 1} for code in codes]
    return [subset for subset in subsets if len(subset) < len(names)]


def schedule_json(phases: Sequence[Phase]) -> str:
    """Write phases as the schedule of a replay node."""
    entries = []
    for phase in phases:
        entry = asdict(phase)
        entries.append({'sensors': entry.pop('missing'), **entry, 'phase': phase.name})
    return json.dumps([{**entry, 'fault': FAULT} for entry in entries])


def phase_at(phases: Sequence[Phase], elapsed_s: float) -> Phase | None:
    """Phase at a time since the start of the schedule, or None outside of it."""
    return next((p for p in phases if p.start_s <= elapsed_s < p.end_s), None)


ROUNDING_NS = 200_000  # ages come in tenths of milliseconds


@dataclass
class Received:
    """
    A message as it came.

    :param receipt_ns: when, on the clock of the stamps.
    :param stamp_ns: of its header; None if it has none.
    :param message: as received; read on demand.
    :param shows: what the independent reader takes it for; empty until it was read.
    """

    receipt_ns: int
    stamp_ns: int | None
    message: Any = None
    shows: str = ''


@dataclass(frozen=True)
class Status:
    """
    What the node said about its modalities in one tick.

    :param stamp_ns: of the newest input that took part.
    :param states: per modality.
    :param ages_ms: per modality that ever had a value, at the time of the tick.
    :param used: modalities that took part.
    """

    receipt_ns: int
    stamp_ns: int
    states: Mapping[str, str]
    ages_ms: Mapping[str, float]
    used: frozenset[str]

    @property
    def tick_ns(self) -> int:
        """Time of the tick."""
        ages = [self.ages_ms[name] for name in self.used if name in self.ages_ms]
        return self.stamp_ns + round(min(ages, default=0.0) * 1e6)

    def data_ns(self, name: str) -> int:
        """Time of a modality's value."""
        return self.tick_ns - round(self.ages_ms[name] * 1e6)


@dataclass(frozen=True)
class Showing:
    """A recording while it is on show: a digit, or an episode of a robot."""

    index: int
    label: str
    start_ns: int


@dataclass
class Log:
    """Everything received so far. Appended to by one thread; entries never move."""

    latents: list[Received] = field(default_factory=list)
    statuses: list[Status] = field(default_factory=list)
    generated: dict[str, list[Received]] = field(default_factory=lambda: defaultdict(list))
    filled: dict[str, list[Received]] = field(default_factory=lambda: defaultdict(list))
    showings: list[Showing] = field(default_factory=list)
    schedule_start_ns: int | None = None
    model_info: Mapping[str, Any] = field(default_factory=dict)

    def showing_at(self, time_ns: int) -> Showing | None:
        """What is on show at a time."""
        starts = [showing.start_ns for showing in self.showings]
        position = bisect.bisect_right(starts, time_ns + ROUNDING_NS)
        return self.showings[position - 1] if position else None

    def elapsed_s(self, time_ns: int) -> float:
        """Seconds from the start of the schedule; negative before it is known."""
        start_ns = self.schedule_start_ns
        return -1.0 if start_ns is None else (time_ns - start_ns) * 1e-9


@dataclass(frozen=True)
class Tick:
    """
    What one fusion gave.

    :param showing: what is on show, if all used values stem from it; None if any is older.
    :param generated: per modality what was generated of it.
    :param filled: per modality what was sent as its filled value.
    """

    status: Status
    latent: Received
    showing: Showing | None
    generated: Mapping[str, Received]
    filled: Mapping[str, Received]

    @property
    def label(self) -> str:
        """Label of what is on show, empty if there is nothing."""
        return self.showing.label if self.showing else ''

    def shows(self, missing: Collection[str]) -> bool:
        """Whether just these took no part and all of them were generated, of one recording."""
        used = self.status.states.keys() - set(missing)
        generated = self.generated.keys() >= set(missing)
        return self.showing is not None and self.status.used == used and generated


def gather_ticks(log: Log, names: Sequence[str], period_s: float) -> list[Tick]:
    """
    Put together what was published together.

    :param period_s: between ticks; what came within half of it and has the same stamp (or
        none) belongs to a tick, and what was filled in last; a sensor's own stamps are another's.
    """
    within_ns = round(0.5e9 * period_s)
    ticks = []
    for status in list(log.statuses):
        latent = _match(log.latents, status, within_ns)
        if latent is None:
            continue
        times_ns = [status.tick_ns, *(status.data_ns(name) for name in status.used)]
        showings = {log.showing_at(time_ns) for time_ns in times_ns}
        generated, filled = (
            {n: found for n in names if (found := match(entries[n], status, within_ns, n))}
            for entries, match in ((log.generated, _match), (log.filled, _newest))
        )
        showing = showings.pop() if len(showings) == 1 else None
        ticks.append(Tick(status, latent, showing, generated, filled))
    return ticks


def _newest(entries: list[Received], status: Status, within_ns: int, name: str) -> Received | None:
    """Newest entry at a status: what a sensor sent may be older, what was generated is new."""
    end_ns = status.receipt_ns + within_ns
    end = bisect.bisect_right(entries, end_ns, key=lambda entry: entry.receipt_ns)
    if not end:
        return None
    newest = entries[end - 1]
    new = newest.receipt_ns >= status.receipt_ns - within_ns
    return newest if new or name in status.used else None


def _match(
    entries: list[Received], status: Status, within_ns: int, name: str = ''
) -> Received | None:
    """Entry closest in time to a status among those that can belong to it."""
    begin = bisect.bisect_left(
        entries, status.receipt_ns - within_ns, key=lambda entry: entry.receipt_ns
    )
    candidates = []
    for entry in entries[begin:]:
        if entry.receipt_ns > status.receipt_ns + within_ns:
            break
        if entry.stamp_ns in (None, status.stamp_ns):
            candidates.append(entry)
    return min(candidates, key=lambda e: abs(e.receipt_ns - status.receipt_ns), default=None)
