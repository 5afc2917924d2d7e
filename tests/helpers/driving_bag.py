"""A bag of a small robot that drives: joints, an IMU, a camera, a word, and what nothing takes."""

from __future__ import annotations

import numpy as np
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import Image, Imu, JointState, TimeReference
from std_msgs.msg import String

from mm_perception.ros.codecs import image_message, make_header, message_name

START_NS = 1_700_000_000_000_000_000
STEP_NS = 20_000_000
TYPES = {
    '/joint_states': JointState,
    '/imu/data': Imu,
    '/camera/image_raw': Image,
    '/word': String,
    '/time': TimeReference,
}
JOINTS = ('arm_1_joint', 'arm_2_joint', 'wheel_left_joint', 'wheel_right_joint', 'wheel_spare')
WORDS = ('forward', 'back')


def messages(seconds, seed=0, joints=JOINTS):
    """Topic, time and message of all that the robot sends."""
    noise = np.random.default_rng(seed)
    for k in range(int(seconds * 1e9 / STEP_NS)):
        now_ns, angle = START_NS + k * STEP_NS, k / 25
        header = make_header(now_ns, 'base')
        moved = [np.sin(angle), np.cos(angle), angle, -angle, 0.5][: len(joints)]
        yield '/joint_states', now_ns, JointState(header=header, name=joints, position=moved)
        imu = Imu(header=header)
        imu.angular_velocity.z = np.cos(angle) + noise.normal(0.0, 0.01)
        imu.linear_acceleration.x = np.sin(angle) + noise.normal(0.0, 0.01)
        yield '/imu/data', now_ns, imu
        if k % 5 == 0:
            pixels = noise.integers(0, 60, (24, 32, 3), np.uint8)
            pixels[:, : 4 + int(12 * (1 + np.sin(angle)))] += 150
            yield '/camera/image_raw', now_ns, image_message(pixels, now_ns)
        if k % 10 == 0:
            yield '/word', now_ns, String(data=WORDS[int(np.sin(angle) < 0)])
            yield '/time', now_ns, TimeReference(header=header)


def write_driving_bag(
    path, seconds=12.0, plugin=StoragePlugin.SQLITE3, seed=0, topics=TYPES, joints=JOINTS
):
    """
    Write the bag as ``ros2 bag record`` does; returns how many messages each topic has.

    :param joints: the first of its joints.
    """
    counts = dict.fromkeys(topics, 0)
    store = get_typestore(Stores.ROS2_JAZZY)
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        to = {t: writer.add_connection(t, message_name(TYPES[t]), typestore=store) for t in topics}
        for topic, now_ns, message in messages(seconds, seed, joints):
            if topic in to:
                writer.write(to[topic], now_ns, serialize_message(message))
                counts[topic] += 1
    return counts
