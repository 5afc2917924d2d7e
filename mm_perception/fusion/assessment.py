"""How every modality stands at a tick, and what of it can be used. Knows no ROS."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from mm_perception.errors import InvalidInput
from mm_perception.fusion.consistency import Doubt, Judgement, Lasting
from mm_perception.fusion.health import (
    FLAPPING,
    MALFORMED,
    UNREADABLE,
    Checks,
    Limits,
    Reading,
    State,
    Steadiness,
    StreamStatistics,
    Verdict,
    find_stuck,
    judge,
)
from mm_perception.modalities import Modality, Stamped
from mm_perception.modalities.base import Fault


@dataclass(frozen=True)
class Assessment:
    """
    How the modalities stand.

    :param observed: model arrays of those that can be used.
    :param stamp_ns: of the newest value among these; None if there is none.
    :param disagree: whether they contradict each other and none can be blamed.
    """

    verdicts: dict[str, Verdict]
    observed: dict[str, np.ndarray]
    stamp_ns: int | None
    disagree: bool


@dataclass(frozen=True)
class _Prepared:
    """A value made ready: its model array, or what keeps it from being used."""

    value: Stamped
    checks: Checks
    array: np.ndarray | None
    fault: Fault | None


class Consumer(Protocol):
    """Where new values go: a session, or what gathers a dataset."""

    def update(self, name: str, array: np.ndarray) -> None:
        """Take new data of a modality."""

    def judge(self, present: Collection[str]) -> Judgement | None:
        """Say whether the present modalities agree; None if that is not known."""


class Assessor:
    """
    Watches the modalities from tick to tick; used by one thread at a time.

    :param modalities: of the bundle.
    :param statistics: of the training data, per modality; empty if they are not known.
    :param session: takes the new data, and compares the modalities.
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality[Any]],
        statistics: Mapping[str, Any],
        session: Consumer,
    ) -> None:
        self._modalities = modalities
        self._session = session
        self._usual_std = {
            name: float(statistics.get(name, {}).get('std', 0.25)) for name in modalities
        }
        self._prepared: dict[str, _Prepared] = {}
        self.forget()

    def forget(self) -> None:
        """Forget how the modalities were, as after a jump in time."""
        self._steadiness = {name: Steadiness() for name in self._modalities}
        self._doubts = {name: Doubt() for name in self._modalities}
        self._disagreement = Lasting()

    def survey(
        self,
        readings: Mapping[str, Reading | None],
        limits: Mapping[str, Limits],
        checks: Checks,
        now_ns: int,
    ) -> Assessment:
        """
        Judge every modality.

        :param readings: newest reading per modality.
        :param limits: thresholds per modality.
        :param checks: thresholds of all.
        :param now_ns: time of the tick, on the clock of the stamps.
        """
        signs = {name: reading.signs for name, reading in readings.items() if reading}
        verdicts = {}
        for name in self._modalities:
            verdict = judge(readings[name], limits[name], now_ns)
            verdict = self._if_faulty(name, verdict, readings[name], checks)
            verdict = self._if_stuck(name, verdict, signs, limits[name], checks, now_ns)
            verdicts[name] = self._if_flapping(name, verdict, checks, now_ns * 1e-9)
        used = [name for name, verdict in verdicts.items() if verdict.used]
        disagree = self._compare(used, verdicts, checks, now_ns * 1e-9)
        ready = {n: self._prepared[n] for n, verdict in verdicts.items() if verdict.used}
        observed = {name: p.array for name, p in ready.items() if p.array is not None}
        stamp_ns = max((p.value.stamp_ns for p in ready.values()), default=None)
        return Assessment(verdicts, observed, stamp_ns, disagree)

    def _if_stuck(
        self,
        name: str,
        verdict: Verdict,
        signs: Mapping[str, StreamStatistics],
        limits: Limits,
        checks: Checks,
        now_ns: int,
    ) -> Verdict:
        """Name a sensor whose messages still come but never change."""
        if verdict.state in (State.DISABLED, State.REJECTED) or name not in signs:
            return verdict
        received_ns = signs[name].received_ns
        if received_ns is None or (now_ns - received_ns) * 1e-9 > limits.max_age_s:
            return verdict
        return _with_fault(verdict, find_stuck(name, signs, checks), checks)

    def _if_faulty(
        self, name: str, verdict: Verdict, reading: Reading | None, checks: Checks
    ) -> Verdict:
        """Make the value ready, and reject it if it is not what the model can use."""
        if not verdict.used or reading is None or reading.value is None:
            return verdict
        known = self._prepared.get(name)
        if known is None or known.value is not reading.value or known.checks is not checks:
            known = self._prepared[name] = self._prepare(name, reading.value, checks)
        if known.array is None and known.fault is not None:
            reason, fault = known.fault.reason, known.fault.name
            return replace(verdict, state=State.REJECTED, used=False, reason=reason, fault=fault)
        return _with_fault(verdict, known.fault, checks)

    def _prepare(self, name: str, value: Stamped, checks: Checks) -> _Prepared:
        modality = self._modalities[name]
        thresholds = replace(checks.thresholds, usual_std=self._usual_std[name])
        try:
            array = modality.to_model(value.raw)
            self._session.update(name, array)
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
        return replace(verdict, state=State.REJECTED, used=False, reason=reason, fault=FLAPPING)

    def _compare(
        self, used: list[str], verdicts: dict[str, Verdict], checks: Checks, now_s: float
    ) -> bool:
        """Flag what the others contradict; whether they disagree and none is to blame."""
        judgement = self._session.judge(used) if checks.agreement and len(used) > 1 else None
        if judgement is None:
            self._doubts = {name: Doubt() for name in self._modalities}
            self._disagreement = Lasting()
            return False
        blamed = []
        for name in used:
            surprise = judgement.surprise.get(name, 0.0)
            verdicts[name] = replace(verdicts[name], surprise=surprise)
            if self._doubts[name].blames(
                self._prepared[name].value,
                surprise,
                judgement.contradicted == name,
                now_s,
                checks.inconsistent_s,
            ):
                blamed.append(name)
        exclude = checks.exclude_inconsistent and len(blamed) < len(used)
        for name in blamed:
            others = ', '.join(other for other in used if other not in blamed)
            verdicts[name] = replace(
                verdicts[name],
                state=State.INCONSISTENT,
                used=not exclude,
                reason=f'contradicts {others or "the others"}; look at what it points at',
            )
        return self._disagreement.lasts(judgement.disagree, now_s, checks.inconsistent_s)


def _with_fault(verdict: Verdict, fault: Fault | None, checks: Checks) -> Verdict:
    """Reject for a fault, or only name it if it is tolerated."""
    if fault is None:
        return verdict
    if fault.name in checks.tolerate:
        return replace(verdict, fault=fault.name, reason=fault.reason)
    return replace(
        verdict, state=State.REJECTED, used=False, reason=fault.reason, fault=fault.name
    )
