"""A robot: four sensors at full rates, and a consumer of the latent, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import UInt64

from mm_perception.bundle import Bundle, find_bundle
from mm_perception.lab.benchmark import echo_node
from mm_perception.lab.digits.recordings import load_recordings
from mm_perception.lab.replay.playlist import Playlist
from mm_perception.lab.replay.sensors import Camera, Labeller, Microphone, Pen, ReplayedSensor
from mm_perception.ros.codecs import stamp_of

CAMERA_HZ, AUDIO_CHUNK_S, STROKE_PERIOD_S, LABEL_PERIOD_S = 30.0, 0.04, 0.4, 0.3
DIGIT_S = 1.0
STEP_S = 0.004
DEPTH = 5  # of a camera driver
WITH_RECORDINGS = 'mhd'


class Robot:
    """
    Publishes recordings as sensors do, and takes the time until something comes back.

    :param bundle: whose recordings are played, or those of ``mhd`` where it has none.
    :param reliable: quality of service of the camera.
    """

    def __init__(self, bundle: Bundle, domain_id: int, reliable: bool = False) -> None:
        folders = (bundle.path / 'recordings', find_bundle(WITH_RECORDINGS) / 'recordings')
        self._recordings = load_recordings(next(f for f in folders if f.is_dir()))
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self._node = Node('robot', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        labels = {recording.label for recording in self._recordings}
        self._sensors: tuple[ReplayedSensor, ...] = (
            Camera(1.0 / CAMERA_HZ, 0),
            Microphone(AUDIO_CHUNK_S, 1),
            Pen(STROKE_PERIOD_S, 2),
            Labeller(LABEL_PERIOD_S, 3, labels),
        )
        reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        camera_qos = QoSProfile(depth=DEPTH, reliability=reliability)
        self._publishers = {
            s.topic: self._node.create_publisher(
                s.message_type, s.topic, camera_qos if isinstance(s, Camera) else 10
            )
            for s in self._sensors
        }
        self._echo = self._node.create_publisher(Image, echo_node.INPUT, camera_qos)
        self.images_sent = 0
        self.images_counted = 0
        self.diagnostics: dict[str, dict[str, str]] = {}
        self._sent_ns: dict[int, int] = {}
        self._received_ns: dict[int, int] = {}
        for kind, topic, take in (
            (PointCloud2, 'latent', self._take_answer),
            (Image, echo_node.OUTPUT, self._take_answer),
            (UInt64, echo_node.COUNTED, self._take_count),
            (DiagnosticArray, '/diagnostics', self._take_diagnostics),
        ):
            self._node.create_subscription(kind, topic, take, DEPTH)

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    def send_to_node(self, seconds: float, until: Callable[[], Any] = bool) -> None:
        """
        Let all four sensors publish.

        :param until: ends it before the time is over when it becomes true.
        """
        self._play(seconds, self._sensors, self._publishers, until)

    def send_to_echo(self, seconds: float, until: Callable[[], Any] = bool) -> None:
        """Let the camera publish to the echo node, nothing else; ``until`` as above."""
        self._play(seconds, self._sensors[:1], {Camera.topic: self._echo}, until)

    def listen(self, seconds: float, until: Callable[[], Any] = bool) -> None:
        """Send nothing; ``until`` as above."""
        self._play(seconds, (), {}, until)

    def take_latencies_ms(self) -> np.ndarray:
        """
        Times from the publishing of each image until its answer came, since the last call.

        :returns: ``float[images]``, NaN where none with its stamp came.
        """
        sent, received = self._sent_ns, self._received_ns
        self._sent_ns, self._received_ns = {}, {}
        answers = [(received.get(stamp, np.nan) - begin) for stamp, begin in sent.items()]
        return np.array(answers, float) * 1e-6

    @property
    def answered(self) -> bool:
        """Whether a latent or an echo came since the latencies were taken."""
        return bool(self._received_ns)

    def listeners(self) -> int:
        """How many listen to the camera."""
        return int(self._publishers[Camera.topic].get_subscription_count())

    def images_received(self) -> int:
        """How many images the node says it received; -1 before it says anything."""
        return int(self.diagnostics.get('cmi: image', {}).get('received', -1))

    def engine(self) -> str:
        """Engine that the node says it runs."""
        return self.diagnostics.get('cmi: fusion', {}).get('engine', '')

    def _play(
        self,
        seconds: float,
        sensors: tuple[ReplayedSensor, ...],
        publishers: Mapping[str, Any],
        until: Callable[[], Any],
    ) -> None:
        playlist = Playlist(self._recordings, DIGIT_S, 0, time.time_ns())
        for sensor in sensors:
            sensor.restart()
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s and not until():
            now_ns = time.time_ns()
            self._send(playlist, now_ns, sensors, publishers)
            while now_ns >= playlist.shown.end_ns:
                playlist.advance()
                for sensor in sensors:
                    sensor.restart()
                self._send(playlist, now_ns, sensors, publishers)
            self._executor.spin_once(timeout_sec=STEP_S)

    def _send(
        self,
        playlist: Playlist,
        now_ns: int,
        sensors: tuple[ReplayedSensor, ...],
        publishers: Mapping[str, Any],
    ) -> None:
        for sensor in sensors:
            for message in sensor.due(playlist.shown, now_ns, None):
                if isinstance(message, Image):
                    self.images_sent += 1
                    message.header.frame_id = str(self.images_sent)
                    self._sent_ns[stamp_of(message.header, 0)] = time.monotonic_ns()
                publishers[sensor.topic].publish(message)

    def _take_answer(self, message: Any) -> None:
        self._received_ns.setdefault(stamp_of(message.header, 0), time.monotonic_ns())

    def _take_count(self, message: UInt64) -> None:
        self.images_counted = message.data

    def _take_diagnostics(self, message: DiagnosticArray) -> None:
        for entry in message.status:
            self.diagnostics[entry.name] = {v.key: v.value for v in entry.values}
