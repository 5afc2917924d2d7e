"""What a consumer of the node's topics received, and how it belongs together."""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
class Digit:
    """A recording while it is on show."""

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
    digits: list[Digit] = field(default_factory=list)
    schedule_start_ns: int | None = None
    model_info: Mapping[str, Any] = field(default_factory=dict)

    def digit_at(self, time_ns: int) -> Digit | None:
        """Digit on show at a time."""
        starts = [digit.start_ns for digit in self.digits]
        position = bisect.bisect_right(starts, time_ns + ROUNDING_NS)
        return self.digits[position - 1] if position else None

    def elapsed_s(self, time_ns: int) -> float:
        """Seconds from the start of the schedule; negative before it is known."""
        start_ns = self.schedule_start_ns
        return -1.0 if start_ns is None else (time_ns - start_ns) * 1e-9


@dataclass(frozen=True)
class Tick:
    """
    What one fusion gave.

    :param digit: the digit on show, if all used values stem from it; None if any is older.
    :param generated: per modality what was generated of it.
    """

    status: Status
    latent: Received
    digit: Digit | None
    generated: Mapping[str, Received]


def gather_ticks(log: Log, names: Sequence[str], period_s: float) -> list[Tick]:
    """
    Put together what was published together.

    :param period_s: between ticks; what came within half of it and has the same stamp (or
        none) belongs to a tick.
    """
    within_ns = round(0.5e9 * period_s)
    ticks = []
    for status in list(log.statuses):
        latent = _match(log.latents, status, within_ns)
        if latent is None:
            continue
        times_ns = [status.tick_ns, *(status.data_ns(name) for name in status.used)]
        digits = {log.digit_at(time_ns) for time_ns in times_ns}
        generated = {
            name: found
            for name in names
            if (found := _match(log.generated[name], status, within_ns)) is not None
        }
        digit = digits.pop() if len(digits) == 1 else None
        ticks.append(Tick(status, latent, digit, generated))
    return ticks


def find_filled(log: Log, name: str, tick: Tick, period_s: float) -> Received | None:
    """Find what ``filled/<name>`` gave in a tick."""
    return _match(log.filled[name], tick.status, round(0.5e9 * period_s))


def _match(entries: list[Received], status: Status, within_ns: int) -> Received | None:
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
