"""Sensors that are replayed, those that watch digits first: what each shows, how each breaks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from mm_perception.lab.digits.pen import render_stroke
from mm_perception.lab.digits.recordings import LEAD_S, Recording
from mm_perception.lab.replay.playlist import FROZEN, SILENT, Shown
from mm_perception.modalities import Motion, Waveform
from mm_perception.ros.codecs import audio_message, image_message, trajectory_message

Break = Callable[[Any, Any], Any]  # (healthy raw value, sensor) to the broken one
NOISE_FLOOR = 2e-4
NOISE_LEVEL = 0.2
FRAME_VALUES = 480 * 640 * 3


class ReplayedSensor(ABC):
    """
    A sensor that looks at the recording on show, and gives one frame of it after the other.

    :param seed: of its noise.
    """

    name: str
    topic: str
    message_type: type
    broken: Mapping[str, Break]

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self._shown: Shown | None = None
        self._next = 0
        self._raw: Any = None

    @abstractmethod
    def frames(self, shown: Shown, elapsed_s: float, sent: int) -> range:
        """
        Frames that are due.

        :param elapsed_s: since the recording began.
        :param sent: how many were due before.
        """

    @abstractmethod
    def offset_s(self, shown: Shown, frame: int) -> float:
        """When a frame is, since the recording began."""

    @abstractmethod
    def raw(self, shown: Shown, frame: int) -> Any:
        """What a healthy sensor gives as frame ``frame`` of a recording."""

    @abstractmethod
    def message(self, raw: Any, stamp_ns: int) -> Any:
        """Build the message of a raw value."""

    def due(self, shown: Shown, now_ns: int, fault: str | None) -> list[Any]:
        """
        Messages that are due by now and were not sent yet.

        :param fault: one of the schedule's faults, or None.
        """
        if shown is not self._shown:
            self._shown, self._next = shown, 0
        elapsed_s = min((now_ns - shown.start_ns) * 1e-9, shown.duration_s)
        frames = self.frames(shown, elapsed_s, self._next)
        self._next = max(self._next, frames.stop)
        return [m for k in frames if (m := self._frame(shown, k, fault)) is not None]

    def _frame(self, shown: Shown, frame: int, fault: str | None) -> Any | None:
        if fault == SILENT:
            return None
        if fault != FROZEN or self._raw is None:
            self._raw = self.raw(shown, frame)
        raw = self._raw
        if fault is not None and fault in self.broken:
            raw = self.broken[fault](raw, self)
        return self.message(raw, shown.start_ns + round(self.offset_s(shown, frame) * 1e9))


class DigitSensor(ReplayedSensor):
    """
    A sensor that watches digits.

    Its frame k is due ``k * period_s`` after the recording's start, or at the end of its
    period if it has to gather first.

    :param period_s: time between frames.
    """

    gathers = False  # frames follow each other without a gap; none is left out

    def __init__(self, period_s: float, seed: int) -> None:
        super().__init__(seed)
        self.period_s = period_s

    def frames(self, shown: Shown, elapsed_s: float, sent: int) -> range:
        """The newest one, or all since then."""
        if self.gathers:
            end = math.floor(elapsed_s / self.period_s + 1e-6)
            if elapsed_s >= shown.duration_s:
                end = math.ceil(shown.duration_s / self.period_s - 1e-6)
            return range(sent, end)
        last = math.ceil(min(elapsed_s + 1e-9, shown.duration_s - 1e-6) / self.period_s) - 1
        return range(max(last, sent), last + 1)

    def offset_s(self, shown: Shown, frame: int) -> float:
        """One every period."""
        return frame * self.period_s


IMAGE_FAULTS: Mapping[str, Break] = {
    'black': lambda pixels, sensor: np.zeros_like(pixels),
    'nan': lambda pixels, sensor: np.full(pixels.shape[:2], np.nan, np.float32),
    'noise': lambda pixels, sensor: sensor.rng.integers(0, 256, pixels.shape, np.uint8),
}


class Camera(DigitSensor):
    """Sees the digit as drawn, 640x480 rgb8, with noise in the lowest bit."""

    name, topic, message_type = 'image', 'image', Image
    broken = IMAGE_FAULTS

    def __init__(self, period_s: float, seed: int) -> None:
        super().__init__(period_s, seed)
        self._noise = self.rng.integers(0, 2, 2 * FRAME_VALUES, np.uint8)
        self._drawn: Shown | None = None

    def raw(self, shown: Shown, frame: int) -> np.ndarray:
        """Drawn once per recording: ``uint8[480, 640, 3]``; no two frames are equal."""
        if self._drawn is not shown:
            self._drawn = shown
            self._picture = render_stroke(shown.recording.stroke.points)
        start = int(self.rng.integers(FRAME_VALUES))
        noise = self._noise[start : start + FRAME_VALUES]
        return self._picture ^ noise.reshape(self._picture.shape)

    def message(self, raw: np.ndarray, stamp_ns: int) -> Image:
        """See :func:`image_message`."""
        return image_message(raw, stamp_ns)


class Microphone(DigitSensor):
    """Hears the speech, over a faint noise, at the recording's own rate."""

    name, topic, message_type, gathers = 'sound', 'audio', PointCloud2, True
    broken: Mapping[str, Break] = {
        'black': lambda sound, sensor: _with(sound, np.zeros_like(sound.samples)),
        'nan': lambda sound, sensor: _with(sound, np.full_like(sound.samples, np.nan)),
        'noise': lambda sound, sensor: _with(
            sound, _noise(len(sound.samples), NOISE_LEVEL, sensor.rng)
        ),
    }
    _heard: Shown | None = None

    def raw(self, shown: Shown, frame: int) -> Waveform:
        """One chunk; the last of a recording may be shorter."""
        rate_hz = shown.recording.speech.rate_hz
        if self._heard is not shown:
            self._heard = shown
            track = sound_track(shown)
            self._track = track + _noise(len(track), NOISE_FLOOR, self.rng)
        start, end = (round(k * self.period_s * rate_hz) for k in (frame, frame + 1))
        return Waveform(self._track[start:end], rate_hz)

    def message(self, raw: Waveform, stamp_ns: int) -> PointCloud2:
        """See :func:`audio_message`."""
        return audio_message(raw.samples, raw.rate_hz, stamp_ns)


class Pen(DigitSensor):
    """Sends the whole stroke, again and again."""

    name, topic, message_type = 'trajectory', 'trajectory', JointTrajectory
    broken: Mapping[str, Break] = {
        'black': lambda motion, sensor: _moved(motion, np.zeros_like(motion.points)),
        'nan': lambda motion, sensor: _moved(motion, np.full_like(motion.points, np.nan)),
        'noise': lambda motion, sensor: _moved(
            motion, sensor.rng.random(motion.points.shape, np.float32) * np.ptp(motion.points)
        ),
    }

    def raw(self, shown: Shown, frame: int) -> Motion:
        """The stroke in the tablet's units."""
        return shown.recording.stroke

    def message(self, raw: Motion, stamp_ns: int) -> JointTrajectory:
        """See :func:`trajectory_message`."""
        return trajectory_message(raw, stamp_ns)


class Labeller(DigitSensor):
    """
    Says which label it is.

    :param labels: all that exist, of which noise picks a wrong one.
    """

    name, topic, message_type = 'symbol', 'symbol', String

    broken: Mapping[str, Break] = {
        'black': lambda label, sensor: '',
        'nan': lambda label, sensor: 'nan',
        'noise': lambda label, sensor: sensor.wrong(label),
    }

    def __init__(self, period_s: float, seed: int, labels: Collection[str]) -> None:
        super().__init__(period_s, seed)
        self._labels = sorted(labels)

    def wrong(self, label: str) -> str:
        """Any label but this one."""
        return str(self.rng.choice([other for other in self._labels if other != label] or ['']))

    def raw(self, shown: Shown, frame: int) -> str:
        """The label of the recording."""
        return shown.recording.label

    def message(self, raw: str, stamp_ns: int) -> String:
        """A label has no stamp of its own."""
        return String(data=raw)


def make_sensors(
    recordings: Collection[Recording],
    seed: int = 0,
    camera_rate_hz: float = 30.0,
    audio_chunk_s: float = 0.04,
    trajectory_period_s: float = 0.4,
    symbol_period_s: float = 0.3,
) -> tuple[Camera, Microphone, Pen, Labeller]:
    """
    Make the four sensors that watch recordings.

    :param seed: of all noise.
    """
    labels = {recording.label for recording in recordings}
    return (
        Camera(1.0 / camera_rate_hz, seed),
        Microphone(audio_chunk_s, seed + 1),
        Pen(trajectory_period_s, seed + 2),
        Labeller(symbol_period_s, seed + 3, labels),
    )


def _with(sound: Waveform, samples: np.ndarray) -> Waveform:
    return Waveform(samples, sound.rate_hz)


def _moved(motion: Motion, points: np.ndarray) -> Motion:
    return Motion(points, motion.times_s)


def _noise(count: int, level: float, rng: np.random.Generator) -> np.ndarray:
    return level * rng.standard_normal(count, dtype=np.float32)


def sound_track(shown: Shown) -> np.ndarray:
    """What a microphone would hear: the speech, again as often as it fits; ``float32[n]``."""
    speech = shown.recording.speech
    track = np.zeros(round(shown.duration_s * speech.rate_hz), np.float32)
    lead = round(LEAD_S * speech.rate_hz)
    slot = round(shown.recording.needed_s * speech.rate_hz)
    for start in range(lead, len(track) - slot + lead + 1, slot):
        track[start : start + len(speech.samples)] = speech.samples
    return track
