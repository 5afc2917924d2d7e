"""Receives in threads of its own, so that a flood holds up neither ticks nor services."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import PointCloud2
from trajectory_msgs.msg import JointTrajectory

from mm_perception.errors import InvalidInput
from mm_perception.ros.codecs.base import MAX_FIELDS, message_name
from mm_perception.ros.codecs.trajectory import MAX_POINTS
from mm_perception.ros.codecs.transforms import MOST_FRAMES, NAME

WAKE_S = 0.2
JOIN_S = 2.0
REST_S, TRIGGERED_REST_S = 0.005, 0.001
Take = Callable[[Any, Any], None]


class Receiver:
    """
    Takes the messages of subscriptions in a thread; their node hides them from its executor.

    After each round it rests, at least as long as the round took: however much arrives, half of
    the interpreter is left to the ticks, and the middleware drops what is older than its queues.

    :param context: of the node.
    :param rest_s: least time between two rounds; a single message is never held up by it.
    :param report: called with an exception that taking a message raised.
    """

    def __init__(
        self, context: Context, rest_s: float, report: Callable[[Exception], None]
    ) -> None:
        self._context = context
        self._rest_s = rest_s
        self._report = report
        self._served: dict[Any, Take] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name='reception', daemon=True)
        self.beat_s = time.monotonic()

    def __contains__(self, subscription: Any) -> bool:
        """Whether a subscription is served here."""
        return subscription in self._served

    def serve(self, subscription: Any, take: Take) -> None:
        """
        Serve a subscription; before :meth:`start`.

        :param take: called with each message, and with what the middleware says about it.
        """
        self._served[subscription] = take

    def start(self) -> None:
        """Begin to receive."""
        self.beat_s = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Cease to receive; a message that is being read for too long is left alone."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_S)

    def _run(self) -> None:
        while not self._closing.is_set() and self._context.ok():
            self.beat_s = time.monotonic()
            try:
                begin_s = self._round()
            except Exception as error:  # noqa: BLE001 - a message must not end the reception
                if self._context.ok():
                    self._report(error)
                begin_s = self.beat_s
            self._closing.wait(max(time.monotonic() - begin_s, self._rest_s))

    def _round(self) -> float:
        """Wait for messages and take them; returns when the wait was over."""
        count = len(self._served)
        wait_set = _rclpy.WaitSet(count, 0, 0, 0, 0, 0, self._context.handle)
        wait_set.clear_entities()
        for subscription in self._served:
            wait_set.add_subscription(subscription.handle)
        wait_set.wait(int(WAKE_S * 1e9))
        begin_s = time.monotonic()
        ready = set(wait_set.get_ready_entities('subscription'))
        for subscription, take in self._served.items():
            if subscription.handle.pointer in ready and not self._closing.is_set():
                for message, info in _queued(subscription):
                    take(message, info)
        return begin_s


class Reception:
    """
    All receivers of a node: one for most sensors, and one each for what takes long to read.

    :param make: makes a receiver.
    """

    def __init__(self, make: Callable[[], Receiver]) -> None:
        self._make = make
        self._receivers = [make()]

    def __contains__(self, subscription: Any) -> bool:
        """Whether a subscription is served here."""
        return any(subscription in receiver for receiver in self._receivers)

    def serve(self, subscription: Any, take: Take, apart: bool) -> None:
        """
        Serve a subscription; before :meth:`start`.

        :param take: called with each message, and with what the middleware says about it.
        :param apart: whether its messages take so long to read that others must not wait for them.
        """
        if apart:
            self._receivers.append(self._make())
        self._receivers[-1 if apart else 0].serve(subscription, take)

    def start(self) -> None:
        """Begin to receive."""
        for receiver in self._receivers:
            receiver.start()

    def stop(self) -> None:
        """Cease to receive."""
        for receiver in self._receivers:
            receiver.stop()


def _queued(subscription: Any) -> Iterator[tuple[Any, Any]]:
    """What a subscription's queue holds, and no more than that: a flood has no end."""
    kind = subscription.msg_type
    count = _COUNTS.get(message_name(kind))
    for _ in range(max(subscription.qos_profile.depth, 1)):
        try:
            with subscription.handle:
                taken = subscription.handle.take_message(kind, count is not None)
        except InvalidHandle:  # destroyed meanwhile
            return
        if taken is None:
            return
        message = taken[0] if count is None else _read(taken[0], kind, count)
        if message is not None:
            yield message, taken[1]


def _read(data: bytes, kind: type, count: Callable[[_Cursor], tuple[int, int, str]]) -> Any:
    """
    Read a message, or say why not: a million parts would hold the interpreter for seconds.

    :returns: None for one that is cut short, which the middleware drops of other types, too.
    """
    try:
        parts, limit, name = count(_Cursor(data))
    except struct.error:
        return None
    if parts > limit:
        return InvalidInput(f'{parts} {name}; at most {limit} are read')
    try:
        return deserialize_message(data, kind)
    except RuntimeError:
        return None


class _Cursor:
    """Reads the beginning of a message as DDS carries it (CDR)."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._order = '<' if data[1:2] == b'\1' else '>'
        self._at = 4

    def number(self) -> int:
        """Next number of 32 bits."""
        self._at += -self._at % 4
        (value,) = struct.unpack_from(f'{self._order}I', self._data, self._at)
        self._at += 4
        return int(value)

    def skip_string(self) -> None:
        """Go on behind a string."""
        length = self.number()
        self._at += length

    def skip_header(self) -> None:
        """Go on behind a std_msgs/msg/Header."""
        self.number(), self.number()
        self.skip_string()


def _points(cursor: _Cursor) -> tuple[int, int, str]:
    cursor.skip_header()
    joints = cursor.number()
    if joints > MAX_FIELDS:
        return joints, MAX_FIELDS, 'joint_names'
    for _ in range(joints):
        cursor.skip_string()
    return cursor.number(), MAX_POINTS, 'points'


def _fields(cursor: _Cursor) -> tuple[int, int, str]:
    cursor.skip_header()
    cursor.number(), cursor.number()
    return cursor.number(), MAX_FIELDS, 'fields'


def _transforms(cursor: _Cursor) -> tuple[int, int, str]:
    return cursor.number(), MOST_FRAMES, 'transforms'


_COUNTS: dict[str, Callable[[_Cursor], tuple[int, int, str]]] = {
    message_name(JointTrajectory): _points,
    message_name(PointCloud2): _fields,
    NAME: _transforms,
}
"""Messages whose parts become Python objects one by one: how many, how many at most, of what."""
