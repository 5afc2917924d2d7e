"""Bags of the replayed sensors, written as ``ros2 bag record`` writes them."""

from rclpy.serialization import serialize_message
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_typestore

from mm_perception.lab.replay.playlist import Playlist
from mm_perception.lab.replay.sensors import make_sensors
from mm_perception.ros.codecs import message_name

START_NS = 1_700_000_000_000_000_000
STEP_NS = 5_000_000
DIGIT_S = 2.0


def write_bag(path, recordings, seconds, broken=lambda topic, elapsed_s, message: message, ns=''):
    """
    Record all four sensors.

    :param broken: gives what is recorded in place of a message; None for nothing.
    :param ns: namespace of the topics.
    :returns: time of receipt of each label, with the label on show.
    """
    playlist = Playlist(recordings, DIGIT_S, 0, START_NS)
    all_sensors = make_sensors(recordings, trajectory_period_s=1.0, symbol_period_s=0.5)
    labels = []
    with Writer(path, version=9) as writer:
        store = get_typestore(Stores.ROS2_JAZZY)
        connections = {
            s.topic: writer.add_connection(
                f'{ns}/{s.topic}', message_name(s.message_type), typestore=store
            )
            for s in all_sensors
        }
        for now_ns in range(START_NS, START_NS + int(seconds * 1e9), STEP_NS):
            *_, shown = playlist.until(now_ns)
            for sensor in all_sensors:
                for message in sensor.due(shown, now_ns, None):
                    kept = broken(sensor.topic, (now_ns - START_NS) * 1e-9, message)
                    if kept is None:
                        continue
                    writer.write(connections[sensor.topic], now_ns, serialize_message(kept))
                    if sensor.topic == 'symbol':
                        labels.append((now_ns, shown.recording.label))
    return labels
