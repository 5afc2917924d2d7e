"""A robot that shows one recording to all sensors, and what the node should make of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import cv2
import numpy as np
import rclpy
from rclpy.context import Context
from sensor_msgs.msg import Image
from sensor_msgs.msg import Temperature as Stray
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from mm_perception.bundle import Bundle
from mm_perception.engines.build import build_engine
from mm_perception.errors import InvalidInput
from mm_perception.fusion.gathering import complete
from mm_perception.fusion.session import InferenceSession
from mm_perception.lab.digits.pen import render_stroke
from mm_perception.lab.digits.recordings import Recording
from mm_perception.modalities import Motion, build_modality
from mm_perception.ros.codecs import (
    Draft,
    audio_message,
    image_message,
    input_codec,
    make_header,
    output_codec,
    read_output,
    trajectory_message,
)
from tests.helpers.robot import SENSORS, TOPICS, Robot

NAMES = tuple(SENSORS)
FILLED = {
    'image': Image,
    'trajectory': JointTrajectory,
    'sound': Image,
    'symbol': String,
}
VARIANTS = 8
LEAD_S, PAUSE_S = 0.1, 0.3
Break = Callable[[Any, int], Any]  # (healthy message, count) to another, to bytes, or to None


class Stage(Robot):
    """
    Shows a recording to all sensors, each of which can be broken on its own.

    A sound message holds the whole utterance and the pause that ends it, so that every sensor
    gives a complete value with each message.

    :param recording: on show.
    :param period_s: of every sensor.
    """

    def __init__(self, recording: Recording, namespace: str, period_s: float = 0.06) -> None:
        super().__init__(namespace)
        self.periods_s = dict.fromkeys(NAMES, period_s)  # type: ignore[misc]
        self.recording = recording
        self.broken: dict[str, Break] = {}
        self.count = dict.fromkeys(NAMES, 0)
        self._variants = {name: _variants(recording, name) for name in NAMES}
        # One participant cannot publish two types on a topic.
        self._other_context = Context()
        rclpy.init(context=self._other_context)
        self._stranger = rclpy.create_node(
            'stranger', context=self._other_context, namespace=namespace
        )
        self._strays = {
            topic: self._stranger.create_publisher(Stray, topic, 10) for topic in TOPICS
        }
        for name in NAMES:
            self.watch(f'filled/{name}', FILLED[name])

    def send(self, name: str) -> None:
        """Publish the next message of a sensor, broken if that is its lot."""
        message = self.message(name)
        change = self.broken.get(name)
        if change is not None:
            message = change(message, self.count[name])
        self.count[name] += 1
        if message is not None:
            publishers = self._strays if isinstance(message, Stray) else self.publishers
            publishers[SENSORS[name]].publish(message)

    def close(self) -> None:
        """Leave the graph."""
        super().close()
        self._stranger.destroy_node()
        rclpy.shutdown(context=self._other_context)

    def message(self, name: str) -> Any:
        """Healthy message of a sensor, now."""
        return _message(self._variants[name][self.count[name] % VARIANTS], self.now_ns())


class Oracle:
    """
    What the node should answer, from a session of our own.

    :param bundle: that the node runs.
    :param recording: that all sensors see.
    """

    tolerances: ClassVar[dict[str, float]] = {
        'image': 0.05,  # the ink is found anew; another digit is 0.095 off at least
        'trajectory': 0.02,
        'sound': 0.02,
        'symbol': 0.02,
    }

    def __init__(self, bundle: Bundle, recording: Recording) -> None:
        self._session = InferenceSession(build_engine(bundle, 'cpu'), bundle.spec)
        self._expected: dict[frozenset[str], dict[str, np.ndarray]] = {}
        self._modalities = {spec.name: build_modality(spec) for spec in bundle.spec.modalities}
        self.arrays: dict[str, np.ndarray] = {}
        self._messages: dict[str, Any] = {}
        for spec in bundle.spec.modalities:
            modality = self._modalities[spec.name]
            message = _message(_variants(recording, spec.name)[0], 10**18)
            codec = input_codec(spec.kind)
            self._messages[spec.name] = message
            raw, stamp_ns = codec.decode(message, 10**18, modality)
            window = modality.new_window()
            window.push(complete(raw), stamp_ns)
            assert window.latest is not None, spec.name
            self.arrays[spec.name] = modality.to_model(window.latest.raw)
            self._session.update(spec.name, self.arrays[spec.name])

    def filled(self, used: set[str]) -> dict[str, np.ndarray]:
        """All modalities, as they are where they are used and generated where they are not."""
        key = frozenset(used)
        if key not in self._expected:
            missing = [name for name in NAMES if name not in used]
            generated = self._session.infer(used, missing).reconstructions
            made = {name: self._sent(name, array[0]) for name, array in generated.items()}
            self._expected[key] = self.arrays | made
        return self._expected[key]

    def _sent(self, name: str, array: np.ndarray) -> np.ndarray:
        """An array as it is after its journey in a message."""
        modality = self._modalities[name]
        kind = modality.spec.kind
        codec, header = input_codec(kind), make_header(1)
        if codec.write is None:
            return output_codec(kind).decode(
                modality, output_codec(kind).encode(modality, array, header)
            )
        message = codec.write(Draft(modality, array, header, self._messages[name]))
        return read_output(modality, codec, message)

    def distance(self, name: str, message: Any, used: set[str]) -> float:
        """Mean distance of ``filled/<name>`` from what it should be, in model units."""
        modality = self._modalities[name]
        try:
            filled = read_output(modality, input_codec(modality.spec.kind), message)
        except InvalidInput:  # a message that passed before its fault was found
            return math.inf
        return float(np.abs(filled - self.filled(used)[name]).mean())


def lie(recording: Recording) -> dict[str, Break]:
    """Break every sensor so that it sees another recording."""

    def of(name: str) -> Break:
        variants = _variants(recording, name)
        return lambda message, count: _message(variants[count % VARIANTS], time.time_ns())

    return {name: of(name) for name in NAMES}


def stages(recording: Recording, namespace: str) -> Iterator[Stage]:
    """Yield a stage and take it off the graph afterwards; for fixtures."""
    stage = Stage(recording, namespace)
    try:
        yield stage
    finally:
        stage.close()


def _variants(recording: Recording, name: str) -> list[Any]:
    """What a sensor sees, again and again with other noise."""
    rng = np.random.default_rng(0)
    return [_RAW[name](recording, rng) for _ in range(VARIANTS)]


def _picture(recording: Recording, rng: np.random.Generator) -> np.ndarray:
    picture = cv2.resize(render_stroke(recording.stroke.points), (160, 120))
    return picture ^ rng.integers(0, 2, picture.shape, np.uint8)


def _sound(recording: Recording, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    rate_hz = recording.speech.rate_hz
    lead, pause = np.zeros(int(LEAD_S * rate_hz)), np.zeros(int(PAUSE_S * rate_hz))
    samples = np.concatenate((lead, recording.speech.samples, pause))
    samples = np.pad(samples, (0, -len(samples) % (rate_hz // 50)))  # whole frames
    return (samples + 1e-4 * rng.standard_normal(len(samples))).astype(np.float32), rate_hz


def _stroke(recording: Recording, rng: np.random.Generator) -> Motion:
    points = recording.stroke.points
    noise = 1e-4 * np.ptp(points) * rng.standard_normal(points.shape)
    return Motion((points + noise).astype(np.float32), recording.stroke.times_s)


_RAW: dict[str, Callable[[Recording, np.random.Generator], Any]] = {
    'image': _picture,
    'sound': _sound,
    'trajectory': _stroke,
    'symbol': lambda recording, rng: recording.label,
}


def _message(raw: Any, now_ns: int) -> Any:
    return _MESSAGES[type(raw)](raw, now_ns)


def _sound_message(raw: tuple[np.ndarray, int], now_ns: int) -> Any:
    samples, rate_hz = raw
    return audio_message(samples, rate_hz, now_ns - int(len(samples) / rate_hz * 1e9))


_MESSAGES: dict[type, Callable[[Any, int], Any]] = {
    np.ndarray: image_message,
    tuple: _sound_message,
    Motion: trajectory_message,
    str: lambda label, now_ns: String(data=label),
}
