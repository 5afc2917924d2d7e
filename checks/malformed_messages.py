"""Real sensor messages, and what becomes of them on a bad day: the input of fuzz tests."""

from __future__ import annotations

import random
import re
import struct
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from geometry_msgs.msg import (
    Point,
    PointStamped,
    Pose,
    PoseStamped,
    Vector3,
    Wrench,
    WrenchStamped,
)
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Imu, JointState, NavSatFix
from std_msgs.msg import Float32MultiArray, Int16MultiArray, String, UInt8MultiArray

from mm_perception.lab.digits.pen import render_stroke
from mm_perception.lab.digits.recordings import Recording, load_recordings
from mm_perception.modalities import Motion
from mm_perception.resources import share_directory
from mm_perception.ros.codecs import (
    audio_message,
    image_message,
    make_header,
    message_name,
    table_message,
    trajectory_message,
)

INTEGERS = (0, 1, 2, 3, 4, 7, 8, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)
FLOATS = (0.0, -0.0, 1.0, -1.0, float('nan'), float('inf'), float('-inf'), 1e-310, 1e38, 1e308)
STRINGS = (
    '', 'x', 't', 'ch0', 'mono8', 'rgb8', 'bgra8', '16UC1', '32FC1', 'bayer_rggb8', '3', '10',
    '\0', '\n', 'é', 'x' * 300, '{}', '%s%n', '../../etc',
)  # fmt: skip
ARRAY_TYPES = {'uint8': 'B', 'int8': 'b', 'float': 'f', 'double': 'd'}
SEQUENCE = re.compile(r'sequence<([^,>]+)(?:, \d+)?>|(.+)\[\d+\]')


@dataclass(frozen=True)
class RealMessage:
    """
    A message as a sensor sends it.

    :param data: serialised.
    :param stamped: whether it begins with a header.
    """

    message_type: type
    data: bytes
    stamped: bool

    def at(self, stamp_ns: int) -> RealMessage:
        """The same message sent at another time."""
        if not self.stamped:
            return self
        stamp = struct.pack('<iI', *divmod(stamp_ns, 1_000_000_000))
        return replace(self, data=self.data[:4] + stamp + self.data[12:])


def real_messages(count: int = 8) -> dict[str, list[RealMessage]]:
    """
    Messages of every type that a modality can come in, from the recordings of the bundle ``mhd``.

    :param count: recordings to use.
    :returns: name of a message type such as ``sensor_msgs/msg/Image`` to messages of it; a
        ``JointState`` has the numbers of an arm of two joints.
    """
    recordings = load_recordings(share_directory() / 'models' / 'mhd' / 'recordings')
    step = max(len(recordings) // count, 1)
    messages: dict[str, list[RealMessage]] = {}
    for recording in recordings[::step][:count]:
        for message in _messages_of(recording):
            real = RealMessage(
                type(message), bytes(serialize_message(message)), hasattr(message, 'header')
            )
            messages.setdefault(message_name(type(message)), []).append(real)
    return messages


def _messages_of(recording: Recording) -> list[Any]:
    pixels = cv2.resize(render_stroke(recording.stroke.points), (64, 48))
    header = make_header(0, 'sensor')
    chunk = recording.speech.samples[:400]
    x, y = map(float, recording.stroke.points[0])
    thrust = Vector3(x=x, y=y, z=1.0)
    return [
        image_message(pixels, 0),
        image_message(pixels[..., 0], 0),
        image_message(pixels[..., 0].astype(np.float32) / 255.0, 0),
        *(
            CompressedImage(header=header, format=kind, data=array('B', data.tobytes()))
            for kind in ('png', 'jpeg')
            for data in [cv2.imencode(f'.{kind}', pixels)[1]]
        ),
        audio_message(chunk, recording.speech.rate_hz, 0),
        audio_message(np.stack((chunk, chunk), axis=1), recording.speech.rate_hz, 0),
        trajectory_message(Motion(recording.stroke.points[::4], recording.stroke.times_s[::4]), 0),
        PointStamped(header=header, point=Point(x=x, y=y, z=0.0)),
        JointState(header=header, name=['elbow', 'wrist'], position=[x, y]),
        String(data=recording.label),
        Float32MultiArray(data=[x, y]),
        WrenchStamped(header=header, wrench=Wrench(force=thrust, torque=thrust)),
        UInt8MultiArray(data=array('B', (chunk * 32767).astype('<i2').tobytes())),
        Int16MultiArray(data=(chunk * 32767).astype(int).tolist()),
        Float32MultiArray(data=chunk.tolist()),
        table_message({'a': np.float32([x]), 'b': np.float32([y])}, header),
        NavSatFix(header=header, latitude=47.0, longitude=8.0, altitude=y),
        PoseStamped(header=header, pose=Pose(position=Point(x=x, y=y, z=1.0))),
        Imu(header=header, angular_velocity=thrust, linear_acceleration=thrust),
    ]


def keep(real: RealMessage, rng: random.Random) -> Any:
    """The message as it was sent."""
    return deserialize_message(real.data, real.message_type)


def break_fields(real: RealMessage, rng: random.Random) -> Any:
    """The message with other values, of the right types, in one to three of its fields."""
    broken = keep(real, rng)
    for _ in range(rng.randint(1, 3)):
        owner, name, kind = rng.choice(_fields(broken))
        # What the class of the message refuses, no other sender could send either.
        with suppress(AssertionError, OverflowError):
            setattr(owner, name, _other_value(getattr(owner, name), kind, rng))
    return broken


def break_bytes(real: RealMessage, rng: random.Random) -> Any | None:
    """The message with its serialised form damaged; None if the middleware refuses it."""
    data = bytearray(real.data)
    for _ in range(rng.randint(1, 4)):
        rng.choice(DAMAGES)(data, rng)
    try:
        return deserialize_message(bytes(data), real.message_type)
    except Exception:  # noqa: BLE001 - rclpy has no type for it; the middleware drops such data
        return None


BREAKS = (keep, break_fields, break_bytes)


def _fields(message: Any) -> list[tuple[Any, str, str]]:
    """All fields down to the leaves: (message that has it, name, type)."""
    found = []
    for name, kind in message.get_fields_and_field_types().items():
        value = getattr(message, name)
        found.append((message, name, kind))
        if hasattr(value, 'get_fields_and_field_types'):
            found.pop()
            found += _fields(value)
        elif isinstance(value, list) and value and hasattr(value[0], '__slots__'):
            found += _fields(value[len(value) // 2])
    return found


def _other_value(value: Any, kind: str, rng: random.Random) -> Any:
    sequence = SEQUENCE.fullmatch(kind)
    if sequence is not None:
        return _other_sequence(value, sequence[1] or sequence[2], rng)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        other = rng.choice(
            (rng.choice(INTEGERS), rng.getrandbits(32), value + rng.choice((-1, 1)))
        )
        low, high = integer_range(kind)
        return min(max(other, low), high)
    if isinstance(value, float):
        return rng.choice((rng.choice(FLOATS), rng.uniform(-1e3, 1e3), value * 1e6))
    if isinstance(value, str):
        return rng.choice((rng.choice(STRINGS), value[:-1], value + value))
    return value


def integer_range(kind: str) -> tuple[int, int]:
    """Smallest and largest value of an integer type; nothing else can be sent."""
    bits = int(kind.lstrip('uint'))
    return (0, 2**bits - 1) if kind[0] == 'u' else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _other_sequence(value: Sequence[Any], element: str, rng: random.Random) -> Any:
    items = list(value[:4000])
    change = rng.choice(SEQUENCE_CHANGES)
    changed = change(items, element, rng)
    code = ARRAY_TYPES.get(element)
    return changed if code is None else array(code, changed)


def _replaced(items: list[Any], element: str, rng: random.Random) -> list[Any]:
    if items and not hasattr(items[0], '__slots__'):
        for _ in range(rng.randint(1, 4)):
            index = rng.randrange(len(items))
            items[index] = _other_value(items[index], element, rng)
    return items


SEQUENCE_CHANGES: tuple[Callable[[list[Any], str, random.Random], list[Any]], ...] = (
    lambda items, element, rng: [],
    lambda items, element, rng: items[: rng.randint(0, len(items))],
    lambda items, element, rng: items[:1] * rng.randint(1, 50),
    lambda items, element, rng: items + items,
    lambda items, element, rng: items[::-1],
    _replaced,
    _replaced,
)


def _flip(data: bytearray, rng: random.Random) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _overwrite(data: bytearray, rng: random.Random) -> None:
    # Where lengths, sizes and stamps stand.
    start = rng.randrange(max(min(len(data), 80), 1))
    data[start : start + 4] = rng.choice(INTEGERS).to_bytes(4, 'little')


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randint(0, len(data)) :]


def _drop(data: bytearray, rng: random.Random) -> None:
    start = rng.randint(0, len(data))
    del data[start : start + rng.randint(1, 16)]


def _insert(data: bytearray, rng: random.Random) -> None:
    start = rng.randint(0, len(data))
    data[start:start] = rng.randbytes(rng.randint(1, 16))


DAMAGES = (_flip, _flip, _overwrite, _overwrite, _cut, _drop, _insert)
