"""Bags that are played as sensors."""

from __future__ import annotations

import threading
import time

import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed')
pytest.importorskip('rosbags', reason='rosbags is not installed')

from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_typestore
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Imu

from mm_perception.lab.harness.client import RosClient
from mm_perception.ros.bag_files import Bag
from mm_perception.ros.bag_player import Playing, play_bags
from tests.helpers.driving_bag import START_NS, STEP_NS, write_driving_bag

IMU = '/imu/data'
COUNT = 50


@pytest.fixture
def listener():
    """Takes what is played: the IMU's stamps beside the clock, and the clock."""
    client = RosClient('listener')
    client.imu, client.clock = [], []

    def take_imu(message):
        stamp = message.header.stamp
        client.imu.append((stamp.sec + stamp.nanosec * 1e-9, client.clock[-1:], time.time()))

    def take_clock(message):
        client.clock.append(message.clock.sec + message.clock.nanosec * 1e-9)

    client.subscribe(Clock, '/clock', take_clock, 200)
    client.subscribe(Imu, IMU, take_imu, 200)
    client.serve()
    yield client
    client.close()


def play(path, **playing):
    """Play the IMU of a bag; what was played and how long it took (s)."""
    began_s = time.monotonic()
    played = play_bags([path], Playing(topics=(IMU,), **playing))
    return played, time.monotonic() - began_s


def test_played_bag_tells_the_time_of_its_stamps(listener, tmp_path):
    write_driving_bag(tmp_path / 'bag', COUNT * STEP_NS * 1e-9, topics=(IMU,))
    played, seconds = play(tmp_path / 'bag')
    assert played.messages == {IMU: COUNT} and played.seconds == pytest.approx(0.98)
    assert seconds >= 0.98
    assert listener.wait(lambda: len(listener.imu) >= COUNT - 5, 5.0)
    assert listener.clock == sorted(listener.clock)
    assert listener.clock[-1] == pytest.approx((START_NS + 49 * STEP_NS) * 1e-9, abs=1e-3)
    for stamp_s, clock, _ in listener.imu[5:]:
        assert clock[0] == pytest.approx(stamp_s, abs=0.2)


def test_clock_is_that_of_the_stamps_where_the_recorder_had_another(listener, tmp_path):
    write_driving_bag(tmp_path / 'bag', COUNT * STEP_NS * 1e-9, topics=(IMU,))
    store = get_typestore(Stores.ROS2_JAZZY)
    with Bag(tmp_path / 'bag') as bag, Writer(tmp_path / 'later', version=9) as writer:
        to = writer.add_connection(IMU, 'sensor_msgs/msg/Imu', typestore=store)
        for _, receipt_ns, data in bag.messages([IMU]):
            writer.write(to, receipt_ns + 10**12, data)
    play(tmp_path / 'later', rate=2.0)
    assert listener.wait(lambda: len(listener.imu) >= COUNT - 5, 5.0)
    assert listener.clock[-1] == pytest.approx((START_NS + 49 * STEP_NS) * 1e-9, abs=1e-3)


def test_restamped_bag_is_of_now_and_needs_no_clock(listener, tmp_path):
    write_driving_bag(tmp_path / 'bag', COUNT * STEP_NS * 1e-9, topics=(IMU,))
    play(tmp_path / 'bag', restamp=True, start_s=0.5)
    assert listener.wait(lambda: len(listener.imu) >= 20, 5.0)
    assert len(listener.imu) <= 25 and not listener.clock
    for stamp_s, _, now_s in listener.imu:
        assert 0.0 <= now_s - stamp_s < 0.5


def test_looped_bag_goes_on_until_interrupted(listener, tmp_path, monkeypatch):
    write_driving_bag(tmp_path / 'bag', 0.2, topics=(IMU,))
    enough = threading.Event()

    def interrupt(seconds):
        if len(listener.imu) > 25:
            enough.set()
            raise KeyboardInterrupt
        wait(seconds)

    wait = time.sleep
    monkeypatch.setattr('mm_perception.ros.bag_player.time.sleep', interrupt)
    with pytest.raises(KeyboardInterrupt):
        play(tmp_path / 'bag', loop=True)
    assert enough.is_set(), 'it was played again and again'
