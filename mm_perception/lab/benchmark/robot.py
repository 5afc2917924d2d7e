"""A robot: four sensors at full rates, and a consumer of the latent, in one process."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import UInt64

from mm_perception.bundle import Bundle, find_bundle
from mm_perception.lab.benchmark import echo_node
from mm_perception.lab.digits.recordings import load_recordings
from mm_perception.lab.harness.client import RosClient
from mm_perception.lab.replay.playlist import Playlist
from mm_perception.lab.replay.sensors import Camera, ReplayedSensor, make_sensors
from mm_perception.ros.codecs import stamp_of

DIGIT_S = 1.0
DEPTH = 5  # of a camera driver
WITH_RECORDINGS = 'mhd'


class Robot(RosClient):
    """
    Publishes recordings as sensors do, and takes the time until something comes back.

    What it sends while it goes on (:meth:`step`) is said by :meth:`feed_node`,
    :meth:`feed_echo` and :meth:`rest`.

    :param bundle: whose recordings are played, or those of ``mhd`` where it has none.
    :param reliable: quality of service of the camera.
    """

    step_s = 0.004

    def __init__(self, bundle: Bundle, domain_id: int, reliable: bool = False) -> None:
        super().__init__('robot', domain_id)
        folders = (bundle.path / 'recordings', find_bundle(WITH_RECORDINGS) / 'recordings')
        self._recordings = load_recordings(next(f for f in folders if f.is_dir()))
        self._sensors = make_sensors(self._recordings)
        reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        camera_qos = QoSProfile(depth=DEPTH, reliability=reliability)
        self._publishers = {
            s.topic: self.node.create_publisher(
                s.message_type, s.topic, camera_qos if isinstance(s, Camera) else 10
            )
            for s in self._sensors
        }
        self._echo = self.node.create_publisher(Image, echo_node.INPUT, camera_qos)
        self.images_sent = 0
        self.images_counted = 0
        self.diagnostics: dict[str, dict[str, str]] = {}
        self._sent_ns: dict[int, int] = {}
        self._received_ns: dict[int, int] = {}
        self.rest()
        for kind, topic, take in (
            (PointCloud2, 'latent', self._take_answer),
            (Image, echo_node.OUTPUT, self._take_answer),
            (UInt64, echo_node.COUNTED, self._take_count),
            (DiagnosticArray, '/diagnostics', self._take_diagnostics),
        ):
            self.subscribe(kind, topic, take, DEPTH)

    def feed_node(self) -> None:
        """From now on all four sensors publish."""
        self._play(self._sensors, self._publishers)

    def feed_echo(self) -> None:
        """From now on the camera alone publishes, to the echo node."""
        self._play(self._sensors[:1], {Camera.topic: self._echo})

    def rest(self) -> None:
        """From now on nothing is sent."""
        self._play((), {})

    def step(self) -> None:
        """Publish what is due, take what has arrived."""
        now_ns = time.time_ns()
        for shown in self._playlist.until(now_ns):
            for sensor in self._active:
                for message in sensor.due(shown, now_ns, None):
                    if isinstance(message, Image):
                        self.images_sent += 1
                        message.header.frame_id = str(self.images_sent)
                        self._sent_ns[stamp_of(message.header, 0)] = time.monotonic_ns()
                    self._to[sensor.topic].publish(message)
        super().step()

    def take_latencies_ms(self) -> np.ndarray:
        """
        Times from the publishing of each image until its answer came, since the last call.

        :returns: ``float[images]``, NaN where none with its stamp came.
        """
        sent, received = self._sent_ns, self._received_ns
        self._sent_ns, self._received_ns = {}, {}
        answers = [(received.get(stamp, np.nan) - begin) for stamp, begin in sent.items()]
        return np.array(answers, float) * 1e-6

    def answered(self) -> bool:
        """Whether a latent or an echo came since the latencies were taken."""
        return bool(self._received_ns)

    def images_received(self) -> int:
        """How many images the node says it received; -1 before it says anything."""
        return int(self.diagnostics.get('cmi: image', {}).get('received', -1))

    def engine(self) -> str:
        """Engine that the node says it runs."""
        return self.diagnostics.get('cmi: fusion', {}).get('engine', '')

    def _play(self, sensors: Sequence[ReplayedSensor], to: Mapping[str, Any]) -> None:
        self._active, self._to = sensors, to
        self._playlist = Playlist(self._recordings, DIGIT_S, 0, time.time_ns())

    def _take_answer(self, message: Any) -> None:
        self._received_ns.setdefault(stamp_of(message.header, 0), time.monotonic_ns())

    def _take_count(self, message: UInt64) -> None:
        self.images_counted = message.data

    def _take_diagnostics(self, message: DiagnosticArray) -> None:
        for entry in message.status:
            self.diagnostics[entry.name] = {v.key: v.value for v in entry.values}
