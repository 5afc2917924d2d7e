"""
How fast bags are imported, and how much memory that takes.

Times are those of the processor, so that other programs on the machine do not count.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import Imu, JointState

from mm_perception.ros.bag_import import Bags, import_bags
from mm_perception.ros.codecs import image_message, make_header, message_name
from mm_perception.spec import ModalitySpec, ModelSpec

START_NS = 1_700_000_000_000_000_000
JOINTS = tuple(f'joint_{k}' for k in range(7))
ARM = ModalitySpec(
    'arm',
    'vector',
    preprocessing={'names': JOINTS, 'low': (-2.0,) * 7, 'high': (2.0,) * 7},
    topic='/joint_states',
    message='sensor_msgs/msg/JointState',
)
IMU = ModalitySpec(
    'imu',
    'vector',
    preprocessing={'low': (-2.0,) * 6, 'high': (2.0,) * 6},
    topic='/imu',
    message='sensor_msgs/msg/Imu',
)
CAMERA = ModalitySpec(
    'camera',
    'image',
    preprocessing={'height': 48, 'width': 64, 'channels': 3, 'square': False},
    topic='/camera',
)


def motions(seconds: float) -> Iterator[tuple[str, int, Any]]:
    """Joint states of 50 Hz, and an IMU of 100 Hz."""
    for k in range(int(100 * seconds)):
        now_ns, angle = START_NS + k * 10_000_000, k / 50
        header = make_header(now_ns, 'base')
        imu = Imu(header=header)
        imu.angular_velocity.z, imu.linear_acceleration.x = np.cos(angle), np.sin(angle)
        yield '/imu', now_ns, imu
        if k % 2 == 0:
            positions = np.sin(angle + np.arange(len(JOINTS)))
            yield (
                '/joint_states',
                now_ns,
                JointState(header=header, name=JOINTS, position=positions.tolist()),
            )


def video(seconds: float) -> Iterator[tuple[str, int, Any]]:
    """Raw images of 640x480 in colour, 30 Hz."""
    pixels = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    for k in range(int(30 * seconds)):
        now_ns = START_NS + k * 33_333_333
        yield '/camera', now_ns, image_message(np.roll(pixels, k, axis=1), now_ns)


def write(path: Path, messages: Iterator[tuple[str, int, Any]]) -> None:
    """Write a bag."""
    store = get_typestore(Stores.ROS2_JAZZY)
    to: dict[str, Any] = {}
    with Writer(path, version=9) as writer:
        for topic, now_ns, message in messages:
            if topic not in to:
                name = message_name(type(message))
                to[topic] = writer.add_connection(topic, name, typestore=store)
            writer.write(to[topic], now_ns, serialize_message(message))


def main() -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seconds', type=float, default=300.0, help='of joint states and Imu')
    parser.add_argument('--video', type=float, default=10.0, help='seconds of video')
    options = parser.parse_args()
    cases = (
        ('joint states and Imu', motions, options.seconds, (ARM, IMU)),
        ('video of 640x480', video, options.video / 3, (CAMERA,)),
        ('video of 640x480', video, options.video, (CAMERA,)),
    )
    for title, messages, seconds, modalities in cases:
        with tempfile.TemporaryDirectory() as folder:
            bag = Path(folder, 'bag')
            write(bag, messages(seconds))
            begin_s = time.process_time()
            rows, _ = import_bags(ModelSpec(modalities), Bags([bag]))
            took_s = time.process_time() - begin_s
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f'{title}: {seconds:.3g} s in {took_s:.3g} s of one core, {seconds / took_s:.3g} x'
            f' real time, {len(rows)} rows; memory of the process so far at most {most:.0f} MiB'
        )
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
