"""Bags as folders and files, of ROS 2 and ROS 1, whole and torn."""

import shutil

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed')
pytest.importorskip('rosbags', reason='rosbags is not installed')

from rclpy.serialization import deserialize_message
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import JointState

from mm_perception.ros.bag_files import Bag
from mm_perception.ros.bag_import import Bags, import_bags
from mm_perception.spec import ModalitySpec, ModelSpec
from tests.helpers.driving_bag import JOINTS, START_NS, STEP_NS, write_driving_bag

JOINT_STATES = '/joint_states'
ARM = ModelSpec(
    (
        ModalitySpec(
            'arm',
            'vector',
            preprocessing={'low': (-1.5,) * 2, 'high': (1.5,) * 2, 'names': JOINTS[:2]},
            topic=JOINT_STATES,
            message='sensor_msgs/msg/JointState',
        ),
    )
)


def read(path, said=None):
    """What a bag holds of the joint states: count as told, and messages."""
    with Bag(path, (said if said is not None else []).append) as bag:
        return bag.topics[JOINT_STATES].count, list(bag.messages([JOINT_STATES]))


@pytest.fixture(scope='module')
def mcap(tmp_path_factory):
    """An mcap bag of many chunks, and what it holds."""
    path = tmp_path_factory.mktemp('bags') / 'mcap'
    topics = (JOINT_STATES, '/camera/image_raw')
    counts = write_driving_bag(path, 60.0, StoragePlugin.MCAP, topics=topics)
    return path, counts[JOINT_STATES]


@pytest.mark.parametrize('mode', [CompressionMode.MESSAGE, CompressionMode.FILE])
def test_bag_that_is_compressed_is_read_with_and_without_its_metadata(mode, tmp_path):
    store = get_typestore(Stores.ROS2_JAZZY)
    plain = write_driving_bag(tmp_path / 'plain', 2.0, topics=(JOINT_STATES,))[JOINT_STATES]
    _, expected = read(tmp_path / 'plain')
    writer = Writer(tmp_path / 'bag', version=9)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        to = writer.add_connection(JOINT_STATES, 'sensor_msgs/msg/JointState', typestore=store)
        for _, receipt_ns, data in expected:
            writer.write(to, receipt_ns, data)
    assert read(tmp_path / 'bag') == (plain, expected)
    (tmp_path / 'bag' / 'metadata.yaml').unlink()
    assert read(tmp_path / 'bag')[1] == expected


def test_bag_of_ros1_gives_what_the_same_messages_give_in_ros2(tmp_path):
    old = get_typestore(Stores.ROS1_NOETIC)
    types = old.types
    with Ros1Writer(tmp_path / 'one.bag') as writer:
        to = writer.add_connection(JOINT_STATES, 'sensor_msgs/msg/JointState', typestore=old)
        for k in range(100):
            now_ns = START_NS + k * STEP_NS
            stamp = types['builtin_interfaces/msg/Time'](*divmod(now_ns, 10**9))
            moved = np.array([np.sin(k / 25), np.cos(k / 25), k / 25, -k / 25, 0.5])
            header = types['std_msgs/msg/Header'](k, stamp, 'base')
            message = types['sensor_msgs/msg/JointState'](
                header, list(JOINTS), moved, np.zeros(0), np.zeros(0)
            )
            data = old.serialize_ros1(message, 'sensor_msgs/msg/JointState')
            writer.write(to, now_ns, data)
    write_driving_bag(tmp_path / 'two', 2.0)
    _, found = read(tmp_path / 'one.bag')
    _, expected = read(tmp_path / 'two')
    assert len(found) == len(expected) == 100
    for (_, at_ns, data), (_, then_ns, same) in zip(found, expected, strict=True):
        assert at_ns == then_ns
        assert deserialize_message(data, JointState) == deserialize_message(same, JointState)
    ours, _ = import_bags(ARM, Bags([tmp_path / 'one.bag']))
    theirs, _ = import_bags(ARM, Bags([tmp_path / 'two']))
    np.testing.assert_array_equal(ours.values['arm'], theirs.values['arm'])


@pytest.mark.parametrize('metadata', [True, False])
def test_torn_mcap_is_read_to_its_last_whole_chunk(mcap, metadata, tmp_path):
    path, count = mcap
    file = path / 'mcap.mcap'
    content = file.read_bytes()
    _, whole = read(path)
    torn = tmp_path / 'torn'
    torn.mkdir()
    if metadata:
        shutil.copy(path / 'metadata.yaml', torn)
    (torn / file.name).write_bytes(content[: int(0.7 * len(content))])
    said = []
    _, found = read(torn, said)
    assert found == whole[: len(found)] and 0 < len(found) < count
    assert len(said) == 1 and 'cut off; all but its last' in said[0]
    lost = int(said[0].split('last ')[1].split()[0])
    assert lost < 1.5 * 2**20, 'no more than the chunk that was being written'


def test_split_bag_without_metadata_is_read_in_order(tmp_path):
    folder = tmp_path / 'bag'
    folder.mkdir()
    for number in (2, 10):
        write_driving_bag(tmp_path / str(number), 1.0, seed=number)
        file = next((tmp_path / str(number)).glob('*.db3'))
        file.rename(folder / f'bag_{number}.db3')
    with Bag(folder) as bag:
        assert bag.topics[JOINT_STATES].count == 100
        first = next(data for _, _, data in bag.messages(['/imu/data']))
    with Bag(folder / 'bag_2.db3') as bag:
        assert next(data for _, _, data in bag.messages(['/imu/data'])) == first


def test_database_of_a_killed_recorder_says_what_is_not_read(tmp_path):
    write_driving_bag(tmp_path / 'bag', 1.0, topics=(JOINT_STATES,))
    file = next((tmp_path / 'bag').glob('*.db3'))
    file.with_name(f'{file.name}-wal').write_bytes(b'the last seconds')
    said = []
    assert len(read(file, said)[1]) == 50
    assert len(said) == 1 and 'pragma wal_checkpoint' in said[0]
