"""The sensors of a robot, replayed from recorded episodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import WrenchStamped
from sensor_msgs.msg import CompressedImage, Image, JointState, PointCloud2
from std_msgs.msg import Float32MultiArray

from mm_perception.errors import DataError
from mm_perception.lab.replay.episodes import Channel, Episodes
from mm_perception.lab.replay.playlist import Shown
from mm_perception.lab.replay.sensors import IMAGE_FAULTS, Break, ReplayedSensor
from mm_perception.ros.codecs import (
    array_message,
    compressed_message,
    image_message,
    input_codec,
    make_header,
    message_name,
    table_message,
)

Build = Callable[[np.ndarray, int, Sequence[str]], Any]  # (raw value, stamp_ns, names)


class EpisodeSensor(ReplayedSensor):
    """
    A sensor that gives what it gave when an episode was recorded, when it gave it.

    :param name: of the modality.
    :raises DataError: if such messages cannot be built.
    :raises ConfigError: if no such modality can come in them.
    """

    def __init__(self, name: str, channel: Channel, seed: int) -> None:
        super().__init__(seed)
        message = input_codec(channel.kind, channel.message).name
        if message not in BUILDERS:
            raise DataError(f'{name}: cannot replay {message}; known: {", ".join(BUILDERS)}')
        self.name, self.topic = name, channel.topic
        self.message_type, self._build = BUILDERS[message]
        self._names = channel.names
        self._is_image = channel.kind == 'image'
        self.broken = IMAGE_FAULTS if self._is_image else VECTOR_FAULTS

    def frames(self, shown: Shown, elapsed_s: float, sent: int) -> range:
        """The newest one."""
        times_s = shown.recording.tracks[self.name].times_s
        end = int(np.searchsorted(times_s, elapsed_s + 1e-6, 'right'))
        return range(max(end - 1, sent), end)

    def offset_s(self, shown: Shown, frame: int) -> float:
        """When it was recorded."""
        return float(shown.recording.tracks[self.name].times_s[frame])

    def raw(self, shown: Shown, frame: int) -> np.ndarray:
        """As recorded; a camera has noise in the lowest bit, so that no two frames are equal."""
        value = shown.recording.tracks[self.name].values[frame]
        if not self._is_image:
            return np.asarray(value)
        return np.asarray(value ^ self.rng.integers(0, 2, value.shape, np.uint8))

    def message(self, raw: np.ndarray, stamp_ns: int) -> Any:
        """What a driver would send."""
        return self._build(raw, stamp_ns, self._names)


def episode_sensors(recorded: Episodes, seed: int = 0) -> list[EpisodeSensor]:
    """
    Make the sensors of a robot.

    :param seed: of their noise.
    :raises DataError: if the messages of one cannot be built.
    """
    channels = recorded.channels.items()
    return [EpisodeSensor(name, c, seed + k) for k, (name, c) in enumerate(channels)]


def _joint_state(values: np.ndarray, stamp_ns: int, names: Sequence[str]) -> JointState:
    return JointState(header=make_header(stamp_ns), name=list(names), position=values.tolist())


def _wrench(values: np.ndarray, stamp_ns: int, names: Sequence[str]) -> WrenchStamped:
    message = WrenchStamped(header=make_header(stamp_ns))
    force, torque = message.wrench.force, message.wrench.torque
    force.x, force.y, force.z, torque.x, torque.y, torque.z = values.tolist()
    return message


BUILDERS: Mapping[str, tuple[type, Build]] = {
    message_name(kind): (kind, build)
    for kind, build in (
        (Image, lambda values, stamp_ns, names: image_message(values, stamp_ns)),
        (CompressedImage, lambda values, stamp_ns, names: compressed_message(values, stamp_ns)),
        (JointState, _joint_state),
        (
            PointCloud2,
            lambda values, stamp_ns, names: table_message(
                {'value': values}, make_header(stamp_ns)
            ),
        ),
        (WrenchStamped, _wrench),
        (Float32MultiArray, lambda values, stamp_ns, names: array_message(values, ['values'])),
    )
}
"""Message type -> the class, and what builds one."""

VECTOR_FAULTS: Mapping[str, Break] = {
    'black': lambda values, sensor: np.zeros_like(values),
    'nan': lambda values, sensor: np.full_like(values, np.nan),
    'noise': lambda values, sensor: values + sensor.rng.standard_normal(values.shape),
}
