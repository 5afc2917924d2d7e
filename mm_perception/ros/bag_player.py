"""Plays bags as sensors: their topics, as they were recorded, in real time."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.serialization import deserialize_message, serialize_message
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock

from mm_perception.errors import DataError
from mm_perception.ros.bag_files import Bag, Say, installed_type, silent
from mm_perception.ros.bag_import import SAME_CLOCK_S, stamp_ns_of
from mm_perception.ros.codecs import time_message

CLOCK, CLOCK_PERIOD_S = '/clock', 0.01
DISCOVERY_S = 1.0
DEPTH = 50


@dataclass(frozen=True)
class Playing:
    """
    How bags are played.

    :param rate: of the recorded time; 2.0 is twice as fast.
    :param loop: begin anew at the end, until interrupted.
    :param start_s: where to begin, in seconds after the first message.
    :param topics: to play; empty for all.
    :param restamp: stamp messages with the time of this machine, and publish no ``/clock``.
    """

    rate: float = 1.0
    loop: bool = False
    start_s: float = 0.0
    topics: Collection[str] = ()
    restamp: bool = False


@dataclass
class Played:
    """
    What was played.

    :param messages: per topic.
    :param seconds: of recorded time.
    :param late_s: how far behind its time the latest message was sent.
    """

    messages: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    late_s: float = 0.0


def play_bags(paths: Sequence[Path], playing: Playing, say: Say = silent) -> Played:
    """
    Play bags one after the other.

    :raises DataError: if one cannot be read, or has nothing to play.
    """
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = Node('bag_player')
    played = Played()
    try:
        player = _Player(node, playing, played, say)
        while True:
            for path in paths:
                player.play(path)
            if not playing.loop:
                return played
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


class _Player:
    """Publishes what bags hold, at its time."""

    def __init__(self, node: Node, playing: Playing, played: Played, say: Say) -> None:
        self._node, self._playing, self._played, self._say = node, playing, played, say
        self._publishers: dict[str, Any] = {}
        self._types: dict[str, Any] = {}
        self._now_ns = 0
        self._clock = None if playing.restamp else node.create_publisher(Clock, CLOCK, DEPTH)

    def play(self, path: Path) -> None:
        """Play a bag to its end."""
        with Bag(path, self._say) as bag:
            chosen = self._prepare(bag)
            own = self._clock is not None and self._is_other_clock(bag, chosen)
            self._now_ns = 0
            begin: tuple[int, float] | None = None
            elapsed_s = 0.0
            for topic, receipt_ns, data in self._from_start(bag, chosen):
                first_ns, began_s = begin = begin or (receipt_ns, time.monotonic())
                elapsed_s = (receipt_ns - first_ns) * 1e-9
                now_ns = self._stamp_ns(topic, data) if own else receipt_ns
                self._wait(began_s + elapsed_s / self._playing.rate, now_ns)
                self._publish(topic, data)
                self._played.messages[topic] = self._played.messages.get(topic, 0) + 1
            if begin is None:
                raise DataError(f'{path}: nothing to play after {self._playing.start_s:g} s')
            self._played.seconds += elapsed_s

    def _from_start(self, bag: Bag, topics: Collection[str]) -> Iterator[tuple[str, int, bytes]]:
        first_ns = None
        for topic, receipt_ns, data in bag.messages(topics):
            first_ns = receipt_ns if first_ns is None else first_ns
            if receipt_ns - first_ns >= self._playing.start_s * 1e9:
                yield topic, receipt_ns, data

    def _prepare(self, bag: Bag) -> list[str]:
        """Publish the topics of a bag whose types are installed; returns their names."""
        wanted = self._playing.topics or bag.topics
        absent = [name for name in wanted if name not in bag.topics]
        if absent:
            known = ', '.join(bag.topics) or 'none'
            raise DataError(f'{bag.path}: has no topic {absent[0]}; it has {known}')
        for name in wanted:
            message = bag.topics[name].message
            kind = installed_type(message)
            if kind is None:
                self._say(f'{name}: left out, since {message} is not installed')
            elif name not in self._publishers and name != CLOCK:
                self._types[name] = kind
                self._publishers[name] = self._node.create_publisher(kind, name, DEPTH)
        chosen = [name for name in wanted if name in self._publishers]
        if not chosen:
            raise DataError(
                f'{bag.path}: nothing to play; its types of messages are not installed'
            )
        self._discover(chosen)
        return chosen

    def _discover(self, topics: Collection[str]) -> None:
        """Give subscribers a moment to find new publishers."""
        end_s = time.monotonic() + DISCOVERY_S
        while time.monotonic() < end_s and not all(map(self._node.count_subscribers, topics)):
            time.sleep(CLOCK_PERIOD_S)

    def _is_other_clock(self, bag: Bag, topics: Collection[str]) -> bool:
        """Whether stamps are of another clock than the recorder's: then theirs is played."""
        for topic, receipt_ns, data in bag.messages(topics):
            stamp_ns = self._stamp_ns(topic, data)
            if stamp_ns:
                return abs(stamp_ns - receipt_ns) > SAME_CLOCK_S * 1e9
        return False

    def _stamp_ns(self, topic: str, data: bytes) -> int:
        return stamp_ns_of(deserialize_message(data, self._types[topic]))

    def _wait(self, due_s: float, now_ns: int) -> None:
        """Wait for the time of a message; meanwhile the clock goes on, and never back."""
        while True:
            left_s = due_s - time.monotonic()
            if self._clock is not None:
                now = now_ns - int(max(0.0, left_s) * self._playing.rate * 1e9)
                self._now_ns = max(self._now_ns, now)
                self._clock.publish(Clock(clock=time_message(self._now_ns)))
            if left_s <= 0.0:
                self._played.late_s = max(self._played.late_s, -left_s)
                return
            time.sleep(min(left_s, CLOCK_PERIOD_S))

    def _publish(self, topic: str, data: bytes) -> None:
        if self._playing.restamp:
            message = deserialize_message(data, self._types[topic])
            if hasattr(message, 'header'):
                message.header.stamp = time_message(time.time_ns())
            data = serialize_message(message)
        self._publishers[topic].publish(data)
