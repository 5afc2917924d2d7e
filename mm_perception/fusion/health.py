"""Whether a modality can be used: thresholds, stream statistics, states. Knows no ROS."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from mm_perception.modalities import Stamped
from mm_perception.modalities.base import (
    BLACK,
    CLIPPED,
    FROZEN,
    HOLES,
    OUT_OF_RANGE,
    SATURATED,
    SILENT,
    STILL,
    Fault,
    Thresholds,
    Trace,
)

FUTURE, BACKWARDS, MALFORMED, FLAPPING = 'future', 'backwards', 'malformed', 'flapping'
UNREADABLE = 'cannot be read'  # begins the reason where ours is the fault
TOLERABLE = (FROZEN, STILL, SILENT, BLACK, SATURATED, CLIPPED, HOLES, OUT_OF_RANGE)
WHEN_SILENT, WHEN_HOLD, WHEN_PRIOR = 'silent', 'hold', 'prior'
WHEN_NOTHING = (WHEN_SILENT, WHEN_HOLD, WHEN_PRIOR)


@dataclass(frozen=True)
class Limits:
    """
    Thresholds of one modality.

    :param max_age_s: age (by header time) up to which a value is fresh.
    :param hold: use a stale value still, rather than none.
    :param future_s: how far a stamp may lie in the future.
    :param backwards_s: how far a stamp may lie before the last one.
    """

    enabled: bool
    max_age_s: float
    hold: bool
    future_s: float
    backwards_s: float = 0.5


@dataclass(frozen=True)
class Checks:
    """
    Thresholds of all modalities; 0 switches a check off.

    :param frozen_s: how long equal data may repeat while other sensors change.
    :param silent_s: how long a microphone may give nothing but zeros.
    :param thresholds: of complete values.
    :param tolerate: faults that are reported but take nothing out.
    :param flaps: dropouts within ``flap_s`` that hold a modality out.
    :param steady_s: how long it must be well to come back then.
    :param agreement: compare the modalities with each other.
    :param exclude_inconsistent: leave out the one that the others contradict.
    :param inconsistent_s: how long they must contradict it.
    """

    frozen_s: float = 0.7
    silent_s: float = 0.7
    thresholds: Thresholds = field(default_factory=Thresholds)
    tolerate: frozenset[str] = frozenset()
    flaps: int = 5
    flap_s: float = 5.0
    steady_s: float = 2.0
    agreement: bool = True
    exclude_inconsistent: bool = True
    inconsistent_s: float = 0.5

    def stuck_s(self, fault: str) -> float:
        """How long equal data may repeat before it is this fault; 0: for ever."""
        return {FROZEN: self.frozen_s, STILL: self.frozen_s, SILENT: self.silent_s}.get(fault, 0.0)


@dataclass(frozen=True)
class StreamStatistics:
    """
    When messages came; times in nanoseconds on the node's clock, None before the first.

    :param received_ns: newest message.
    :param since_ns: first of the messages whose data equals the newest.
    :param changed_ns: newest message whose data differed from the one before.
    :param stamp_ns: stamp of the newest message that could be read.
    :param trace: of that message.
    :param backwards_s: how far stamps jumped back and have not caught up; 0: they did not.
    """

    received_ns: int | None = None
    since_ns: int | None = None
    changed_ns: int | None = None
    stamp_ns: int | None = None
    trace: Trace | None = None
    backwards_s: float = 0.0


USUAL_LIMITS = Limits(enabled=True, max_age_s=1.0, hold=False, future_s=0.5)


@dataclass(frozen=True)
class Reading:
    """
    What the input of one modality says now.

    :param value: newest complete value, or None.
    :param refused: why the last message was refused; empty if it was not.
    :param fault: the same in one word.
    :param signs: what its messages show, where they were looked at.
    """

    value: Stamped | None
    refused: str = ''
    fault: str = ''
    signs: StreamStatistics = field(default_factory=StreamStatistics)


def future_reason(ahead_s: float) -> str:
    """Say that a stamp lies in the future, and what to do."""
    return f'stamped {ahead_s:.3g} s in the future; compare clocks and use_sim_time'


class Tracker:
    """Follows the messages of one sensor."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all messages."""
        self.signs = StreamStatistics()
        self._furthest_ns: int | None = None

    def arrive(self, now_ns: int) -> None:
        """A message came, of whatever quality."""
        self.signs = replace(self.signs, received_ns=now_ns)

    def read(self, trace: Trace, stamp_ns: int, now_ns: int, backwards_s: float) -> float:
        """
        Take what a readable message showed.

        :param backwards_s: how far its stamp may lie before the last one.
        :returns: how far it jumped back beyond that, in seconds; 0 if it did not.
        """
        signs = self.signs
        jump_s = 0.0
        if signs.stamp_ns is not None and signs.stamp_ns - stamp_ns > backwards_s * 1e9:
            jump_s = (signs.stamp_ns - stamp_ns) * 1e-9
            if self._furthest_ns is None:
                self._furthest_ns = signs.stamp_ns
        if self._furthest_ns is not None and stamp_ns >= self._furthest_ns:
            self._furthest_ns = None
        behind_s = 0.0 if self._furthest_ns is None else (self._furthest_ns - stamp_ns) * 1e-9
        first = signs.trace is None
        same = signs.trace is not None and trace.mark == signs.trace.mark
        self.signs = replace(
            signs,
            since_ns=signs.since_ns if same else now_ns,
            changed_ns=signs.changed_ns if same or first else now_ns,
            stamp_ns=stamp_ns,
            trace=trace,
            backwards_s=behind_s,
        )
        return jump_s


class ClockWatch:
    """
    Notices a clock that is set back, as simulated time is when it starts again.

    :param tolerance_s: steps back that do not count.
    """

    def __init__(self, tolerance_s: float = 0.1) -> None:
        self._tolerance_ns = int(tolerance_s * 1e9)
        self._newest_ns: int | None = None

    def look(self, now_ns: int) -> float:
        """How far the clock went back since the last look, in seconds; 0 if it did not."""
        newest_ns = now_ns if self._newest_ns is None else self._newest_ns
        self._newest_ns = now_ns
        return (newest_ns - now_ns) * 1e-9 if newest_ns - now_ns > self._tolerance_ns else 0.0


SETTLE = 0.5


class State(str, Enum):
    """State of a modality, as in ``~/status``."""

    WAITING = 'waiting'
    OK = 'ok'
    STALE = 'stale'
    REJECTED = 'rejected'
    INCONSISTENT = 'inconsistent'
    DISABLED = 'disabled'


@dataclass(frozen=True)
class Verdict:
    """
    How a modality stands.

    :param used: whether it takes part in the fusion.
    :param age_s: age of its newest value; None before the first.
    :param reason: one line, empty if all is well.
    :param fault: what is wrong, in one word, where the state does not say it.
    :param surprise: how far the others contradict it, 1 being too far; None if not compared.
    """

    state: State
    used: bool
    age_s: float | None = None
    reason: str = ''
    fault: str = ''
    surprise: float | None = None


def judge(reading: Reading | None, limits: Limits, now_ns: int) -> Verdict:
    """Judge a modality by its newest reading: switched off, refused, missing or old."""
    reading = reading or Reading(None)
    value, signs = reading.value, reading.signs
    age_s = None if value is None else (now_ns - value.stamp_ns) * 1e-9
    if not limits.enabled:
        return Verdict(
            State.DISABLED, False, age_s, 'switched off, by its parameter enabled or by ~/enable'
        )
    quiet_s = 0.0 if signs.received_ns is None else (now_ns - signs.received_ns) * 1e-9
    if reading.refused and quiet_s <= limits.max_age_s:
        return Verdict(State.REJECTED, False, age_s, reading.refused, reading.fault or MALFORMED)
    if age_s is None:
        return _missing(signs, limits, now_ns)
    if age_s < -limits.future_s:
        return Verdict(State.REJECTED, False, age_s, future_reason(-age_s), FUTURE)
    if age_s > limits.max_age_s:
        reason = f'{age_s:.3g} s old, max_age_s is {limits.max_age_s:.3g}{_turned(signs)}'
        fault = BACKWARDS if signs.backwards_s else ''
        return Verdict(State.STALE, limits.hold, age_s, reason, fault)
    return Verdict(State.OK, True, age_s)


def find_stuck(name: str, signs: Mapping[str, StreamStatistics], checks: Checks) -> Fault | None:
    """
    Find out whether a sensor gives exactly the same data again and again.

    :param signs: of all modalities.
    """
    own = signs[name]
    if own.trace is None or own.received_ns is None or own.since_ns is None:
        return None
    limit_s = checks.stuck_s(own.trace.fault)
    stuck_s = (own.received_ns - own.since_ns) * 1e-9
    if not 0.0 < limit_s <= stuck_s:
        return None
    # What changed soon after it may only have been a little behind.
    settled_ns = own.since_ns + int(SETTLE * limit_s * 1e9)
    moving = [n for n, s in signs.items() if n != name and (s.changed_ns or 0) > settled_ns]
    if not (own.trace.alone or moving):
        return None
    others = '' if own.trace.alone else f' while {", ".join(moving)} changed'
    return Fault(
        own.trace.fault,
        f'{own.trace.fault}: exactly the same data for {stuck_s:.2g} s{others}; look at the'
        ' sensor and its driver',
    )


def _missing(signs: StreamStatistics, limits: Limits, now_ns: int) -> Verdict:
    if signs.stamp_ns is not None and (now_ns - signs.stamp_ns) * 1e-9 > limits.max_age_s:
        lag_s = (now_ns - signs.stamp_ns) * 1e-9
        reason = f'its newest message is stamped {lag_s:.3g} s ago{_turned(signs)}'
        return Verdict(State.STALE, False, None, reason, BACKWARDS if signs.backwards_s else '')
    return Verdict(State.WAITING, False, None, 'nothing complete received yet')


def _turned(signs: StreamStatistics) -> str:
    if not signs.backwards_s:
        return ''
    return f'; its stamps ran backwards by {signs.backwards_s:.3g} s: compare clocks'


class Steadiness:
    """
    Keeps a modality out that comes and goes, until it has been well for a while.

    A dropout is a tick at which the modality is missing after one at which it was there; the
    first ``flaps - 1`` within ``flap_s`` cost nothing, so that a fault that ends is over at once.
    """

    def __init__(self) -> None:
        self._dropouts_s: deque[float] = deque()
        self._was_well = False
        self._well_since_s = 0.0
        self._held = False

    def holds_out(self, well: bool, now_s: float, checks: Checks) -> bool:
        """
        Take how the modality is at a tick; whether it must be left out although it is well.

        :param well: whether it could be used.
        """
        if well and not self._was_well:
            self._well_since_s = now_s
        if self._was_well and not well:
            self._dropouts_s.append(now_s)
        self._was_well = well
        while self._dropouts_s and now_s - self._dropouts_s[0] > checks.flap_s:
            self._dropouts_s.popleft()
        if checks.flaps and len(self._dropouts_s) >= checks.flaps:
            self._held = True
        if self._held and well and now_s - self._well_since_s >= checks.steady_s:
            self._held = False
            self._dropouts_s.clear()
        self._held = self._held and checks.flaps > 0
        return self._held and well
