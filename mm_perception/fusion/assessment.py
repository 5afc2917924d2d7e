"""How every modality stands at a tick, and what of it can be used. Knows no ROS."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mm_perception.errors import InvalidInput
from mm_perception.fusion.consistency import Doubt, Judgement, Lasting
from mm_perception.fusion.health import (
    BACKWARDS,
    FLAPPING,
    FUTURE,
    MALFORMED,
    UNREADABLE,
    Checks,
    Limits,
    State,
    Verdict,
)
from mm_perception.fusion.streams import Reading, StreamStatistics, future_reason
from mm_perception.modalities import Modality, Stamped
from mm_perception.modalities.base import FROZEN, SILENT, STILL, Array, Fault

NOTHING = Reading(None)
UPTIME_NS = 10 * 365 * 86_400_000_000_000
"""Stamps below ten years count from the start of something: nothing runs that long."""
OLD_S = 60.0
SETTLED_SHARE = 0.5
"""Of the time after which data is stuck: what changed before it may only have been behind."""


@dataclass(frozen=True)
class Assessment:
    """
    How the modalities stand.

    :param observed: model arrays of those that can be used; the same object for the same value.
    :param stamp_ns: of the newest value among these; None if there is none.
    :param disagree: whether they contradict each other and none can be blamed.
    :param switched_off: model arrays of those that are fresh but switched off, with which what
        fills in can be compared.
    """

    verdicts: dict[str, Verdict]
    observed: dict[str, Array]
    stamp_ns: int | None
    disagree: bool = False
    switched_off: dict[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class _Prepared:
    """A value made ready: its model array, or what keeps it from being used."""

    value: Stamped
    checks: Checks
    array: Array | None
    fault: Fault | None


class Assessor:
    """
    Judges the modalities from tick to tick; used by one thread at a time.

    :param modalities: of the bundle.
    :param statistics: of the training data, per modality; empty if they are not known.
    """

    def __init__(
        self, modalities: Mapping[str, Modality[Any]], statistics: Mapping[str, Any]
    ) -> None:
        self._modalities = modalities
        self._usual_std = {
            name: float(statistics.get(name, {}).get('std', 0.25)) for name in modalities
        }
        self._prepared: dict[str, _Prepared] = {}
        self.forget()

    def forget(self) -> None:
        """Forget how the modalities were, as after a jump in time."""
        self._steadiness = {name: Steadiness() for name in self._modalities}
        self._trust()

    def assess(
        self,
        readings: Mapping[str, Reading | None],
        limits: Mapping[str, Limits],
        checks: Checks,
        now_ns: int,
    ) -> Assessment:
        """
        Judge every modality by itself: its messages, its data, its history.

        :param readings: newest reading per modality.
        :param limits: thresholds per modality.
        :param checks: thresholds of all.
        :param now_ns: time of the tick, on the clock of the stamps.
        """
        streams = {name: reading.statistics for name, reading in readings.items() if reading}
        verdicts = {}
        for name in self._modalities:
            verdict = judge(readings[name], limits[name], now_ns)
            verdict = self._if_faulty(name, verdict, readings[name], checks)
            verdict = _if_stuck(name, verdict, streams, limits[name], checks, now_ns)
            verdicts[name] = self._if_flapping(name, verdict, checks, now_ns * 1e-9)
        off = [name for name in verdicts if _is_spare(verdicts[name], limits[name])]
        ready = {name: self._ready(name, readings[name], checks) for name in off}
        arrays = {name: p.array for name, p in ready.items() if p and p.array is not None}
        return self._assessment(verdicts, arrays)

    def compare(
        self, assessment: Assessment, judgement: Judgement | None, checks: Checks, now_ns: int
    ) -> Assessment:
        """
        Judge the modalities by each other: flag what the others contradict.

        :param judgement: of those that can be used; None if they were not compared.
        """
        if judgement is None:
            self._trust()
            return assessment
        verdicts, now_s = dict(assessment.verdicts), now_ns * 1e-9
        blamed = []
        stamps_s = {n: self._prepared[n].value.stamp_ns * 1e-9 for n in assessment.observed}
        for name in assessment.observed:
            surprise = judgement.surprise.get(name, 0.0)
            verdicts[name] = replace(verdicts[name], surprise=surprise)
            contradicted, value = judgement.contradicted == name, self._prepared[name].value
            doubt = self._doubts[name]
            others_s = sorted(s for other, s in stamps_s.items() if other != name)
            voted_s = others_s[-2] if len(others_s) > 1 else math.inf
            patience_s = checks.inconsistent_s
            if doubt.blames(value, surprise, contradicted, now_s, patience_s, voted_s):
                blamed.append(name)
        exclude = checks.exclude_inconsistent and len(blamed) < len(assessment.observed)
        for name in blamed:
            others = ', '.join(other for other in assessment.observed if other not in blamed)
            reason = f'contradicts {others or "the others"}; look at what it points at'
            verdicts[name] = replace(
                verdicts[name], state=State.INCONSISTENT, used=not exclude, reason=reason
            )
        disagree = self._disagreement.lasts(judgement.disagree, now_s, checks.inconsistent_s)
        return self._assessment(verdicts, assessment.switched_off, disagree)

    def _trust(self) -> None:
        self._doubts = {name: Doubt() for name in self._modalities}
        self._disagreement = Lasting()

    def _assessment(
        self, verdicts: dict[str, Verdict], off: dict[str, Array], disagree: bool = False
    ) -> Assessment:
        ready = {n: self._prepared[n] for n, verdict in verdicts.items() if verdict.used}
        observed = {name: p.array for name, p in ready.items() if p.array is not None}
        stamp_ns = max((p.value.stamp_ns for p in ready.values()), default=None)
        return Assessment(verdicts, observed, stamp_ns, disagree, off)

    def _if_faulty(
        self, name: str, verdict: Verdict, reading: Reading | None, checks: Checks
    ) -> Verdict:
        """Make the value ready, and reject it if it is not what the model can use."""
        known = self._ready(name, reading, checks) if verdict.used else None
        if known is None:
            return verdict
        if known.array is None and known.fault is not None:
            return _rejected(verdict, known.fault)
        return _with_fault(verdict, known.fault, checks)

    def _ready(self, name: str, reading: Reading | None, checks: Checks) -> _Prepared | None:
        """The newest value made ready, once; None if there is none."""
        if reading is None or reading.value is None:
            return None
        known = self._prepared.get(name)
        if known is None or known.value is not reading.value or known.checks is not checks:
            known = self._prepared[name] = self._prepare(name, reading.value, checks)
        return known

    def _prepare(self, name: str, value: Stamped, checks: Checks) -> _Prepared:
        modality = self._modalities[name]
        thresholds = replace(checks.thresholds, usual_std=self._usual_std[name])
        try:
            array = modality.to_model(value.raw)
            fault = modality.find_fault(value.raw, array, thresholds)
        except InvalidInput as error:
            return _Prepared(value, checks, None, Fault(error.fault, str(error)))
        except Exception as error:  # noqa: BLE001 - one sensor's data must not stop the others
            fault = Fault(MALFORMED, f'{UNREADABLE}: {error!r}')
            return _Prepared(value, checks, None, fault)
        return _Prepared(value, checks, array, fault)

    def _if_flapping(self, name: str, verdict: Verdict, checks: Checks, now_s: float) -> Verdict:
        if verdict.state is State.DISABLED:
            return verdict
        if not self._steadiness[name].holds_out(verdict.used, now_s, checks):
            return verdict
        reason = (
            f'came and went {checks.flaps} times within {checks.flap_s:.3g} s; out until it has'
            f' been well for {checks.steady_s:.3g} s; look at its cable and its driver'
        )
        return _rejected(verdict, Fault(FLAPPING, reason))


def _is_spare(verdict: Verdict, limits: Limits) -> bool:
    """Whether a modality is switched off while its sensor goes on."""
    fresh = verdict.age_s is not None and verdict.age_s <= limits.max_age_s
    return verdict.state is State.DISABLED and fresh


def judge(reading: Reading | None, limits: Limits, now_ns: int) -> Verdict:
    """Judge a modality by its newest reading: switched off, refused, missing or old."""
    reading = reading or NOTHING
    value, seen = reading.value, reading.statistics
    age_s = None if value is None else (now_ns - value.stamp_ns) * 1e-9
    if not limits.enabled:
        return Verdict(
            State.DISABLED, False, age_s, 'switched off, by its parameter enabled or by ~/enable'
        )
    quiet_s = 0.0 if seen.received_ns is None else (now_ns - seen.received_ns) * 1e-9
    if reading.refused and quiet_s <= limits.max_age_s:
        return Verdict(State.REJECTED, False, age_s, reading.refused, reading.fault or MALFORMED)
    if age_s is None:
        return _missing(reading, limits, now_ns)
    if age_s < -limits.future_s:
        return Verdict(State.REJECTED, False, age_s, future_reason(-age_s, now_ns), FUTURE)
    if age_s > limits.max_age_s:
        fault, why = _why_late(reading, limits, now_ns)
        reason = f'{age_s:.3g} s old, max_age_s is {limits.max_age_s:.3g}{why}'
        return Verdict(State.STALE, limits.hold, age_s, reason, fault)
    return Verdict(State.OK, True, age_s)


def find_stuck(name: str, streams: Mapping[str, StreamStatistics], checks: Checks) -> Fault | None:
    """
    Find out whether a sensor gives exactly the same data again and again.

    :param streams: of all modalities.
    """
    own = streams[name]
    if own.trace is None or own.received_ns is None or own.since_ns is None:
        return None
    fault = own.trace.fault
    limit_s = {FROZEN: checks.frozen_s, STILL: checks.frozen_s, SILENT: checks.silent_s}.get(
        fault, 0.0
    )
    stuck_s = (own.received_ns - own.since_ns) * 1e-9
    if not 0.0 < limit_s <= stuck_s:
        return None
    # What changed soon after it may only have been a little behind.
    settled_ns = own.since_ns + int(SETTLED_SHARE * limit_s * 1e9)
    moving = [n for n, s in streams.items() if n != name and (s.changed_ns or 0) > settled_ns]
    if not (own.trace.alone or moving):
        return None
    others = '' if own.trace.alone else f' while {", ".join(moving)} changed'
    return Fault(
        fault,
        f'{fault}: exactly the same data for {stuck_s:.2g} s{others}; look at the'
        ' sensor and its driver',
    )


def _missing(reading: Reading, limits: Limits, now_ns: int) -> Verdict:
    seen = reading.statistics
    fault, why = _why_late(reading, limits, now_ns)
    if seen.stamp_ns is not None and (now_ns - seen.stamp_ns) * 1e-9 > limits.max_age_s:
        lag_s = (now_ns - seen.stamp_ns) * 1e-9
        reason = f'its newest message is stamped {lag_s:.3g} s ago{why}'
        return Verdict(State.STALE, False, None, reason, fault)
    return Verdict(State.WAITING, False, None, f'nothing complete received yet{why}', fault)


def _why_late(reading: Reading, limits: Limits, now_ns: int) -> tuple[str, str]:
    """Why what is received gives no fresh value: the fault if it is one, and what to do."""
    seen = reading.statistics
    if seen.backwards_s:
        return BACKWARDS, f'; its stamps ran backwards by {seen.backwards_s:.3g} s: compare clocks'
    if reading.lacking:
        return '', f'; {reading.lacking}'
    lag_s = 0.0 if seen.stamp_ns is None else (now_ns - seen.stamp_ns) * 1e-9
    quiet_s = 0.0 if seen.received_ns is None else (now_ns - seen.received_ns) * 1e-9
    if lag_s <= limits.max_age_s or (reading.pending_fault and lag_s < OLD_S):
        return reading.pending_fault, f'; {reading.pending}' if reading.pending else ''
    if quiet_s > limits.max_age_s:
        return '', ''
    return '', f'; {_late_stamps(now_ns, lag_s)}'


def _late_stamps(now_ns: int, lag_s: float) -> str:
    """What to do about stamps that are old when their messages come."""
    if now_ns - lag_s * 1e9 < UPTIME_NS <= now_ns:
        return (
            'its stamps count from a start, not from 1970: let its driver stamp with the time of'
            ' the system, or set use_sim_time if they are of a simulation with a /clock'
        )
    if lag_s > OLD_S:
        return (
            'an old recording, or a clock that is set wrong: play bags with --clock and set'
            ' use_sim_time, or with mm-perception play --restamp, or set the clock of its machine'
        )
    return 'its messages come late: compare clocks, or raise its max_age_s'


def _if_stuck(
    name: str,
    verdict: Verdict,
    streams: Mapping[str, StreamStatistics],
    limits: Limits,
    checks: Checks,
    now_ns: int,
) -> Verdict:
    """Name a sensor whose messages still come but never change."""
    if verdict.state in (State.DISABLED, State.REJECTED) or name not in streams:
        return verdict
    received_ns = streams[name].received_ns
    if received_ns is None or (now_ns - received_ns) * 1e-9 > limits.max_age_s:
        return verdict
    own = replace(checks, frozen_s=limits.frozen_s) if limits.frozen_s else checks
    return _with_fault(verdict, find_stuck(name, streams, own), checks)


def _with_fault(verdict: Verdict, fault: Fault | None, checks: Checks) -> Verdict:
    """Reject for a fault, or only name it if it is tolerated."""
    if fault is None:
        return verdict
    if fault.name in checks.tolerate:
        return replace(verdict, fault=fault.name, reason=fault.reason)
    return _rejected(verdict, fault)


def _rejected(verdict: Verdict, fault: Fault) -> Verdict:
    return replace(
        verdict, state=State.REJECTED, used=False, reason=fault.reason, fault=fault.name
    )


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
