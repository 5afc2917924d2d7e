"""Judging whether a modality can be used now."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from mm_perception.ros.slots import Reading


class State(str, Enum):
    """State of a modality, as in ``~/status``."""

    WAITING = 'waiting'
    OK = 'ok'
    STALE = 'stale'
    REJECTED = 'rejected'
    DISABLED = 'disabled'


@dataclass(frozen=True)
class Limits:
    """
    Thresholds of one modality.

    :param max_age_s: age (by header time) up to which a value is fresh.
    :param hold: use a stale value still, rather than none.
    :param future_s: how far a stamp may lie in the future.
    """

    enabled: bool
    max_age_s: float
    hold: bool
    future_s: float


@dataclass(frozen=True)
class Verdict:
    """
    How a modality stands.

    :param used: whether it takes part in the fusion.
    :param age_s: age of its newest value; None before the first.
    :param reason: one line, empty if all is well.
    """

    state: State
    used: bool
    age_s: float | None = None
    reason: str = ''


def judge(reading: Reading | None, limits: Limits, now_ns: int) -> Verdict:
    """Judge a modality by its newest reading."""
    value = reading.value if reading else None
    age_s = None if value is None else (now_ns - value.stamp_ns) * 1e-9
    if not limits.enabled:
        return Verdict(
            State.DISABLED, False, age_s, 'switched off, by its parameter enabled or by ~/enable'
        )
    if reading is not None and reading.refused:
        return Verdict(State.REJECTED, False, age_s, reading.refused)
    if age_s is None:
        return Verdict(State.WAITING, False, None, 'nothing complete received yet')
    if age_s < -limits.future_s:
        reason = f'stamped {-age_s:.3g} s in the future; compare clocks and use_sim_time'
        return Verdict(State.REJECTED, False, age_s, reason)
    if age_s > limits.max_age_s:
        reason = f'{age_s:.3g} s old, max_age_s is {limits.max_age_s:.3g}'
        return Verdict(State.STALE, limits.hold, age_s, reason)
    return Verdict(State.OK, True, age_s)
