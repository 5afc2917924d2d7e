"""The subscriptions of all modalities, and why one of them is silent."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Collection, Hashable, Mapping
from contextlib import ExitStack
from typing import Any

from rclpy.node import Node

from mm_perception.modalities import Modality
from mm_perception.ros.checks import MALFORMED, Limits
from mm_perception.ros.codecs import input_codec
from mm_perception.ros.explain import explain_silence
from mm_perception.ros.health import Verdict
from mm_perception.ros.parameters import Parameters
from mm_perception.ros.qos import input_qos, overridable
from mm_perception.ros.signs import ClockWatch
from mm_perception.ros.slots import Hooks, InputSlot, Reading
from mm_perception.ros.synchronizer import PartialSynchronizer, Subscriber

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
