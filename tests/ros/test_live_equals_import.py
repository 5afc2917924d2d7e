"""What the node used of its sensors, and what an import of the same messages gives."""

from __future__ import annotations

import time
from collections import defaultdict

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed')
pytest.importorskip('rosbags', reason='rosbags is not installed')
pytest.importorskip('torch', reason='torch is not installed')

from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_typestore

from mm_perception.ros.bag_import import Bags, import_bags
from mm_perception.ros.cmi_node import CmiNode
from mm_perception.ros.codecs import message_name
from tests.helpers.robot import SENSORS, TOPICS

SECONDS = 2.0
ENOUGH = {'image': 10, 'sound': 1, 'trajectory': 1, 'symbol': 1}


class Recorder:
    """Publishes what it is given, and keeps it as a recorder on the same machine would."""

    def __init__(self, topic, publisher, kept):
        self._topic, self._publisher, self._kept = topic, publisher, kept

    def publish(self, message):
        self._publisher.publish(message)
        self._kept.append((self._topic, time.time_ns(), serialize_message(message)))


@pytest.fixture
def node(bundle, robot):
    """The node in this process, in the namespace and the context of the robot."""
    parameters = [Parameter('bundle', value=str(bundle.path)), Parameter('rate_hz', value=50.0)]
    cmi = CmiNode(
        namespace=robot.node.get_namespace(),
        context=robot.context,
        parameter_overrides=parameters,
    )
    assert cmi.trigger_configure() and cmi.trigger_activate()
    yield cmi
    cmi.trigger_deactivate()
    cmi.trigger_cleanup()
    cmi.destroy_node()


def test_import_gives_the_arrays_that_the_node_used(bundle, robot, node, tmp_path):
    used = defaultdict(list)
    session = node._perception._session
    update = session.update

    def watched(name, array, stream=0):
        used[name].append(array.copy())
        return update(name, array, stream)

    session.update = watched
    recorded = []
    for topic, publisher in robot.publishers.items():
        robot.publishers[topic] = Recorder(topic, publisher, recorded)
    robot.periods_s = {**robot.periods_s, 'image': 0.1}  # a flood would cost messages of others
    robot.run(0.5)  # until all have found each other
    robot.live = set(SENSORS)
    robot.run(SECONDS)
    robot.live.remove('sound')  # silence ends what is being said, while others tell the time
    robot.run(0.5)
    session.update = update
    robot.live = set()
    heard = node._perception.streams[0]['sound'].received
    assert heard == sum(topic == 'audio' for topic, *_ in recorded), 'the middleware lost sound'

    store = get_typestore(Stores.ROS2_JAZZY)
    with Writer(tmp_path / 'run', version=9) as writer:
        to = {
            topic: writer.add_connection(f'/second/{topic}', message_name(kind), typestore=store)
            for topic, kind in TOPICS.items()
        }
        for topic, receipt_ns, data in recorded:
            writer.write(to[topic], receipt_ns, data)
    dataset, accounts = import_bags(bundle.spec, Bags([tmp_path / 'run'], 1000.0, 'second'))
    for name, count in ENOUGH.items():
        assert accounts[name].refused == 0
        assert len(used[name]) >= count, name
        known = dataset.values[name].reshape(len(dataset.values[name]), -1)
        for array in used[name]:
            closest = np.abs(known - array.reshape(-1)).max(axis=1).min()
            assert closest <= 1e-6, (name, closest, len(known), len(used[name]))
