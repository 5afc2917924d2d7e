"""A transform between two frames: as tf2 tells it, live and from bags."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed')
pytest.importorskip('torch', reason='torch is not installed')

from geometry_msgs.msg import TransformStamped
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_typestore
from std_msgs.msg import String

from mm_perception.bundle import save_bundle
from mm_perception.errors import ConfigError, InvalidInput
from mm_perception.modalities import build_modality
from mm_perception.ros.bag_import import Bags, import_bags
from mm_perception.ros.bag_survey import survey_bags
from mm_perception.ros.codecs import codec_for, make_header, stamp_of
from mm_perception.ros.codecs.rotations import six_of_quaternion
from mm_perception.ros.codecs.transforms import Frames
from mm_perception.spec import ModalitySpec, ModelSpec
from tests.helpers.message_package import messages_of
from tests.helpers.small_bundle import make_bundle

STEP_NS = 20_000_000
START_NS = 1_700_000_000_000_000_000
OPTIONS = {'tf': {'target': 'camera', 'source': 'tool'}}
POSE = ModalitySpec(
    'pose',
    'vector',
    4,
    {**OPTIONS, 'low': (-3.0,) * 9, 'high': (3.0,) * 9},
    {'type': 'linear'},
    max_age_s=0.4,
)
WORD = ModalitySpec(
    'word', 'symbol', 2, {'labels': ('on', 'off')}, {'type': 'dense', 'hidden': (8,)},
    likelihood='categorical', message='std_msgs/msg/String',
)  # fmt: skip


class Tree:
    """Messages as tf2_msgs has them, where that is not installed."""

    def __init__(self, *transforms):
        self.transforms = list(transforms)


def joint(parent, child, stamp_ns, xyz, turn=(0.0, 0.0, 0.0, 1.0)):
    """One transform; the turn need not have the length 1."""
    message = TransformStamped(header=make_header(stamp_ns, parent), child_frame_id=child)
    to = message.transform.translation
    to.x, to.y, to.z = map(float, xyz)
    to = message.transform.rotation
    to.x, to.y, to.z, to.w = np.asarray(turn, float) / np.linalg.norm(turn)
    return message


def about(axis, angle):
    return np.append(math.sin(angle / 2) * np.eye(3)[axis], math.cos(angle / 2))


def matrix(message):
    """A transform as a matrix of 4 x 4, by another way than the code's."""
    first, second = np.reshape(six_of_quaternion(message.transform.rotation), (2, 3))
    moved = message.transform.translation
    columns = np.stack([first, second, np.cross(first, second), [moved.x, moved.y, moved.z]], 1)
    return np.vstack([columns, [0, 0, 0, 1]])


def arm(now_ns, u):
    """Moving frames of an arm: base, arm, tool."""
    return (
        joint('base', 'arm', now_ns, (0.1, 0.2, u), about(2, u)),
        joint('arm', 'tool', now_ns, (u, 0.0, 0.5), about(0, 2 * u)),
    )


MOUNT = joint('base', '/camera', 5, (1.0, -1.0, 2.0), (0.5, -0.5, 0.5, 0.5))


def test_chain_of_frames_is_the_product_of_its_matrices():
    frames = Frames('camera', '/tool')
    assert frames.take(Tree(*arm(START_NS, 0.3)), False) is None, 'the camera is not known yet'
    base_arm, arm_tool = arm(START_NS, 0.3)
    found = frames.take(Tree(MOUNT), True)
    assert (found.header.frame_id, found.child_frame_id) == ('camera', 'tool')
    assert stamp_of(found.header, 0) == START_NS, 'that of what moves'
    expected = np.linalg.inv(matrix(MOUNT)) @ matrix(base_arm) @ matrix(arm_tool)
    np.testing.assert_allclose(matrix(found), expected, atol=1e-12)
    other = Tree(joint('base', 'wheel', START_NS + 9, (0, 0, 0)))
    assert frames.take(other, False) is None, 'nothing between the two moved'


def test_transform_is_of_the_newest_time_that_all_frames_are_known_for():
    frames = Frames('base', 'tool')
    first, second = arm(START_NS, 0.2)
    frames.take(Tree(first, second), False)
    assert frames.take(Tree(arm(START_NS + 4 * STEP_NS, 0.6)[0]), False) is None
    found = frames.take(Tree(arm(START_NS + STEP_NS, 0.9)[1]), False)
    assert stamp_of(found.header, 0) == START_NS + STEP_NS
    between = joint('base', 'arm', 0, (0.1, 0.2, 0.3), about(2, 0.3))
    np.testing.assert_allclose(matrix(found), matrix(between) @ matrix(arm(0, 0.9)[1]), atol=1e-12)
    again = [frames.take(Tree(*arm(START_NS - k * 10**10, 0.1)), False) for k in (0, 1)]
    assert again[0] is None and stamp_of(again[1].header, 0) == START_NS - 10**10, 'a new start'


@pytest.mark.parametrize(
    ('trees', 'line'),
    [
        ((arm(START_NS, 0), arm(START_NS + 3 * 10**9, 0)), 'no frame camera; known: base, arm, t'),
        (
            tuple((joint('map', 'camera', t, (0, 0, 0)), *arm(t, 0)) for t in (1, 3 * 10**9)),
            'camera and tool are not joined: they hang below map and base',
        ),
        (
            ((joint('base', 'camera', 1, (0, 0, 0)), *arm(1, 0)),
             (joint('arm', 'tool', 2, (math.nan, 0, 0)),)),
            'the transform of tool is no pose',
        ),
    ],
)  # fmt: skip
def test_frames_that_give_no_transform_are_one_line(trees, line):
    frames = Frames('camera', 'tool')
    for tree in trees[:-1]:
        frames.take(Tree(*tree), False)
    with pytest.raises(InvalidInput, match=line):
        frames.take(Tree(*trees[-1]), False)


def test_transform_that_never_moves_is_one_line():
    with pytest.raises(InvalidInput, match='camera never moves in base: all between'):
        Frames('base', 'camera').take(Tree(MOUNT), True)


@pytest.mark.parametrize(
    ('options', 'line'),
    [
        ({'tf': {'target': 'a'}}, "tf is {'target': 'a'}; give target and source, two frames"),
        ({'tf': {'target': 'a', 'source': 'a'}}, 'give target and source, two frames'),
        ({**OPTIONS, 'fields': ('transform',)}, 'stands alone'),
    ],
)
def test_transform_that_is_configured_wrongly_is_one_line(options, line):
    with pytest.raises(ConfigError, match=line):
        build_modality(ModalitySpec('pose', 'vector', preprocessing=options))


def test_transform_comes_in_no_other_message():
    modality = build_modality(ModalitySpec('pose', 'vector', preprocessing=OPTIONS))
    with pytest.raises(ConfigError, match='reads tf2_msgs/msg/TFMessage, not sensor_msgs/msg/Imu'):
        codec_for(modality, 'sensor_msgs/msg/Imu')


def write_bag(path, messages):
    """Write a bag with what rosbags has of tf2_msgs: it need not be installed."""
    store = get_typestore(Stores.ROS2_JAZZY)
    with Writer(path, version=9) as writer:
        to = {
            topic: writer.add_connection(topic, kind, typestore=store)
            for topic, kind in (
                ('/tf', 'tf2_msgs/msg/TFMessage'),
                ('/tf_static', 'tf2_msgs/msg/TFMessage'),
                ('/word', 'std_msgs/msg/String'),
            )
        }
        for topic, now_ns, data in messages:
            writer.write(to[topic], now_ns, data)


def tree_bytes(*transforms):
    """A TFMessage as it is recorded, by the rosbags of another machine."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types = store.types
    plain = [store.deserialize_cdr(serialize_message(t), 'geometry_msgs/msg/TransformStamped')
             for t in transforms]  # fmt: skip
    message = types['tf2_msgs/msg/TFMessage'](transforms=plain)
    return bytes(store.serialize_cdr(message, 'tf2_msgs/msg/TFMessage'))


def test_bag_gives_the_transform_without_tf2_installed(tmp_path):
    said = [('/tf_static', START_NS, tree_bytes(MOUNT))]
    for k in range(200):
        now_ns = START_NS + k * STEP_NS
        said.append(('/tf', now_ns, tree_bytes(*arm(now_ns, math.sin(k / 20)))))
    write_bag(tmp_path / 'bag', said)
    dataset, accounts = import_bags(ModelSpec((POSE,)), Bags([tmp_path / 'bag'], 50.0))
    assert not accounts['pose'].refused and accounts['pose'].messages == 200
    values = build_modality(POSE).from_model(dataset.values['pose'])
    for k in (0, 37, 150):
        poses = [matrix(each) for each in arm(0, math.sin(k / 20))]
        expected = np.linalg.inv(matrix(MOUNT)) @ poses[0] @ poses[1]
        wanted = np.concatenate([expected[:3, 3], expected[:3, 0], expected[:3, 1]])
        assert np.abs(values - wanted).max(axis=1).min() < 1e-5


def test_init_tells_the_frames(tmp_path):
    said = [('/tf', START_NS + k, tree_bytes(*arm(START_NS + k, 0.1 * k))) for k in range(5)]
    write_bag(tmp_path / 'bag', said)
    seen, _ = survey_bags([tmp_path / 'bag'])
    (tf,) = (each for each in seen if each.topic == '/tf')
    assert 'frames: arm in base, tool in arm; a vector takes two: prep' in ' '.join(tf.remarks)


@pytest.fixture(scope='module')
def tf_messages(tmp_path_factory):
    """The class TFMessage, in the nodes' processes too."""
    definitions = {'TFMessage': 'geometry_msgs/TransformStamped[] transforms\n'}
    with messages_of(tmp_path_factory.mktemp('messages'), 'tf2_msgs', definitions) as module:
        yield module.TFMessage


def test_transform_is_read_passed_and_filled_live_as_from_a_bag(
    tf_messages, robot, start, tmp_path
):
    spec = ModelSpec(
        (POSE, WORD), joint_latent_dim=4, message_dim=8, joint_hidden=(8,), decoder_hidden=(8,)
    )
    bundle = save_bundle(make_bundle('frames', spec=spec), tmp_path / 'frames', '# frames')
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    to = {
        '/tf_static': robot.node.create_publisher(tf_messages, '/tf_static', latched),
        '/tf': robot.node.create_publisher(tf_messages, '/tf', 100),
        '/word': robot.publishers['symbol'],
    }
    robot.publishers['word'] = robot.node.create_publisher(String, 'word', 10)
    kept, sensors, due = [], {'pose', 'word'}, [0]

    def say(topic, message):
        kept.append((topic, robot.now_ns(), serialize_message(message)))
        (robot.publishers['word'] if topic == '/word' else to[topic]).publish(message)

    def step():
        now_ns = robot.now_ns()
        if now_ns - due[0] < STEP_NS:
            return
        due[0] = now_ns
        if 'pose' in sensors:
            say('/tf', tf_messages(transforms=arm(now_ns, math.sin(len(kept) / 40))))
        if 'word' in sensors:
            say('/word', String(data='on'))

    def until(condition, what):
        robot.until(lambda: (step(), condition())[1], what, 30.0)

    say('/tf_static', tf_messages(transforms=[MOUNT]))
    robot.watch('filled/pose', TransformStamped)
    start(f'bundle:={bundle.path}', 'autostart:=true', 'rate_hz:=20.0')
    until(lambda: robot.used() == {'pose', 'word'}, 'both')
    robot.received['filled/pose'].clear()
    until(lambda: len(robot.received['filled/pose']) > 40, 'what passes')
    passed = list(robot.received['filled/pose'])
    sensors.remove('pose')
    until(lambda: robot.used() == {'word'}, 'the word alone')
    newest = stamp_of(passed[-1].header, 0)
    until(lambda: stamp_of(robot.received['filled/pose'][-1].header, 0) > newest + 5 * 10**8, 'it')
    made = robot.received['filled/pose'][-1]
    assert (made.header.frame_id, made.child_frame_id) == ('camera', 'tool')
    assert robot.node.count_publishers('/tf') == 1, 'but ours nobody speaks there'

    write_bag(tmp_path / 'bag', kept)
    dataset, _ = import_bags(ModelSpec((POSE,)), Bags([tmp_path / 'bag'], 200.0))
    codec, modality = codec_for(build_modality(POSE)), build_modality(POSE)
    arrays = [modality.to_model(codec.decode(each, 0, modality)[0]) for each in passed]
    apart = [np.abs(dataset.values['pose'] - array).max(axis=1).min() for array in arrays]
    assert max(apart) < 1e-6
