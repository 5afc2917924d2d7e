"""The node ``microphone``: captures sound and publishes it as ``audio``."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import PointCloud2

from mm_perception.errors import ConfigError, MissingDependency, MMPerceptionError
from mm_perception.ros.codecs import audio_message
from mm_perception.ros.codecs.base import as_bytes, load_messages, make_header
from mm_perception.ros.lifecycle import run_node, steady_clock
from mm_perception.ros.parameters import Parameters, ParameterSpec
from mm_perception.ros.qos import latched_qos, overridable

FULL_SCALE = 32768.0
MAX_DRIFT_NS = 100_000_000
PATIENCE_NS = 1_000_000_000
ROWS = (
    ParameterSpec(
        'device', '', 'Part of the name of an input device, or its number; empty: default.', True
    ),
    ParameterSpec('rate_hz', 16000, 'Samples per second.', True, span=(1000, 384000)),
    ParameterSpec('channels', 1, 'Number of channels.', True, span=(1, 64)),
    ParameterSpec('chunk_s', 0.04, 'Length of one message (s).', True, span=(0.005, 1.0)),
    ParameterSpec(
        'paced', False, 'Read no faster than real time, for devices that are files.', True
    ),
    ParameterSpec('frame_id', 'microphone', 'Frame of the messages.', True),
    ParameterSpec(
        'audio_common',
        False,
        'Publish audio_stamped and audio_info too, in the messages of audio_common_msgs.',
        True,
    ),
)


class MicrophoneLost(MMPerceptionError):
    """The device ceased to deliver."""


class MicrophoneNode(Node):
    """Reads a sound device, a chunk at a time; each is stamped with its first sample's time."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('microphone', **kwargs)
        self.parameters = Parameters(self)
        self.parameters.declare(ROWS)
        self.parameters.warn_unknown()
        self._rate_hz = int(self.parameters['rate_hz'])
        self._count = max(round(self.parameters['chunk_s'] * self._rate_hz), 2)
        self._frame_id = self.parameters['frame_id']
        self._stream: Any = None
        self._sound = load_sounddevice()
        messages = None
        if self.parameters['audio_common']:
            messages = load_messages('audio_common_msgs', 'AudioDataStamped', 'audio_common')
        self._open()
        self._publisher = self.create_publisher(
            PointCloud2, 'audio', QoSProfile(depth=10), qos_overriding_options=overridable()
        )
        self._common = self._advertise_common(messages) if messages else None
        self._clock_of_samples = SampleClock(self._rate_hz)
        self._begin_s = time.monotonic()
        self._captured = 0
        # Twice as often as there are chunks: the device sets the pace, never the timer.
        self.create_timer(0.5 * self._count / self._rate_hz, self._capture, clock=steady_clock())

    def release(self) -> None:
        """Let the device go."""
        if self._stream is not None:
            self._stream.close(ignore_errors=True)
            self._stream = None

    def _open(self) -> None:
        """
        Open the device.

        :raises ConfigError: if there is none, or it cannot do what is asked.
        """
        named = self.parameters['device']
        device = int(named) if named.isdigit() else named or None
        channels = self.parameters['channels']
        try:
            self._stream = self._sound.InputStream(
                device=device, samplerate=self._rate_hz, channels=channels,
                dtype='int16', blocksize=self._count,
            )  # fmt: skip
            self._stream.start()
        except (ValueError, self._sound.PortAudioError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f'cannot record {channels} channels at {self._rate_hz} Hz from device'
                f' "{named or "default"}" ({reason}); input devices: {self._input_devices()}'
            ) from error
        name = self._sound.query_devices(self._stream.device)['name']
        self.get_logger().info(f'recording from "{name}" at {self._rate_hz} Hz')

    def _input_devices(self) -> str:
        devices = input_devices(self._sound)
        return ', '.join(f'{each.number} "{each.name}"' for each in devices) or 'none'

    def _advertise_common(self, messages: ModuleType) -> Any:
        """Offer what audio_capture of audio_common does; returns what publishes a chunk."""
        channels = self.parameters['channels']
        info = self.create_publisher(messages.AudioInfo, 'audio_info', latched_qos())
        info.publish(
            messages.AudioInfo(
                channels=channels,
                sample_rate=self._rate_hz,
                sample_format='S16LE',
                bitrate=16 * channels * self._rate_hz,
                coding_format='wave',
            )
        )
        publisher = self.create_publisher(
            messages.AudioDataStamped,
            'audio_stamped',
            QoSProfile(depth=10),
            qos_overriding_options=overridable(),
        )

        def publish(samples: NDArray[np.int16], stamp_ns: int) -> None:
            audio = messages.AudioData(data=as_bytes(samples.astype('<i2')))
            header = make_header(stamp_ns, self._frame_id)
            publisher.publish(messages.AudioDataStamped(header=header, audio=audio))

        return publish

    def _capture(self) -> None:
        """Take one chunk, waiting for it if it is not complete yet."""
        ahead_s = self._captured / self._rate_hz - (time.monotonic() - self._begin_s)
        if self.parameters['paced'] and ahead_s > 0:
            return
        try:
            samples, overflowed = self._stream.read(self._count)
        except self._sound.PortAudioError as error:
            raise MicrophoneLost(f'the device ceased to deliver ({error}); restart') from error
        if overflowed:
            self.get_logger().warning('samples were lost: this machine is too slow or too busy')
        self._captured += self._count
        now_ns = self.get_clock().now().nanoseconds
        stamp_ns = self._clock_of_samples.stamp_ns(self._count, now_ns, overflowed)
        if self._common is not None:
            self._common(samples, stamp_ns)
        values = samples.astype(np.float32) / FULL_SCALE
        self._publisher.publish(audio_message(values, self._rate_hz, stamp_ns, self._frame_id))


class SampleClock:
    """
    Times of chunks that follow each other: counted in samples, held to the clock.

    A chunk that is read late is no gap: the device kept it, and the next ones are read at once.
    So the count follows a clock that is ahead only after samples were lost, or for good.

    :param rate_hz: samples per second.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._next_ns: int | None = None
        self._late_ns = 0

    def stamp_ns(self, count: int, now_ns: int, lost: bool = False) -> int:
        """
        Time of the first sample of a chunk.

        :param count: samples in the chunk.
        :param now_ns: when its last sample was there, or later.
        :param lost: whether samples before it were lost.
        """
        length_ns = count * 1_000_000_000 // self._rate_hz
        by_clock_ns = now_ns - length_ns
        lag_ns = 0 if self._next_ns is None else by_clock_ns - self._next_ns
        self._late_ns = self._late_ns + length_ns if lag_ns > MAX_DRIFT_NS else 0
        if self._next_ns is None or lost or lag_ns < -MAX_DRIFT_NS or self._late_ns > PATIENCE_NS:
            self._next_ns = by_clock_ns
            self._late_ns = 0
        stamp_ns = self._next_ns
        self._next_ns += length_ns
        return stamp_ns


@dataclass(frozen=True)
class InputDevice:
    """
    A sound device that can record.

    :param number: by which the parameter ``device`` may name it.
    :param default: whether an empty ``device`` means it.
    :param rate_hz: at which it records unless asked for another.
    """

    number: int
    name: str
    channels: int
    rate_hz: float
    default: bool


def input_devices(sound: ModuleType) -> list[InputDevice]:
    """List the devices that can record, by what :func:`load_sounddevice` gave."""
    usual = sound.default.device[0]
    return [
        InputDevice(
            number,
            device['name'],
            device['max_input_channels'],
            device['default_samplerate'],
            number == usual,
        )
        for number, device in enumerate(sound.query_devices())
        if device['max_input_channels'] > 0
    ]


def load_sounddevice() -> ModuleType:
    """
    Import the sound library.

    :raises MissingDependency: if it, or PortAudio, is not installed.
    """
    try:
        import sounddevice
    except ModuleNotFoundError as error:
        raise MissingDependency(
            'microphone_node needs sounddevice: pip install sounddevice'
        ) from (error)
    except OSError as error:
        raise MissingDependency(
            'microphone_node needs PortAudio: sudo apt-get install libportaudio2'
        ) from error
    return sounddevice


def main(args: list[str] | None = None) -> int:
    """Run the node in a process of its own."""
    return run_node(MicrophoneNode, args=args)


if __name__ == '__main__':
    sys.exit(main())
