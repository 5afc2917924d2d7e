"""Judging whether a modality can be used now, by its messages alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from mm_perception.modalities.quality import Fault
from mm_perception.ros.checks import BACKWARDS, FUTURE, MALFORMED, Checks, Limits
from mm_perception.ros.signs import Signs
from mm_perception.ros.slots import Reading, future_reason

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


def find_stuck(name: str, signs: Mapping[str, Signs], checks: Checks) -> Fault | None:
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


def _missing(signs: Signs, limits: Limits, now_ns: int) -> Verdict:
    if signs.stamp_ns is not None and (now_ns - signs.stamp_ns) * 1e-9 > limits.max_age_s:
        lag_s = (now_ns - signs.stamp_ns) * 1e-9
        reason = f'its newest message is stamped {lag_s:.3g} s ago{_turned(signs)}'
        return Verdict(State.STALE, False, None, reason, BACKWARDS if signs.backwards_s else '')
    return Verdict(State.WAITING, False, None, 'nothing complete received yet')


def _turned(signs: Signs) -> str:
    if not signs.backwards_s:
        return ''
    return f'; its stamps ran backwards by {signs.backwards_s:.3g} s: compare clocks'
