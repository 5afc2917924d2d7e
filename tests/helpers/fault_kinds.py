"""Every way in which a sensor's messages can be wrong, and what the node should call it."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from rclpy.serialization import serialize_message

from mm_perception.ros.codecs import image_message, time_message
from mm_perception.ros.codecs.base import as_bytes
from tests.helpers.stage import Break, Stray

STALE, REJECTED = 'stale', 'rejected'
SECOND_NS = 1_000_000_000


@dataclass(frozen=True)
class Kind:
    """
    One kind of fault.

    :param name: as reports write it.
    :param breaks: modality to how it breaks; others cannot have this fault.
    :param state: in ``~/status``.
    :param words: one of them is in the reason or is the fault.
    :param alone: breaks one sensor at a time: the others are needed to notice.
    """

    name: str
    breaks: Mapping[str, Break]
    state: str
    words: tuple[str, ...] = ()
    alone: bool = False


def changed(**values: Any) -> Break:
    """Other values in fields of the message."""

    def change(message: Any, count: int) -> Any:
        for name, value in values.items():
            setattr(message, name, value(getattr(message, name)) if callable(value) else value)
        return message

    return change


def every(change: Break, *names: str) -> dict[str, Break]:
    """The same fault for several modalities."""
    return dict.fromkeys(names or ('image', 'sound', 'trajectory', 'symbol'), change)


def floats(value: float) -> dict[str, Break]:
    """A number in place of all data."""

    def picture(message: Any, count: int) -> Any:
        pixels = np.full((message.height, message.width), value, np.float32)
        broken = image_message(pixels, 0)
        broken.header = message.header
        return broken

    return {'image': picture, 'sound': samples(lambda s: s * 0 + value), 'trajectory': pen(value)}


def samples(change: Callable[[np.ndarray], np.ndarray]) -> Break:
    """Other samples in a sound, under the same times."""

    def broken(message: Any, count: int) -> Any:
        table = np.frombuffer(message.data, np.float32).reshape(-1, 2).copy()
        table[:, 1] = change(table[:, 1])
        message.data = as_bytes(table)
        return message

    return broken


def pen(value: float, factor: float = 0.0) -> Break:
    """Other positions on the same path: ``position * factor + value``."""

    def broken(message: Any, count: int) -> Any:
        for point in message.points:
            point.positions = array('d', [p * factor + value for p in point.positions])
        return message

    return broken


def pixels(value: int) -> Break:
    """A camera that sees one brightness, with its noise in the lowest bit."""

    def even(data: Any) -> Any:
        return as_bytes(np.frombuffer(data, np.uint8) & 1 | value)

    return changed(data=even)


def stamped(stamp: Callable[[int, int], int]) -> Break:
    """Other stamps: (now, count) to the stamp."""

    def broken(message: Any, count: int) -> Any:
        now_ns = message.header.stamp.sec * SECOND_NS + message.header.stamp.nanosec
        message.header.stamp = time_message(stamp(now_ns, count))
        return message

    return broken


class StandsStill:
    """
    What was in a sensor's first broken message comes again and again.

    :param part: takes the messages (first, now) and gives what is sent.
    """

    def __init__(self, part: Callable[[Any, Any], Any]) -> None:
        self._part = part
        self._first: Any = None
        self._last_count = -1

    def __call__(self, message: Any, count: int) -> Any:
        """Send the next message."""
        if self._first is None or count != self._last_count + 1:
            self._first = deepcopy(message)
        self._last_count = count
        return self._part(deepcopy(self._first), message)


def old_data(first: Any, now: Any) -> Any:
    """The first data with the present stamp."""
    first.header.stamp = now.header.stamp
    return first


def old_stamp(first: Any, now: Any) -> Any:
    """The present data with the first stamp."""
    now.header.stamp = first.header.stamp
    return now


def in_turn(change: Break) -> Break:
    """Every second message is broken."""
    return lambda message, count: change(message, count) if count % 2 else message


def text(label: str) -> Break:
    """Another label."""
    return changed(data=label)


def cut_wire(message: Any, count: int) -> bytes:
    """Half of the serialised message."""
    data = bytes(serialize_message(message))
    return data[: len(data) // 2]


def spatial(message: Any, count: int) -> Any:
    """One point of a stroke in three dimensions."""
    message.points[1].positions = array('d', [1.0, 2.0, 3.0])
    return message


def hiss(message: Any, count: int) -> Any:
    """A microphone in nothing but loud noise, sample by sample another."""
    rng = np.random.default_rng(count)
    return samples(lambda s: 0.1 * rng.standard_normal(len(s)).astype(np.float32))(message, count)


STAMPED = ('image', 'sound', 'trajectory')
EMPTY = {
    'image': changed(height=0, width=0, step=0, data=array('B')),
    'sound': changed(width=0, row_step=0, data=array('B')),
    'trajectory': changed(points=[]),
    'symbol': text(''),
}
NOTHING = lambda message, count: None  # noqa: E731

KINDS = (
    Kind('unpublished', every(NOTHING), STALE, ('max_age_s',)),
    Kind('wrong type on the topic', every(lambda message, count: Stray()), STALE, ('max_age_s',)),
    Kind('truncated on the wire', every(cut_wire), STALE, ('max_age_s',)),
    Kind(
        'stamps stand still', {n: StandsStill(old_stamp) for n in STAMPED}, STALE, ('max_age_s',)
    ),
    Kind(
        'stamps from the future',
        every(stamped(lambda now, count: now + 60 * SECOND_NS), *STAMPED),
        REJECTED,
        ('future',),
    ),
    Kind(
        'stamps run backwards',
        every(stamped(lambda now, count: now - (9 + count % 2) * SECOND_NS), *STAMPED),
        STALE,
        ('backwards',),
    ),
    Kind(
        'wrong encoding or fields',
        {
            'image': changed(encoding='yuv999'),
            'sound': changed(fields=lambda fields: fields[:1]),
            'trajectory': changed(joint_names=['a', 'b', 'c']),
            'symbol': text('elephant'),
        },
        REJECTED,
        ('encoding', 'fields', 'joint_names', 'elephant'),
    ),
    Kind(
        'wrong size or step',
        {
            'image': changed(step=lambda step: step - 1),
            'sound': changed(point_step=12),
            'trajectory': spatial,
            'symbol': text('7' * 300),
        },
        REJECTED,
        ('step', 'bytes', 'same number', 'characters'),
    ),
    Kind(
        'truncated data',
        {
            'image': changed(data=lambda data: data[:-7]),
            'sound': changed(data=lambda data: data[:-3]),
            'trajectory': changed(points=lambda points: points[:1]),
        },
        REJECTED,
        ('bytes', 'points'),
    ),
    Kind('NaN', floats(float('nan')), REJECTED, ('NaN',)),
    Kind('infinity', floats(float('inf')), REJECTED, ('infinity',)),
    Kind(
        'out of range',
        {
            'image': pixels(254),
            'sound': samples(lambda s: s * 0 + 40.0),
            'trajectory': pen(0.0, 1e39),
            'symbol': text('11'),
        },
        REJECTED,
        ('saturated', 'reach', 'infinity', '11'),
    ),
    Kind(
        'clipped',
        {'sound': samples(lambda s: np.clip(50.0 * s, -1.0, 1.0))},
        REJECTED,
        ('clipped',),
    ),
    Kind(
        'names of other joints',
        {'trajectory': changed(joint_names=['elbow', 'wrist'])},
        STALE,
        ('messages name elbow, wrist, but not x, y',),
    ),
    Kind('noise that hides speech', {'sound': hiss}, STALE, ('noisy',)),
    Kind('empty', EMPTY, REJECTED, ('empty', 'no points', '0 points', 'characters')),
    Kind('frozen', {n: StandsStill(old_data) for n in ('image', 'sound')}, REJECTED, ('frozen',)),
    Kind(
        'black, silent, still, unknown',
        {
            'image': pixels(0),
            'sound': samples(lambda s: s * 0),
            'trajectory': pen(1.0),
            'symbol': text('?'),
        },
        REJECTED,
        ('black', 'silent', 'not move', 'unknown'),
    ),
    Kind('flapping', {n: in_turn(change) for n, change in EMPTY.items()}, REJECTED, ('flapping',)),
)
