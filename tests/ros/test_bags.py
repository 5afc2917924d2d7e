"""Bags of a robot as training data."""

import json
import math
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip('rclpy', reason='rclpy is not installed')
pytest.importorskip('rosbags', reason='rosbags is not installed')

from rclpy.serialization import serialize_message
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import Image
from std_msgs.msg import String

from mm_perception.bundle import load_bundle
from mm_perception.cli.main import main
from mm_perception.config import load_training
from mm_perception.data.dataset import load_dataset, load_preprocessing
from mm_perception.errors import DataError
from mm_perception.lab.digits.recordings import load_recordings
from mm_perception.modalities import build_modality
from mm_perception.ros.bag_files import Bag
from mm_perception.ros.bag_import import Bags, import_bags, raw_values
from mm_perception.ros.codecs import image_message, message_name
from mm_perception.spec import ModalitySpec, ModelSpec
from tests.helpers.recorded_bag import write_bag

ROOT = Path(__file__).parents[2]
SPEC = load_training(ROOT / 'config' / 'mhd.yaml').model
SECONDS = 10.0
QUIET_S, FROZEN_S = (1.5, 5.0), 6.0


@pytest.fixture(scope='module')
def recordings():
    return load_recordings(ROOT / 'models' / 'mhd' / 'recordings')


def thin(topic, elapsed_s, message):
    """Images at 10 Hz, so that a bag stays small."""
    return message if topic != 'image' or (elapsed_s * 30 + 0.5) % 3 < 1 else None


@pytest.fixture(scope='module')
def healthy(recordings, tmp_path_factory):
    """A bag in which all sensors work, and the labels on show."""
    path = tmp_path_factory.mktemp('bags') / 'healthy'
    return path, write_bag(path, recordings, SECONDS, thin)


@pytest.fixture(scope='module')
def faulty(recordings, tmp_path_factory):
    """The microphone is silent for a while, the camera freezes, labels become nonsense."""
    frames = []

    def broken(topic, elapsed_s, message):
        if topic == 'audio' and QUIET_S[0] <= elapsed_s < QUIET_S[1]:
            return None
        if topic == 'symbol' and elapsed_s > 8.0:
            message.data = 'elephant'
        if topic == 'image' and elapsed_s > FROZEN_S:
            frames.append(message)
            first = frames[0]
            first.header = message.header
            return thin(topic, elapsed_s, first)
        return thin(topic, elapsed_s, message)

    path = tmp_path_factory.mktemp('bags') / 'faulty'
    write_bag(path, recordings, SECONDS, broken, '/arm')
    return path


def config(tmp_path, **changes):
    """A training configuration for ``mhd``'s sensors that trains in no time."""
    plain = yaml.safe_load((ROOT / 'config' / 'mhd.yaml').read_text())
    plain['name'], plain['dataset'] = 'from_bag', str(tmp_path / 'dataset')
    plain['classifiers'] = plain['top'] = plain['refinement'] = plain['calibration'] = {
        'epochs': 1
    }
    plain['unimodal'] = {m['name']: {'epochs': 1} for m in plain['model']['modalities']}
    file = tmp_path / 'robot.yaml'
    file.write_text(yaml.safe_dump(plain | changes))
    return file


def test_bag_gives_what_the_sensors_showed_together(healthy, recordings):
    path, labels = healthy
    dataset, accounts = import_bags(SPEC, Bags([path]))
    assert len(dataset) == pytest.approx(10 * SECONDS, abs=3)
    assert dataset.names == SPEC.names
    assert {n: a.refused for n, a in accounts.items()} == dict.fromkeys(SPEC.names, 0)
    shown = [label for _, label in labels]
    read = dataset.unique('symbol', np.arange(len(dataset.values['symbol']))).argmax(1)
    assert [str(k) for k in read] == shown
    # The same transform as a dataset of recordings has: each spoken digit is one of them.
    sound = build_modality(SPEC.modality('sound'))
    spoken = np.stack([sound.to_model(r.speech) for r in recordings])
    heard = dataset.unique('sound', np.arange(len(dataset.values['sound'])))
    distance = np.abs(heard[:, None] - spoken[None]).mean((2, 3))
    digits = [recordings[k].label for k in distance.argmin(1)]
    assert distance.min(1).max() < 0.07
    assert digits == sorted(digits, key=shown.index), 'in the order in which they were shown'
    column = dataset.names.index('sound')
    assert dataset.present[:, column].mean() > 0.5 and not dataset.present[0, column]
    assert {n: a.rows for n, a in accounts.items()} == dict(
        zip(dataset.names, dataset.present.sum(0))
    )


def test_bag_leaves_out_what_the_node_would_not_use(faulty):
    dataset, accounts = import_bags(SPEC, Bags([faulty], namespace='arm'))
    present = dict(zip(dataset.names, dataset.present.T))
    _, recording = dataset.attributes['recording']
    assert (recording == 0).all()
    whole, _ = import_bags(SPEC, Bags([faulty], 40.0, 'arm'))
    assert len(whole) > len(dataset)
    assert 0.2 < present['sound'].mean() < 0.9 and 'max_age_s' in accounts['sound'].reason
    assert 0.3 < present['image'].mean() < 0.95 and 'frozen' in accounts['image'].reason
    assert present['image'][0] and not present['image'][-5:].any()
    assert present['trajectory'].mean() > 0.9 and present['symbol'].mean() > 0.7
    assert accounts['symbol'].messages - accounts['symbol'].values >= 3
    assert 'elephant' in accounts['symbol'].reason
    for name in dataset.names:
        used = np.unique(dataset.index[name][present[name]])
        assert len(used) == len(dataset.values[name]) == accounts[name].values


def test_every_tick_at_which_something_works_is_a_row_with_its_time(healthy, tmp_path):
    path, _ = healthy
    dataset, _ = import_bags(SPEC, Bags([path], 20.0))
    (recording,) = dataset.recordings()
    assert recording.name == 'healthy'
    np.testing.assert_allclose(np.diff(recording.time_s), 0.05, atol=1e-9)
    assert 0.0 <= recording.time_s[0] < 0.2
    index = np.stack([dataset.index[name] for name in dataset.names], axis=1)
    same = (np.diff(index, axis=0) == 0).all(axis=1) & (np.diff(dataset.present, axis=0) == 0).all(
        axis=1
    )
    assert same.any(), 'a row without news counts as time'

    part, _ = import_bags(SPEC, Bags([path], 20.0, span_s=(2.0, 4.0)))
    inside = (recording.time_s >= 2.0) & (recording.time_s < 4.0)
    np.testing.assert_array_equal(part.time_s, recording.time_s[inside])
    np.testing.assert_array_equal(part.present, dataset.present[inside])
    np.testing.assert_array_equal(
        part.rows('image', np.arange(len(part))), dataset.rows('image', np.flatnonzero(inside))
    )

    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / 'healthy').symlink_to(path)
    both, _ = import_bags(SPEC, Bags([path, tmp_path / 'other' / 'healthy']))
    assert len(both.recordings()) == len({r.name for r in both.recordings()}) == 2


def test_bags_without_a_sensor_have_rows_without_it(healthy, recordings, tmp_path):
    def only_camera(topic, elapsed_s, message):
        return thin(topic, elapsed_s, message) if topic == 'image' else None

    write_bag(tmp_path / 'camera', recordings, 2.0, only_camera)
    dataset, accounts = import_bags(SPEC, Bags([healthy[0], tmp_path / 'camera']))
    names, index = dataset.attributes['recording']
    assert names == ['healthy', 'camera']
    assert dataset.present[index == 1].tolist() == [[True, False, False, False]] * sum(index == 1)
    alone, accounts = import_bags(SPEC, Bags([tmp_path / 'camera']))
    assert accounts['sound'].messages == accounts['sound'].rows == accounts['sound'].values == 0
    assert alone.values['sound'].shape == (1, 128, 32)


def test_bag_is_trained_on_from_the_command_line(healthy, faulty, tmp_path, capsys):
    pytest.importorskip('torch', reason='torch is not installed')
    file, counts = config(tmp_path), tmp_path / 'counts.json'
    bags = [str(healthy[0])]
    assert main(['import-bag', '--config', str(file), *bags, '--json', str(counts)]) == 0
    assert main(['import-bag', '--config', str(file), *bags, '--split', 'test']) == 0
    said = capsys.readouterr().out
    assert 'rows in split train' in said and 'trajectory' in said
    rows = json.loads(counts.read_text())['rows']
    assert len(load_dataset(tmp_path / 'dataset', 'train')) == rows
    out = tmp_path / 'bundle'
    train = ['train', '--config', str(file), '--out', str(out), '--work', str(tmp_path / 'work')]
    assert main([*train, '--device', 'cpu', '--jobs', '1']) == 0
    assert load_bundle(out).spec.names == SPEC.names


def test_bad_bags_are_one_clear_line(healthy, tmp_path, capsys):
    path, _ = healthy
    elsewhere = replace(
        SPEC, modalities=tuple(replace(m, topic=f'far/{m.name}') for m in SPEC.modalities)
    )
    other = replace(SPEC.modality('image'), message='sensor_msgs/msg/CompressedImage')
    compressed = replace(SPEC, modalities=(other, *SPEC.modalities[1:]))
    for spec, bag, what in (
        (SPEC, tmp_path / 'nothing', 'nothing: not a readable bag .*no such file'),
        (elsewhere, path, 'none of the topics /far/image.*; it has .*/image.*; set topic'),
        (compressed, path, '/image is sensor_msgs/msg/Image, not .*CompressedImage; set message'),
    ):
        with pytest.raises(DataError, match=what):
            import_bags(spec, Bags([bag]))
    assert main(['import-bag', '--config', str(config(tmp_path)), str(tmp_path / 'nothing')]) == 2
    assert main(['import-bag', '--config', str(config(tmp_path)), str(path), '--rate', '0']) == 2
    assert capsys.readouterr().err.count('\n') == 2


def test_bag_of_nothing_usable_says_why(recordings, tmp_path):
    def nonsense(topic, elapsed_s, message):
        return Image(encoding='smell', header=message.header) if topic == 'image' else None

    write_bag(tmp_path / 'bag', recordings, 1.0, nonsense)
    with pytest.raises(
        DataError, match=r'nothing in it can be used \(image: .*smell.*no messages on /audio'
    ):
        import_bags(SPEC, Bags([tmp_path / 'bag']))


def test_bag_of_another_clock_with_a_long_pause_takes_no_time(tmp_path):
    store = get_typestore(Stores.ROS2_JAZZY)
    day_s, begin_s = 86_400, 1_700_000_000
    picture = np.full((28, 28), 250, np.uint8)
    picture[6:22, 12:16] = 15  # a one
    with Writer(tmp_path / 'bag', version=9) as writer:
        topics = {'/symbol': String, '/image': Image}
        to = {t: writer.add_connection(t, message_name(k), typestore=store)
              for t, k in topics.items()}  # fmt: skip
        writer.write(to['/symbol'], 5 * 10**9, serialize_message(String(data='3')))
        for number, at_s in enumerate((0, 1, day_s, day_s + 1)):
            message = image_message(picture + number, (begin_s + at_s) * 10**9)
            writer.write(to['/image'], (6 + at_s) * 10**9, serialize_message(message))
    began_s, said = time.monotonic(), []
    dataset, accounts = import_bags(SPEC, Bags([tmp_path / 'bag']), said.append)
    assert time.monotonic() - began_s < 30
    assert 'of another clock' in said[0]
    assert accounts['image'].values == 4
    shown = {name for name, row in zip(dataset.names, dataset.present.T) if row.any()}
    assert shown == {'image', 'symbol'}
    (recording,) = dataset.recordings()
    assert recording.time_s[-1] == pytest.approx(day_s + 1, abs=0.2)  # the gap is in the time
    assert np.diff(recording.time_s).max() > day_s - 10
    assert len(dataset) < 60


# --- bags that others recorded

REAL = Path(os.environ.get('MM_PERCEPTION_DATA', ROOT.parent / 'shared' / 'data')) / 'bags'
UR3 = REAL / 'ur3_joint_states'
real = pytest.mark.skipif(not REAL.is_dir(), reason=f'no recorded bags in {REAL}')


def vectors(**sensors):
    """A model of vectors: topic, message type, elements and half their range by name."""
    return ModelSpec(
        modalities=tuple(
            ModalitySpec(
                name,
                'vector',
                4,
                preprocessing={'low': (-span,) * size, 'high': (span,) * size},
                topic=topic,
                message=message,
            )
            for name, (topic, message, size, span) in sensors.items()
        )
    )


ARM = ('/joint_states', 'sensor_msgs/msg/JointState', 6, 6.3)
IMU = ('imu/data', 'sensor_msgs/msg/Imu', 6, 40.0)


@real
def test_bag_of_a_simulated_arm_keeps_the_time_of_its_stamps():
    said = []
    dataset, accounts = import_bags(vectors(arm=ARM), Bags([UR3]), said.append)
    assert len(said) == 1 and 'of another clock' in said[0]
    assert accounts['arm'].messages == 1052
    assert len(dataset) == pytest.approx(10 * 21.0, abs=5) and dataset.present.all()
    both, _ = import_bags(vectors(arm=ARM, same=ARM), Bags([UR3]))
    np.testing.assert_array_equal(both.values['arm'], both.values['same'])  # one topic for two
    assert both.present.all()
    moved = np.ptp(dataset.values['arm'], axis=0)
    assert 0.0 <= dataset.values['arm'].min() <= dataset.values['arm'].max() <= 1.0
    assert moved.max() > 0.1, 'the arm moves'


@real
def test_range_of_joints_comes_from_the_bag_and_holds_for_the_other_splits(tmp_path, capsys):
    plain = {
        'name': 'arm',
        'dataset': str(tmp_path / 'dataset'),
        'top': {'epochs': 1},
        'model': {
            'modalities': [
                {'name': 'arm', 'kind': 'vector', 'latent_dim': 2}
                | {'topic': ARM[0], 'message': ARM[1]}
            ]
        },
    }
    file = tmp_path / 'arm.yaml'
    file.write_text(yaml.safe_dump(plain))
    command = ['import-bag', '--config', str(file), str(UR3)]
    test = [*command, '--split', 'test', '--start', '16']
    assert main(test) == 2
    assert 'import the split train first' in capsys.readouterr().err
    assert main([*command, '--end', '15', '--rate', '20']) == 0
    assert main(test) == 0
    decided = load_preprocessing(tmp_path / 'dataset')['arm']
    assert len(decided['low']) == len(decided['high']) == 6
    train = load_dataset(tmp_path / 'dataset', 'train')
    assert 0.2 < train.values['arm'].min() < 0.3 and 0.7 < train.values['arm'].max() < 0.8
    held, _ = import_bags(vectors(arm=ARM), Bags([UR3], span_s=(16.0, math.inf)))
    in_rad = held.values['arm'] * 12.6 - 6.3
    low, high = (np.array(decided[k]) for k in ('low', 'high'))
    expected = np.clip((in_rad - low) / (high - low), 0.0, 1.0)
    found = load_dataset(tmp_path / 'dataset', 'test').values['arm']
    np.testing.assert_allclose(found, expected, atol=1e-4)
    build = json.loads((tmp_path / 'dataset' / 'build.json').read_text())['splits']
    assert (build['train']['rate_hz'], build['train']['end_s']) == (20.0, 15.0)
    assert build['test']['start_s'] == 16.0 and build['test']['bags'] == ['ur3_joint_states']
    assert build['test']['end_s'] is None, 'JSON has no infinity'


@real
def test_named_joints_and_an_imu_tell_their_range():
    spec = load_training(ROOT / 'config' / 'robots' / 'imu.yaml').model
    bags = Bags([REAL / 'joint_states_imu_mcap'], span_s=(0.0, 66.0))
    raws = raw_values(spec, bags, spec.names)
    sizes = {name: {len(raw) for raw in found} for name, found in raws.items()}
    assert sizes == {'arm': {3}, 'gripper': {3}, 'wheels': {4}, 'imu': {6}}


@real
def test_mcap_bag_tells_what_does_not_fit():
    spec = vectors(arm=ARM, imu=IMU)
    dataset, accounts = import_bags(spec, Bags([REAL / 'joint_states_imu_mcap'], 20.0))
    assert {n: a.messages for n, a in accounts.items()} == {'arm': 1866, 'imu': 4712}
    assert dataset.present.all(0).tolist() == [False, True]
    assert accounts['arm'].rows == 0 and 'expected 6' in accounts['arm'].reason
    assert accounts['imu'].values == len(dataset) == pytest.approx(20 * 94, rel=0.02)


@real
def test_bag_without_its_metadata_and_of_old_type_names_is_read():
    folder = REAL / 'camera_single_frame'
    with Bag(folder) as bag:
        assert {topic.message for topic in bag.topics.values()} >= {
            'sensor_msgs/msg/Image',
            'std_msgs/msg/String',
        }
    camera = ModalitySpec('camera', 'image', topic='/image')
    for path in (folder, folder / 'sample.db3'):
        dataset, accounts = import_bags(ModelSpec((camera,)), Bags([path]))
        assert accounts['camera'].messages == 1 and len(dataset) >= 1


def test_bag_gives_stacks_of_frames(healthy):
    path, _ = healthy
    image = SPEC.modality('image')
    stacked = replace(image, preprocessing={**image.preprocessing, 'frames': 3})
    one, three = (
        import_bags(ModelSpec(modalities=(spec,)), Bags([path]))[0] for spec in (image, stacked)
    )
    assert build_modality(stacked).shape == (3, 28, 28)
    late = len(three) - np.arange(20, 5, -1)
    newest = three.rows('image', late)[:, 2:]
    offset = len(one) - len(three)
    np.testing.assert_array_equal(newest, one.rows('image', late + offset))
    before = three.rows('image', late)[:, 1:2]
    np.testing.assert_array_equal(before, one.rows('image', late + offset - 1))
