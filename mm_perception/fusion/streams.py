"""One sensor's stream: from what messages carry to the newest complete value. Knows no ROS."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from mm_perception.errors import InvalidInput
from mm_perception.fusion.gathering import Gatherer, Named
from mm_perception.fusion.health import FUTURE, MALFORMED, UNREADABLE, Limits
from mm_perception.modalities import Modality, Stamped
from mm_perception.modalities.base import Trace

START_NS = 86_400_000_000_000
"""A clock below a day counts from a start: of a machine, a simulation or a bag; not from 1970."""


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


@dataclass(frozen=True)
class Reading:
    """
    What a stream says now.

    :param value: newest complete value, or None.
    :param refused: why the last message was refused; empty if it was not.
    :param fault: the same in one word.
    :param lacking: which named elements are not there or old; empty if none is.
    :param pending: what else a next value waits for; empty if that is not known.
    :param pending_fault: the same in one word, if it is a fault.
    """

    value: Stamped | None
    refused: str = ''
    fault: str = ''
    lacking: str = ''
    pending: str = ''
    pending_fault: str = ''
    statistics: StreamStatistics = field(default_factory=StreamStatistics)


@dataclass(frozen=True)
class Taken:
    """
    What became of a message.

    :param news: whether a value became complete, or messages began or ceased to be refused.
    :param refused: why it was refused; empty if it was not.
    :param defect: the exception, if the reason is a defect of ours.
    :param jump_s: how far its stamp ran backwards.
    """

    news: bool
    refused: str = ''
    defect: Exception | None = None
    jump_s: float = 0.0


class Tracker:
    """Follows the messages of one sensor."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all messages."""
        self.statistics = StreamStatistics()
        self._furthest_ns: int | None = None

    def arrive(self, now_ns: int) -> None:
        """Note that a message came, of whatever quality."""
        self.statistics = replace(self.statistics, received_ns=now_ns)

    def read(self, trace: Trace, stamp_ns: int, now_ns: int, backwards_s: float) -> float:
        """
        Take what a readable message showed.

        :param backwards_s: how far its stamp may lie before the last one.
        :returns: how far it jumped back beyond that, in seconds; 0 if it did not.
        """
        before = self.statistics
        jump_s = 0.0
        if before.stamp_ns is not None and before.stamp_ns - stamp_ns > backwards_s * 1e9:
            jump_s = (before.stamp_ns - stamp_ns) * 1e-9
            if self._furthest_ns is None:
                self._furthest_ns = before.stamp_ns
        if self._furthest_ns is not None and stamp_ns >= self._furthest_ns:
            self._furthest_ns = None
        behind_s = 0.0 if self._furthest_ns is None else (self._furthest_ns - stamp_ns) * 1e-9
        first = before.trace is None
        same = before.trace is not None and trace.mark == before.trace.mark
        self.statistics = replace(
            before,
            since_ns=before.since_ns if same else now_ns,
            changed_ns=before.changed_ns if same or first else now_ns,
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

    def step_back_s(self, now_ns: int) -> float:
        """How far the clock went back since the last call, in seconds; 0 if it did not."""
        newest_ns = now_ns if self._newest_ns is None else self._newest_ns
        self._newest_ns = now_ns
        return (newest_ns - now_ns) * 1e-9 if newest_ns - now_ns > self._tolerance_ns else 0.0


class Stream:
    """
    Gathers what a sensor sends in its modality's window; used by one thread at a time.

    :param modality: of the sensor.
    """

    def __init__(self, modality: Modality[Any]) -> None:
        self.modality = modality
        self.received = 0
        self.refused = 0
        self._tracker = Tracker()
        self._window = modality.new_window()
        self._gatherer = Gatherer()
        self._reading = Reading(None)

    def take(self, raw: Any, stamp_ns: int, now_ns: int, limits: Limits) -> Taken:
        """
        Take what a message carried; it never raises.

        :param raw: a raw value of the modality, or a piece of one; :class:`Named` elements are
            put in order, and gathered over messages.
        :param stamp_ns: time of the message's header.
        """
        self.received += 1
        try:
            ahead_s = (stamp_ns - now_ns) * 1e-9
            if ahead_s > limits.future_s:
                raise InvalidInput(future_reason(ahead_s, now_ns), FUTURE)
            if isinstance(raw, Named):
                gathered = self._gatherer.take(raw, stamp_ns, limits.max_age_s)
                if gathered is None:
                    return Taken(self._settle(self._reading.refused, self._reading.fault))
                raw, stamp_ns = gathered
            self._tracker.arrive(now_ns)
            jump_s = self._follow(raw, stamp_ns, now_ns, limits)
            self._window.push(raw, stamp_ns)
        except Exception as error:  # noqa: BLE001 - a message must not stop the node
            self._tracker.arrive(now_ns)
            return self._turn_away(error)
        return Taken(self._settle('', ''), jump_s=jump_s)

    def refuse(self, error: Exception, now_ns: int) -> Taken:
        """Take note of a message that could not be read."""
        self.received += 1
        self._tracker.arrive(now_ns)
        return self._turn_away(error)

    def advance(self, now_ns: int) -> bool:
        """Let time pass, for values that only silence completes; whether there is news."""
        self._window.advance(now_ns)
        return self._settle(self._reading.refused, self._reading.fault)

    def snapshot(self) -> Reading:
        """What it says now, with the statistics of its messages."""
        fault, pending = self._window.pending if self.received else ('', '')
        return replace(
            self._reading,
            statistics=self._tracker.statistics,
            lacking=self._gatherer.lacking,
            pending=pending,
            pending_fault=fault,
        )

    def clear(self) -> None:
        """Forget everything."""
        self._window.clear()
        self._tracker.clear()
        self._gatherer.forget()
        self._reading = Reading(None)

    def adopt(self, modality: Modality[Any]) -> None:
        """Go on with another configuration; what is under way is lost if its options differ."""
        if modality.plain_options() != self.modality.plain_options():
            window = modality.new_window()
            window.resume(self._window.latest)
            self._window = window
        self.modality = modality

    def _turn_away(self, error: Exception) -> Taken:
        self.refused += 1
        if isinstance(error, InvalidInput):
            return Taken(self._settle(str(error), error.fault), str(error))
        reason = f'{UNREADABLE}: {error!r}'
        return Taken(self._settle(reason, MALFORMED), reason, error)

    def _follow(self, raw: Any, stamp_ns: int, now_ns: int, limits: Limits) -> float:
        trace = self.modality.trace(raw)
        jump_s = self._tracker.read(trace, stamp_ns, now_ns, limits.backwards_s)
        if jump_s:
            self._window.clear()
        return jump_s

    def _settle(self, refused: str, fault: str) -> bool:
        value, before = self._window.latest, self._reading
        if value is before.value and refused == before.refused:
            return False
        self._reading = Reading(value, refused, fault)
        return True


def future_reason(ahead_s: float, now_ns: int) -> str:
    """Say that a stamp lies in the future, and what to do."""
    if now_ns < START_NS <= ahead_s * 1e9:
        return (
            f'stamped {ahead_s:.3g} s ahead of the clock of the node, which stands at'
            f' {now_ns * 1e-9:.3g} s: publish /clock, or set use_sim_time to false'
        )
    return f'stamped {ahead_s:.3g} s in the future; compare clocks and use_sim_time'
