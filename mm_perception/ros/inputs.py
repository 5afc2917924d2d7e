"""The subscriptions of all modalities, and why one of them is silent."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Collection, Hashable, Mapping
from contextlib import ExitStack
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, qos_check_compatible

from mm_perception.modalities import Modality
from mm_perception.ros.codecs import input_codec
from mm_perception.ros.parameters import Parameters
from mm_perception.ros.qos import input_qos, overridable
from mm_perception.ros.slots import InputSlot
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
    """

    def __init__(
        self,
        node: Node,
        modalities: Mapping[str, Modality[Any]],
        parameters: Parameters,
        triggers: Collection[str],
        undo: ExitStack,
    ) -> None:
        self._node = node
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
            slot = InputSlot(modality, codec, self._now_ns, self._reporter(name))
            slot.connectInput(subscriber)
            self._subscribers[name], self._types[name] = subscriber, codec.name
            self.slots[name] = slot
        positions = [k for k, name in enumerate(modalities) if name in triggers]
        self.synchronizer = PartialSynchronizer(list(self.slots.values()), positions)

    def advance(self) -> None:
        """Let time pass in every slot."""
        for slot in self.slots.values():
            slot.advance()

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

    def explain_silence(self, name: str) -> str:
        """Why no message of a modality arrives, in one line."""
        topic, expected = self.topic(name), self._types[name]
        publishers = self._node.get_publishers_info_by_topic(topic)
        if not publishers:
            return (
                f'no publisher on {topic}; start the driver, remap, or set modalities.{name}.topic'
            )
        types = {publisher.topic_type for publisher in publishers}
        if expected not in types:
            return (
                f'{topic} carries {", ".join(sorted(types))} but {expected} is expected; set'
                f' modalities.{name}.message'
            )
        own_qos = self._subscribers[name].sub.qos_profile
        for publisher in publishers:
            verdict, reason = qos_check_compatible(publisher.qos_profile, own_qos)
            if verdict == QoSCompatibility.ERROR:
                text = ' '.join(reason.split())
                return f'QoS of {publisher.node_name} on {topic} does not match: {text}'
        return f'{topic} has a publisher but nothing arrives from it'

    def _now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

    def _reporter(self, name: str) -> Callable[[str, Exception | None], None]:
        def report(reason: str, defect: Exception | None) -> None:
            if defect is not None and self._throttle.ready(('defect', name)):
                trace = ''.join(traceback.format_exception(defect))
                self._node.get_logger().error(f'{name}: defect while reading a message\n{trace}')
            self.report_rejection(name, reason)

        return report
