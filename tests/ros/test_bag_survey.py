"""What ``init`` finds in bags, and that its file imports unedited."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed')
pytest.importorskip('rosbags', reason='rosbags is not installed')

from geometry_msgs.msg import PointStamped, PoseStamped
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_typestore

from mm_perception.cli.main import main
from mm_perception.config import load_training
from mm_perception.data.dataset import load_dataset
from mm_perception.data.drafting import Frames, Timing, draft_image, group_names, name_of
from mm_perception.lab.digits.recordings import load_recordings
from mm_perception.modalities import build_modality
from mm_perception.ros.bag_survey import survey_bags
from mm_perception.ros.codecs import make_header, message_name
from mm_perception.spec import ModalitySpec
from tests.helpers.driving_bag import JOINTS, START_NS, STEP_NS, write_driving_bag
from tests.helpers.recorded_bag import write_bag

ROOT = Path(__file__).parents[2]
REAL = Path(os.environ.get('MM_PERCEPTION_DATA', ROOT.parent / 'shared' / 'data'))
TAKES_FIELDS = 'fields' in build_modality(ModalitySpec('one', 'vector')).plain_options()
real = pytest.mark.skipif(not (REAL / 'bags').is_dir(), reason=f'no recorded bags in {REAL}')


@pytest.fixture(scope='module')
def drive(tmp_path_factory):
    """A bag of 24 s."""
    path = tmp_path_factory.mktemp('bags') / 'drive'
    write_driving_bag(path, 24.0)
    return path


def test_init_writes_what_imports_unedited(drive, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(['init', str(drive), '--json', 'seen.json']) == 0
    said = capsys.readouterr().out
    assert '/time: sensor_msgs/msg/TimeReference, 120 messages' in said
    text = Path('my_robot.yaml').read_text()
    for line in text.splitlines():
        if line.startswith('#   mm-perception import-bag'):
            command = line.split()[2:]
    assert main([*command, '--json', 'counts.json']) == 0
    counts = json.loads(Path('counts.json').read_text())
    assert set(counts['splits']) == {'train', 'validation', 'test'}
    assert all(a['refused'] == a['clipped'] == 0 for a in counts['modalities'].values())
    spec = load_training(Path('my_robot.yaml'))
    named = {m.name: m for m in spec.model.modalities}
    assert {'arm', 'wheel', 'imu', 'camera', 'word'} <= set(named)
    assert named['wheel'].preprocessing['names'] == list(JOINTS[2:4])
    assert '# wheel: never changes: wheel_spare' in text
    assert named['word'].preprocessing['labels'] == ['back', 'forward']
    assert (named['camera'].max_age_s, named['camera'].frozen_s) == (0.3, 0.8)
    assert named['word'].max_age_s == 1.0
    low, high = (np.array(named['arm'].preprocessing[k]) for k in ('low', 'high'))
    np.testing.assert_allclose((low, high), ([-2.0] * 2, [2.0] * 2), atol=0.02)


def test_shares_are_blocks_of_time_with_gaps(drive, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(['init', str(drive), '--topics', '/joint_states']) == 0
    config = ['import-bag', str(drive), '--config', 'my_robot.yaml']
    assert main([*config, '--split', '2/1/1']) == 0
    splits = [load_dataset(Path('data/my_robot'), s) for s in ('train', 'validation', 'test')]
    spans = [(part.time_s[0], part.time_s[-1]) for part in splits]
    assert [round(end - begin) for begin, end in spans] == [12, 5, 5]
    for (_, end), (begin, _) in zip(spans, spans[1:]):
        assert 0.6 < begin - end < 1.2
    build = json.loads((Path('data') / 'my_robot' / 'build.json').read_text())['splits']
    assert build['test']['shares'] == {'train': 0.5, 'validation': 0.25, 'test': 0.25}


def test_init_never_overwrites_and_says_when_nothing_can_be_used(drive, tmp_path, capsys):
    out = tmp_path / 'mine.yaml'
    out.write_text('precious')
    assert main(['init', str(drive), '--out', str(out)]) == 2
    assert out.read_text() == 'precious'
    other = tmp_path / 'other.yaml'
    assert main(['init', str(drive), '--out', str(other), '--topics', '/time']) == 2
    assert 'nothing in it can be used' in capsys.readouterr().err
    assert not other.exists()


@pytest.mark.skipif(not TAKES_FIELDS, reason='vectors take no fields')
def test_fields_of_any_message_that_change_are_drafted(tmp_path):
    store = get_typestore(Stores.ROS2_JAZZY)
    with Writer(tmp_path / 'bag', version=9) as writer:
        to = writer.add_connection('/pose', message_name(PoseStamped), typestore=store)
        for k in range(50):
            pose = PoseStamped(header=make_header(START_NS + k * STEP_NS))
            pose.pose.position.x = k / 10
            pose.pose.orientation.z, pose.pose.orientation.w = np.sin(k / 9), np.cos(k / 9)
            writer.write(to, START_NS + k * STEP_NS, serialize_message(pose))
    (seen,), _ = survey_bags([tmp_path / 'bag'])
    options = seen.drafts[0].preprocessing
    assert options['fields'] == ['pose.position.x', 'pose.orientation']
    assert len(options['low']) == len(options['high']) == 7
    assert seen.remarks == ('never changes: pose.position.y, pose.position.z',)


@real
def test_recorded_bags_give_what_was_configured_by_hand():
    seen, length_s = survey_bags([REAL / 'bags' / 'joint_states_imu_mcap'])
    assert length_s == pytest.approx(95.2, abs=0.1)
    drafted = {draft.name: draft for each in seen for draft in each.drafts}
    by_hand = load_training(ROOT / 'config' / 'robots' / 'imu.yaml').model
    joints = [m.preprocessing['names'] for m in by_hand.modalities if m.name != 'imu']
    drafts = [draft for draft in drafted.values() if 'names' in draft.preprocessing]
    assert {frozenset(d.preprocessing['names']) for d in drafts} == {
        frozenset(names) for names in joints
    }
    assert drafted['imu'].max_age_s == by_hand.modality('imu').max_age_s
    assert any('another clock' in remark for each in seen for remark in each.remarks)
    old, _ = survey_bags([REAL / 'bags' / 'camera_single_frame'])
    images = [
        draft.preprocessing for each in old for draft in each.drafts if draft.kind == 'image'
    ]
    assert [(o['height'], o['width'], o['channels']) for o in images] == [(48, 64, 3)] * 2


@pytest.mark.parametrize(
    ('names', 'groups'),
    [
        (('shoulder_pan', 'shoulder_lift', 'elbow', 'wrist_1', 'wrist_2'), [3, 2]),
        (('kLeftElbow', 'kLeftWrist', 'kRightElbow', 'kRightWrist'), [2, 2]),
        (('joint_1', 'joint_2', 'joint_3'), [3]),
        (('a', 'b'), [2]),
    ],
)
def test_joints_are_grouped_by_what_tells_them_apart(names, groups):
    assert [len(members) for _, members in group_names(names)] == groups


def test_names_come_from_the_telling_part_of_a_topic():
    assert name_of('/camera/image_raw') == 'camera'
    assert name_of('observation.images.cam_high') == 'cam_high'
    assert name_of('/image/compressed') == 'image'
    assert name_of('/2nd') == 'sensor_2nd'


def test_cameras_that_show_nothing_are_not_drafted():
    noise = np.random.default_rng(0)
    frames, black = Frames(), Frames()
    for k in range(14):
        frames.take(noise.integers(0, 255, (48, 64, 3), np.uint8))
        frames.follow(k // 7)
        black.take(np.zeros((48, 64, 3), np.uint8))
        black.follow(k)
    draft, remarks = draft_image('camera', frames, Timing(14, 0.1, 0.1, 0.1))
    assert draft.preprocessing['channels'] == 3 and draft.frozen_s == 1.2
    assert 'repeats the same frame for up to 0.6 s' in remarks[0]
    draft, remarks = draft_image('camera', black, Timing(14, 0.1, 0.1, 0.1))
    assert draft is None and '14 of 14 frames looked at are black' in remarks[0]


def test_sound_and_motions_are_drafted_with_their_windows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recordings = load_recordings(ROOT / 'models' / 'mhd' / 'recordings')[::40]
    write_bag(tmp_path / 'digits', recordings, 4.0)
    assert main(['init', 'digits']) == 0
    spec = load_training(Path('my_robot.yaml')).model
    options = {m.name: build_modality(m).plain_options() for m in spec.modalities}
    assert {m.name: m.kind for m in spec.modalities} == {
        'image': 'image',
        'trajectory': 'trajectory',
        'audio': 'sound',
        'symbol': 'symbol',
    }
    assert (options['audio']['rate_hz'], options['audio']['window']) == (8000, 'utterance')
    assert options['trajectory']['dimensions'] == 2
    assert len(options['symbol']['labels']) == 2
    assert main(['import-bag', 'digits', '--config', 'my_robot.yaml', '--json', 'n.json']) == 0
    counts = json.loads(Path('n.json').read_text())['modalities']
    assert all(account['rows'] and not account['refused'] for account in counts.values())


def test_streamed_points_are_a_sliding_window_unless_they_pause(tmp_path):
    store = get_typestore(Stores.ROS2_JAZZY)
    with Writer(tmp_path / 'bag', version=9) as writer:
        to = {t: writer.add_connection(t, message_name(PointStamped), typestore=store)
              for t in ('/tip', '/pen')}  # fmt: skip
        for k in range(400):
            point = PointStamped(header=make_header(START_NS + k * STEP_NS))
            point.point.x, point.point.y = np.sin(k / 20), np.cos(k / 30)
            writer.write(to['/pen'], START_NS + k * STEP_NS, serialize_message(point))
            point.point.z = k / 100
            writer.write(to['/tip'], START_NS + k * STEP_NS, serialize_message(point))
        last = PointStamped(header=make_header(START_NS + 500 * STEP_NS))
        writer.write(to['/pen'], START_NS + 500 * STEP_NS, serialize_message(last))
    seen, _ = survey_bags([tmp_path / 'bag'])
    options = {draft.name: draft.preprocessing for each in seen for draft in each.drafts}
    assert options['pen'] == {'dimensions': 2}
    assert options['tip']['window'] == 'sliding' and options['tip']['dimensions'] == 3
    assert len(options['tip']['low']) == 3
