"""The input side of the node: subscriptions, filters, and the newest reading per modality."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from rclpy.node import Node

from mm_perception.errors import InvalidInput
from mm_perception.fusion.health import (
    FUTURE,
    MALFORMED,
    UNREADABLE,
    USUAL_LIMITS,
    ClockWatch,
    Limits,
    Reading,
    Tracker,
    Verdict,
    future_reason,
)
from mm_perception.modalities import Modality
from mm_perception.ros.codecs import InputCodec, input_codec
from mm_perception.ros.parameters import Parameters
from mm_perception.ros.qos import explain_silence, input_qos, overridable

try:
    from message_filters import SimpleFilter, Subscriber
except ImportError:
    # message_filters is not on PyPI: the same interface, as far as this package uses it.
    class SimpleFilter:  # type: ignore[no-redef]
        """Something with output that callbacks can be registered for."""

        def __init__(self) -> None:
            self.callbacks: dict[int, tuple[Callable[..., None], tuple[Any, ...]]] = {}

        def registerCallback(self, cb: Callable[..., None], *args: Any) -> int:
            """Have ``cb`` called with every output, followed by ``args``."""
            connection = len(self.callbacks)
            self.callbacks[connection] = (cb, args)
            return connection

        def signalMessage(self, *msg: Any) -> None:
            """Hand an output to every callback."""
            for callback, args in list(self.callbacks.values()):
                callback(*msg, *args)

    class Subscriber(SimpleFilter):  # type: ignore[no-redef]
        """A subscription as a filter; takes what ``create_subscription`` takes."""

        def __init__(self, node: Any, *args: Any, **kwargs: Any) -> None:
            super().__init__()
            self.node = node
            self.topic = args[1]
            kwargs.setdefault('qos_profile', 10)
            self.sub = node.create_subscription(*args, self.signalMessage, **kwargs)

        def getTopic(self) -> str:
            """Topic as it was given."""
            return str(self.topic)


class PartialSynchronizer(SimpleFilter):
    """
    Calls back with the latest message of every input, None for those that gave none yet.

    Unlike message_filters' synchronisers it never waits for an input, never queues, and calls
    back outside its lock. Whether a message is still fresh is for the callback to judge.

    :param fs: filters, one per input; the callback gets one message of each, in this order.
    :param triggers: inputs (positions in ``fs``) whose arrival fires; others wait for
        the next firing, or for :meth:`fire`.
    """

    def __init__(self, fs: Sequence[Any], triggers: Collection[int] = ()) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._triggers = frozenset(triggers)
        self.connectInput(fs)

    def connectInput(self, fs: Sequence[Any]) -> None:
        """Take messages from these filters."""
        self._latest: list[Any] = [None] * len(fs)
        self.input_connections = [f.registerCallback(self.add, k) for k, f in enumerate(fs)]

    def add(self, msg: Any, index: int) -> None:
        """Keep the message of one input, and fire if that input triggers."""
        with self._lock:
            self._latest[index] = msg
        if index in self._triggers:
            self.fire()

    def fire(self) -> None:
        """Call back with what is there now."""
        with self._lock:
            latest = tuple(self._latest)
        self.signalMessage(*latest)

    def clear(self) -> None:
        """Forget all messages."""
        with self._lock:
            self._latest = [None] * len(self._latest)


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
    limits: Callable[[], Limits] = lambda: USUAL_LIMITS


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


LOG_PERIOD_S = 5.0


class Throttle:
    """Lets one event per key and period through."""

    def __init__(self, period_s: float = LOG_PERIOD_S) -> None:
        self._period_s = period_s
        self._last_s: dict[Hashable, float] = {}

    def ready(self, key: Hashable) -> bool:
        """Whether the period of this key is over; if so, a new one begins."""
        now_s = time.monotonic()
        if now_s - self._last_s.get(key, -self._period_s) < self._period_s:
            return False
        self._last_s[key] = now_s
        return True


class Inputs:
    """
    Subscriptions, slots and the synchroniser that brings them together.

    :param triggers: names of the modalities whose new values fire.
    :param undo: takes what destroys them.
    :param limits: gives the thresholds per modality.
    """

    def __init__(
        self,
        node: Node,
        modalities: Mapping[str, Modality[Any]],
        parameters: Parameters,
        triggers: Collection[str],
        undo: ExitStack,
        limits: Callable[[], Mapping[str, Limits]],
    ) -> None:
        self._node = node
        self._limits = limits
        self._clock = ClockWatch()
        self._throttle = Throttle()
        self._subscribers: dict[str, Subscriber] = {}
        self._types: dict[str, str] = {}
        self.slots: dict[str, InputSlot] = {}
        for name, modality in modalities.items():
            prefix = f'modalities.{name}'
            codec = input_codec(modality.spec.kind, parameters[f'{prefix}.message'])
            subscriber = Subscriber(
                node,
                codec.message_type,
                parameters[f'{prefix}.topic'],
                qos_profile=input_qos(codec.depth),
                qos_overriding_options=overridable(),
            )
            undo.callback(node.destroy_subscription, subscriber.sub)
            slot = InputSlot(modality, codec, self._hooks(name))
            slot.connectInput(subscriber)
            self._subscribers[name], self._types[name] = subscriber, codec.name
            self.slots[name] = slot
        positions = [k for k, name in enumerate(modalities) if name in triggers]
        self.synchronizer = PartialSynchronizer(list(self.slots.values()), positions)

    def advance(self) -> None:
        """Let time pass in every slot."""
        for slot in self.slots.values():
            slot.advance()

    def look(self) -> dict[str, Reading]:
        """What every input says now."""
        return {name: slot.look() for name, slot in self.slots.items()}

    def clear(self) -> None:
        """Forget everything received."""
        for slot in self.slots.values():
            slot.clear()

    def adopt(self, modalities: Mapping[str, Modality[Any]]) -> None:
        """Go on with modalities of the same names and kinds, configured anew."""
        for name, slot in self.slots.items():
            slot.adopt(modalities[name])

    def topic(self, name: str) -> str:
        """Fully resolved topic of a modality."""
        return str(self._subscribers[name].sub.topic_name)

    def report_rejection(self, name: str, reason: str) -> None:
        """Log, at most once per 5 s and modality, why its messages are refused."""
        if self._throttle.ready(('rejected', name)):
            where = f'{self.topic(name)} ({self._types[name]})'
            self._node.get_logger().warning(
                f'{name}: message on {where} rejected: {reason}; mend its publisher, or set'
                f' modalities.{name}.topic'
            )

    def report_fault(self, name: str, verdict: Verdict) -> None:
        """Log, at most once per 5 s, modality and fault, what is wrong with its data."""
        if verdict.fault == MALFORMED:
            self.report_rejection(name, verdict.reason)
        elif self._throttle.ready((verdict.state, verdict.fault, name)):
            where = f'{self.topic(name)} ({self._types[name]})'
            used = 'used all the same' if verdict.used else 'left out'
            self._node.get_logger().warning(
                f'{name}: {verdict.state.value}, {used}: {where}: {verdict.reason}'
            )

    def explain_silence(self, name: str) -> str:
        """Why no message of a modality arrives, in one line."""
        return explain_silence(self._node, self._subscribers[name].sub, name)

    def _now_ns(self) -> int:
        """Time of the node; where it runs backwards, nothing that was received counts."""
        now_ns = int(self._node.get_clock().now().nanoseconds)
        back_s = self._clock.look(now_ns)
        if back_s:
            self.clear()
            self._node.get_logger().warning(
                f'time ran backwards by {back_s:.3g} s (a simulation or a bag that starts again):'
                ' everything received so far is forgotten'
            )
        return now_ns

    def _hooks(self, name: str) -> Hooks:
        def notice(text: str) -> None:
            if self._throttle.ready(('notice', name)):
                self._node.get_logger().warning(f'{name}: {self.topic(name)}: {text}')

        return Hooks(self._now_ns, self._reporter(name), notice, lambda: self._limits()[name])

    def _reporter(self, name: str) -> Callable[[str, Exception | None], None]:
        def report(reason: str, defect: Exception | None) -> None:
            if defect is not None and self._throttle.ready(('defect', name)):
                trace = ''.join(traceback.format_exception(defect))
                self._node.get_logger().error(f'{name}: defect while reading a message\n{trace}')
            self.report_rejection(name, reason)

        return report
