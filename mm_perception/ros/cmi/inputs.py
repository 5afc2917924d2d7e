"""The input side of the node: from the messages of every sensor to its stream."""

from __future__ import annotations

import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from mm_perception.errors import InvalidInput
from mm_perception.fusion.health import MALFORMED, Limits, Verdict
from mm_perception.fusion.perception import Perception
from mm_perception.fusion.sets import Sets
from mm_perception.fusion.streams import ClockWatch, Reading, Stream
from mm_perception.ros.cmi.filters import put_in_front
from mm_perception.ros.cmi.parameters import SYNC_COMPLETE
from mm_perception.ros.codecs import InputCodec
from mm_perception.ros.codecs.places import import_message
from mm_perception.ros.parameters import Parameters
from mm_perception.ros.qos import (
    check_topic,
    explain_mixture,
    explain_silence,
    input_qos,
    latched_qos,
    overridable,
)

LOG_PERIOD_S = 5.0
RELAY_DEPTH = 100
DELAY_WINDOW_S = 10.0


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


class Delays:
    """
    How late messages of one sensor are taken, from the time at which the middleware sent them.

    The clocks of two machines differ by any amount; the shortest way of the last 10 to 20 s counts
    as none. So messages that waited, while this process stood still say, are as old as they are.

    :param window_s: over which the shortest way is sought.
    """

    def __init__(self, window_s: float = DELAY_WINDOW_S) -> None:
        self._window_ns = int(window_s * 1e9)
        self._since_ns: int | None = None
        self._shortest_ns = self._before_ns = 0

    def delay_ns(self, source_ns: int, now_ns: int) -> int:
        """
        How much longer than the shortest way a message was under way; 0 or more.

        :param source_ns: when it was sent, on its sender's clock; 0 if that is not known.
        :param now_ns: time of this machine, as people set it.
        """
        if not source_ns:
            return 0
        way_ns = now_ns - source_ns
        if self._since_ns is None:
            # At first one machine is assumed: what a publisher kept for late subscribers is old.
            self._since_ns = now_ns
            self._shortest_ns = self._before_ns = way_ns
            return max(way_ns, 0)
        if not 0 <= now_ns - self._since_ns < self._window_ns:
            self._since_ns = now_ns
            self._before_ns, self._shortest_ns = self._shortest_ns, way_ns
        self._shortest_ns = min(self._shortest_ns, way_ns)
        return max(way_ns - min(self._shortest_ns, self._before_ns), 0)


def relayed(
    make: Callable[[Any, bool], Any], latched: bool, receive: Callable[..., None]
) -> Callable[..., None]:
    """
    Have the sensor's messages made of others before they are received.

    :param make: as :class:`Relay` begins it.
    :param latched: whether what comes holds for ever.
    """

    def take(message: Any, info: Any = None) -> None:
        try:
            made = message if isinstance(message, InvalidInput) else make(message, latched)
        except InvalidInput as error:
            made = error
        if made is not None:
            receive(made, info)

    return take


class Inputs:
    """
    Subscriptions that feed the streams of a perception; any thread may call.

    :param node: offers ``subscribe_input``, as :class:`CmiNode` does.
    :param perception: whose first stream is fed.
    :param undo: takes what destroys the subscriptions.
    :param codecs: of the sensors, by modality.
    :param keep: called with the name of a modality and a message of it that could be read.
    :param receive: called with the name of a modality, a message of it, and, where that is known,
        what the middleware says about it.

    ``lock`` is held while streams are used; never while a message is read.
    """

    def __init__(
        self,
        node: Any,
        perception: Perception,
        parameters: Parameters,
        codecs: Mapping[str, InputCodec],
        undo: ExitStack,
        keep: Callable[[str, Any], None],
        receive: Callable[..., None],
    ) -> None:
        self._node = node
        self.lock = threading.RLock()
        self._delays: dict[str, Delays] = defaultdict(Delays)
        self._clock = ClockWatch()
        self._throttle = Throttle()
        self._codecs = codecs
        self._keep = keep
        self._subscriptions: dict[str, Any] = {}
        self.streams: dict[str, Stream] = perception.streams[0]
        complete = parameters['sync'] == SYNC_COMPLETE
        self.sets = Sets(parameters['sync_slop_s']) if complete else None
        for name, codec in codecs.items():
            prefix = f'modalities.{name}'
            check_topic(parameters[f'{prefix}.topic'], f'{prefix}.topic')
            callback: Callable[..., None] = partial(receive, name)
            if filters := [each for each in parameters[f'{prefix}.filters'] if each]:
                callback = put_in_front(filters, callback, f'{prefix}.filters')
            topic, qos = parameters[f'{prefix}.topic'], input_qos(codec.depth)
            subscribe = partial(self._subscribe, undo)
            if codec.relay is None:
                self._subscriptions[name] = subscribe(codec.message_type, topic, callback, qos)
                continue
            kind, make = import_message(codec.relay.name), codec.relay.begin()
            take, keep_for_ever = (relayed(make, latched, callback) for latched in (False, True))
            subscribe(kind, codec.relay.latched_topic, keep_for_ever, latched_qos(RELAY_DEPTH))
            self._subscriptions[name] = subscribe(kind, topic, take, input_qos(RELAY_DEPTH))

    def _subscribe(
        self, undo: ExitStack, kind: type, topic: str, callback: Callable[..., None], qos: Any
    ) -> Any:
        subscription = self._node.subscribe_input(
            kind, topic, callback, qos_profile=qos, qos_overriding_options=overridable()
        )
        undo.callback(self._node.destroy_subscription, subscription)
        return subscription

    def take(self, name: str, message: Any, limits: Limits, info: Any = None) -> bool:
        """
        Take a message of a modality; it never raises.

        :param message: or the reason why it was not read.
        :param limits: thresholds of the modality.
        :param info: what the middleware says about the message, such as when it was sent.
        :returns: whether it has a new value, or messages begin or cease to be refused.
        """
        stream, now_ns = self.streams[name], self._now_ns()
        sent_ns = info.get('source_timestamp', 0) if info else 0
        receipt_ns = now_ns - self._delays[name].delay_ns(sent_ns, time.time_ns())
        raw, failure = None, None
        try:
            if isinstance(message, InvalidInput):
                raise message
            raw, stamp_ns = self._codecs[name].decode(message, receipt_ns, stream.modality.single)
        except Exception as error:  # noqa: BLE001 - a message must not stop the node
            failure = error
        with self.lock:
            if failure is None:
                taken = stream.take(raw, stamp_ns, now_ns, limits)
            else:
                taken = stream.refuse(failure, now_ns)
            if taken.news and self.sets is not None:
                self.sets.add(name, stream.snapshot().value)
        if taken.refused:
            self._report_refusal(name, taken.refused, taken.defect)
        else:
            self._keep(name, message)
        if taken.jump_s and self._throttle.ready(('notice', name)):
            self._node.get_logger().warning(
                f'{name}: {self.topic(name)}: stamps ran backwards by {taken.jump_s:.3g} s (a bag'
                ' that starts again, or a clock that was set); what was gathered is forgotten'
            )
        return taken.news

    def advance(self) -> None:
        """Let time pass in every stream."""
        now_ns = self._now_ns()
        with self.lock:
            for name, stream in self.streams.items():
                if stream.advance(now_ns) and self.sets is not None:
                    self.sets.add(name, stream.snapshot().value)

    def snapshot(self, names: Collection[str]) -> tuple[dict[str, Reading], str]:
        """
        What every stream says now, with ``sync: complete`` of the newest set of all.

        :param names: modalities that a set has to have.
        :returns: the readings, and why they are no set; empty if they are, or need not be.
        """
        with self.lock:
            readings = {name: stream.snapshot() for name, stream in self.streams.items()}
            if self.sets is None:
                return readings, ''
            found = self.sets.newest(names)
            lacking = '' if found else ', '.join(self.sets.lacking(names))
        for name, value in found.items():
            readings[name] = replace(readings[name], value=value)
        within = f'within {self.sets.slop_s:g} s of the newest'
        return readings, '' if found else f'no complete set: no value {within} of {lacking}'

    def stamp_ns(self, name: str) -> int | None:
        """Stamp of the newest value of a modality; None before the first."""
        with self.lock:
            value = self.streams[name].snapshot().value
        return None if value is None else value.stamp_ns

    def clear(self) -> None:
        """Forget everything received."""
        with self.lock:
            for stream in self.streams.values():
                stream.clear()
            if self.sets is not None:
                self.sets.clear()

    def topic(self, name: str) -> str:
        """Fully resolved topic of a modality."""
        return str(self._subscriptions[name].topic_name)

    def report_fault(self, name: str, verdict: Verdict) -> None:
        """Log, at most once per 5 s, modality and fault, what is wrong with its data."""
        if verdict.fault == MALFORMED:
            self._report_refusal(name, verdict.reason)
        elif self._throttle.ready((verdict.state, verdict.fault, name)):
            used = 'used all the same' if verdict.used else 'left out'
            self._node.get_logger().warning(
                f'{name}: {verdict.state.value}, {used}: {self._where(name)}: {verdict.reason}'
            )

    def explain_silence(self, name: str) -> str:
        """Why no message of a modality arrives, in one line."""
        kind = self.streams[name].modality.spec.kind
        return explain_silence(self._node, self._subscriptions[name], name, kind)

    def explain_mixture(self, name: str) -> str:
        """That several sensors share the topic of a modality as if they were one; or empty."""
        shared = self._codecs[name].shared
        return '' if shared else explain_mixture(self._node, self._subscriptions[name])

    def explain_unused(self, name: str, verdict: Verdict) -> str:
        """What is received but not used, and why, in one line."""
        stamp_ns = self.streams[name].snapshot().statistics.stamp_ns
        age = ''
        if stamp_ns is not None:
            age = f'newest message {(self._now_ns() - stamp_ns) * 1e-9:.3g} s old: '
        return f'{name}: {verdict.state.value}: {self._where(name)}: {age}{verdict.reason}'

    def _report_refusal(self, name: str, reason: str, defect: Exception | None = None) -> None:
        if defect is not None and self._throttle.ready(('defect', name)):
            trace = ''.join(traceback.format_exception(defect))
            self._node.get_logger().error(f'{name}: defect while reading a message\n{trace}')
        if self._throttle.ready(('rejected', name)):
            self._node.get_logger().warning(
                f'{name}: message on {self._where(name)} rejected: {reason}; mend its publisher,'
                f' or set modalities.{name}.topic'
            )

    def _where(self, name: str) -> str:
        return f'{self.topic(name)} ({self._codecs[name].heard})'

    def _now_ns(self) -> int:
        """Time of the node; where it runs backwards, nothing that was received counts."""
        with self.lock:
            now_ns = int(self._node.get_clock().now().nanoseconds)
            back_s = self._clock.step_back_s(now_ns)
        if back_s:
            self.clear()
            self._node.get_logger().warning(
                f'time ran backwards by {back_s:.3g} s (a simulation or a bag that starts again):'
                ' everything received so far is forgotten'
            )
        return now_ns
