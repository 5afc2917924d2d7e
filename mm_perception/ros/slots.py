"""The input side: from messages to the newest complete value of a modality."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from mm_perception.errors import InvalidInput
from mm_perception.modalities import Modality, Stamped
from mm_perception.ros.checks import FUTURE, MALFORMED, UNREADABLE, Limits
from mm_perception.ros.codecs import InputCodec
from mm_perception.ros.signs import Signs, Tracker
from mm_perception.ros.synchronizer import SimpleFilter

USUAL = Limits(enabled=True, max_age_s=1.0, hold=False, future_s=0.5)


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
    signs: Signs = field(default_factory=Signs)


@dataclass(frozen=True)
class Hooks:
    """
    What a slot calls.

    :param now_ns: the node's clock.
    :param report: takes the reason of each refused message, and the exception if the reason
        is a defect of ours.
    :param notice: takes what else is worth a line in the log.
    :param limits: the modality's thresholds.
    """

    now_ns: Callable[[], int]
    report: Callable[[str, Exception | None], None]
    notice: Callable[[str], None] = lambda text: None
    limits: Callable[[], Limits] = lambda: USUAL


def future_reason(ahead_s: float) -> str:
    """Say that a stamp lies in the future, and what to do."""
    return f'stamped {ahead_s:.3g} s in the future; compare clocks and use_sim_time'


class InputSlot(SimpleFilter):
    """
    A filter from messages to readings: decodes, gathers in the modality's window.

    Its output changes when a value becomes complete, and when messages begin or cease to be
    refused. Not thread-safe: it lives in the executor's thread.
    """

    def __init__(self, modality: Modality[Any], codec: InputCodec, hooks: Hooks) -> None:
        super().__init__()
        self.received = 0
        self.rejected = 0
        self._codec = codec
        self._hooks = hooks
        self._tracker = Tracker()
        self._reading = Reading(None)
        self._modality = modality
        self._window = modality.new_window()

    def connectInput(self, f: SimpleFilter) -> None:
        """Take messages from a filter."""
        self.incoming_connection = f.registerCallback(self.add)

    def look(self) -> Reading:
        """What it says now, with the signs that its messages show."""
        return replace(self._reading, signs=self._tracker.signs)

    def adopt(self, modality: Modality[Any]) -> None:
        """Go on with another configuration; what is under way is lost if its options differ."""
        if modality.plain_options() != self._modality.plain_options():
            window = modality.new_window()
            window.resume(self._window.latest)
            self._window = window
        self._modality = modality

    def add(self, message: Any) -> None:
        """Take a message; it never raises."""
        self.received += 1
        refused, fault, defect = '', '', None
        now_ns = self._hooks.now_ns()
        self._tracker.arrive(now_ns)
        try:
            raw, stamp_ns = self._codec.decode(message, now_ns, self._modality)
            self._follow(raw, stamp_ns, now_ns)
            self._window.push(raw, stamp_ns)
        except InvalidInput as error:
            refused, fault = str(error), error.fault
        except Exception as error:  # noqa: BLE001 - a message must not stop the node
            refused, fault, defect = f'{UNREADABLE}: {error!r}', MALFORMED, error
        if refused:
            self.rejected += 1
            self._hooks.report(refused, defect)
        self._settle(refused, fault)

    def advance(self) -> None:
        """Let time pass, for values that only silence completes."""
        self._window.advance(self._hooks.now_ns())
        self._settle(self._reading.refused, self._reading.fault)

    def clear(self) -> None:
        """Forget everything."""
        self._window.clear()
        self._tracker.clear()
        self._settle('', '')

    def _follow(self, raw: Any, stamp_ns: int, now_ns: int) -> None:
        limits = self._hooks.limits()
        ahead_s = (stamp_ns - now_ns) * 1e-9
        if ahead_s > limits.future_s:
            raise InvalidInput(future_reason(ahead_s), FUTURE)
        trace = self._modality.trace(raw)
        jump_s = self._tracker.read(trace, stamp_ns, now_ns, limits.backwards_s)
        if jump_s:
            self._window.clear()
            self._hooks.notice(
                f'stamps ran backwards by {jump_s:.3g} s (a bag that starts again, or a clock'
                ' that was set); what was gathered is forgotten'
            )

    def _settle(self, refused: str, fault: str) -> None:
        value = self._window.latest
        if value is not self._reading.value or refused != self._reading.refused:
            self._reading = Reading(value, refused, fault)
            self.signalMessage(self._reading)
