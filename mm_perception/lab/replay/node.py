"""The node ``replay``: plays recordings as live sensors, and lets them fail by a schedule."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import String

from mm_perception.bundle import find_bundle
from mm_perception.errors import DataError
from mm_perception.fusion.streams import ClockWatch
from mm_perception.lab.digits.recordings import Recording, load_recordings, real_recordings
from mm_perception.lab.replay.playlist import (
    Playlist,
    Shown,
    active_faults,
    parse_schedule,
    phase_name,
)
from mm_perception.lab.replay.sensors import Camera, make_sensors
from mm_perception.ros.lifecycle import run_node, steady_clock
from mm_perception.ros.parameters import Parameters, ParameterSpec
from mm_perception.ros.qos import overridable

STEP_S = 0.005
TRUTH_PERIOD_S = 0.2
REAL = 'real'
PER_LABEL = 24
RELIABILITY = {
    'best_effort': ReliabilityPolicy.BEST_EFFORT,
    'reliable': ReliabilityPolicy.RELIABLE,
}
ROWS = (
    ParameterSpec(
        'recordings',
        '',
        'Folder of recordings; empty for those of the bundle; real for test recordings of'
        ' pendigits and FSDD.',
        True,
    ),
    ParameterSpec('data_root', '', 'Folder of the raw recordings, for recordings:=real.', True),
    ParameterSpec(
        'bundle', 'mhd', 'Bundle whose recordings are played: a name or a folder.', True
    ),
    ParameterSpec('seed', 0, 'Of the order and of all noise.', True, span=(0, 2**31 - 1)),
    ParameterSpec(
        'digit_period_s', 1.0, 'How long a digit is shown, at least.', True, span=(0.2, 3600.0)
    ),
    ParameterSpec('camera_rate_hz', 30.0, 'Frames per second.', True, span=(0.1, 200.0)),
    ParameterSpec('audio_chunk_s', 0.04, 'Length of a chunk of sound.', True, span=(0.005, 1.0)),
    ParameterSpec('trajectory_period_s', 0.4, 'Time between strokes.', True, span=(0.02, 3600.0)),
    ParameterSpec('symbol_period_s', 0.3, 'Time between labels.', True, span=(0.02, 3600.0)),
    ParameterSpec(
        'image_reliability',
        'best_effort',
        'Quality of service of the camera.',
        True,
        choices=tuple(RELIABILITY),
    ),
    ParameterSpec(
        'wait_for_subscribers',
        False,
        'Begin when every sensor topic has a subscriber, rather than at once.',
        True,
    ),
    ParameterSpec(
        'schedule',
        '',
        'Failures, a JSON list of {sensors, start_s, duration_s, fault, phase}; fault is'
        ' silent, frozen, black, nan or noise.',
        True,
    ),
)


class ReplayNode(Node):
    """
    Publishes ``image``, ``audio``, ``trajectory`` and ``symbol`` of one digit after the other.

    The truth goes to ``~/truth`` for whoever observes: a JSON object with ``label``, ``index``,
    ``source``, ``start_ns`` (of the digit), ``schedule_start_ns``, ``elapsed_s``, ``phase`` and
    ``faults`` (sensor to fault).
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('replay', **kwargs)
        self.parameters = Parameters(self)
        self.parameters.declare(ROWS)
        self._recordings = self._load()
        get = self.parameters
        self._sensors = make_sensors(
            self._recordings,
            get['seed'],
            get['camera_rate_hz'],
            get['audio_chunk_s'],
            get['trajectory_period_s'],
            get['symbol_period_s'],
        )
        names = [sensor.name for sensor in self._sensors]
        self._schedule = parse_schedule(self.parameters['schedule'], names)
        self._publishers_of = {
            s.name: self.create_publisher(
                s.message_type, s.topic, self._qos(s.name), qos_overriding_options=overridable()
            )
            for s in self._sensors
        }
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._truth = self.create_publisher(String, '~/truth', latched)
        self._playlist: Playlist | None = None
        self._told: Shown | None = None
        self._truth_due_ns = 0
        self._clock_watch = ClockWatch()
        self.create_timer(STEP_S, self._step, clock=steady_clock())
        self.get_logger().info(
            f'{len(self._recordings)} recordings, {len(self._schedule)} scheduled failures'
        )

    def release(self) -> None:
        """Nothing to undo; nodes that are run have this."""

    def _load(self) -> list[Recording]:
        source = self.parameters['recordings']
        seed = self.parameters['seed']
        if source == REAL:
            root = self.parameters['data_root'] or os.environ.get('MM_PERCEPTION_DATA', '')
            if not root:
                raise DataError('recordings:=real needs data_root, the folder with pendigits_orig')
            return real_recordings(Path(root), 'test', seed, PER_LABEL)
        folder = source or find_bundle(self.parameters['bundle']) / 'recordings'
        recordings = load_recordings(Path(folder).expanduser())
        if not recordings:
            raise DataError(f'{folder}: holds no recordings')
        return recordings

    def _qos(self, name: str) -> QoSProfile:
        if name == Camera.name:
            reliability = RELIABILITY[self.parameters['image_reliability']]
            return QoSProfile(depth=1, reliability=reliability)
        return QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)

    def _step(self) -> None:
        """Send what is due, of the digit on show and of those that it followed since."""
        now_ns = int(self.get_clock().now().nanoseconds)
        back_s = self._clock_watch.step_back_s(now_ns)
        if back_s:
            self.get_logger().warning(
                f'time ran backwards by {back_s:.3g} s: played from the start'
            )
            self._playlist = None
        if self._playlist is None:
            if self.parameters['wait_for_subscribers'] and not self._all_have_subscribers():
                return
            period_s, seed = self.parameters['digit_period_s'], self.parameters['seed']
            self._playlist = Playlist(self._recordings, period_s, seed, now_ns)
            self._start_ns = now_ns
        for shown in self._playlist.until(now_ns):
            self._send(shown, now_ns)

    def _all_have_subscribers(self) -> bool:
        return all(p.get_subscription_count() > 0 for p in self._publishers_of.values())

    def _send(self, shown: Shown, now_ns: int) -> None:
        elapsed_s = (min(now_ns, shown.end_ns) - self._start_ns) * 1e-9
        faults = active_faults(self._schedule, elapsed_s)
        if shown is not self._told or now_ns >= self._truth_due_ns:
            self._told, self._truth_due_ns = shown, now_ns + round(TRUTH_PERIOD_S * 1e9)
            self._publish_truth(shown, elapsed_s, faults)
        for sensor in self._sensors:
            for message in sensor.due(shown, now_ns, faults.get(sensor.name)):
                self._publishers_of[sensor.name].publish(message)

    def _publish_truth(self, shown: Shown, elapsed_s: float, faults: dict[str, str]) -> None:
        truth = {
            'label': shown.recording.label,
            'index': shown.index,
            'source': shown.recording.source,
            'start_ns': shown.start_ns,
            'schedule_start_ns': self._start_ns,
            'elapsed_s': round(elapsed_s, 3),
            'phase': phase_name(self._schedule, elapsed_s),
            'faults': faults,
        }
        self._truth.publish(String(data=json.dumps(truth)))


def main(args: list[str] | None = None) -> int:
    """Run the node in a process of its own."""
    return run_node(ReplayNode, lambda node: True, args)


if __name__ == '__main__':
    sys.exit(main())
