"""Bags as LeRobot datasets: latents, sensors without holes."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed')
pytest.importorskip('rosbags', reason='rosbags is not installed')
pytest.importorskip('torch', reason='torch is not installed')
pytest.importorskip('pyarrow', reason='pyarrow is not installed')
pytest.importorskip('av', reason='av is not installed')

import pyarrow.parquet as parquet

from mm_perception.bundle import Bundle, load_bundle, save_bundle
from mm_perception.cli.main import main
from mm_perception.data.lerobot import Episodes
from mm_perception.data.lerobot_survey import survey_lerobot
from mm_perception.modalities import build_modality
from mm_perception.ros.bag_import import Bags, import_bags
from mm_perception.spec import ModalitySpec, ModelSpec
from tests.helpers.driving_bag import JOINTS, WORDS, write_driving_bag
from tests.helpers.small_bundle import make_bundle

DENSE = {'type': 'dense', 'hidden': (16,)}
SPEC = ModelSpec(
    (
        ModalitySpec(
            *('arm', 'vector', 2, {'low': (-2.0,) * 2, 'high': (2.0,) * 2, 'names': JOINTS[:2]}),
            network=DENSE,
            likelihood='optimal_sigma',
            topic='/joint_states',
            message='sensor_msgs/msg/JointState',
        ),
        ModalitySpec(
            *('camera', 'image', 4, {'height': 12, 'width': 16, 'channels': 3, 'square': False}),
            network=DENSE,
            likelihood='optimal_sigma',
            topic='/camera/image_raw',
            max_age_s=0.3,
        ),
        ModalitySpec(
            *('word', 'symbol', 2, {'labels': WORDS}),
            network=DENSE,
            likelihood='categorical',
            topic='/word',
        ),
    ),
    joint_latent_dim=5,
    message_dim=16,
    joint_hidden=(16,),
    decoder_hidden=(16,),
)


@pytest.fixture(scope='module')
def bags(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A whole bag, and one without the camera."""
    folder = tmp_path_factory.mktemp('bags')
    write_driving_bag(folder / 'whole', 3.0)
    write_driving_bag(folder / 'blind', 2.0, seed=1, topics=('/joint_states', '/word'))
    return [folder / 'whole', folder / 'blind']


@pytest.fixture(scope='module')
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp('bundles') / 'driver'
    return save_bundle(make_bundle('driver', spec=SPEC), folder, '# driver\n')


def test_export_holds_latents_and_sensors_without_holes(bags, bundle, tmp_path):
    out, counts = tmp_path / 'lerobot', tmp_path / 'counts.json'
    command = ['export-lerobot', *map(str, bags), '--bundle', str(bundle.path), '--out', str(out)]
    assert main([*command, '--action', 'arm', '--task', 'drive', '--json', str(counts)]) == 0
    tables = [parquet.read_table(f) for f in sorted((out / 'data').rglob('*.parquet'))]
    whole, blind = (table.to_pylist() for table in tables)
    info = json.loads((out / 'meta' / 'info.json').read_text())
    assert info['codebase_version'] == 'v3.0'
    assert info['total_frames'] == len(whole) + len(blind) and info['total_episodes'] == 2
    assert info['features']['observation.environment_state']['shape'] == [10]
    assert info['features']['action']['names'] == list(JOINTS[:2])
    filled = json.loads(counts.read_text())['filled']
    assert filled['camera'] >= len(blind) and filled['arm'] == 0

    dataset, _ = import_bags(bundle.spec, Bags(bags[:1]))
    arm = build_modality(bundle.spec.modality('arm'))
    rows = np.arange(len(dataset))
    expected = [arm.from_model(array) for array in dataset.rows('arm', rows)]
    np.testing.assert_allclose([row['action'] for row in whole], expected, atol=1e-6)
    camera = build_modality(bundle.spec.modality('camera'))
    shown = cv2.imdecode(np.frombuffer(whole[5]['observation.images.camera']['bytes'], 'u1'), 1)
    (seen,) = dataset.rows('camera', np.array([5]))
    np.testing.assert_array_equal(shown[..., ::-1], camera.from_model(seen))
    for row in blind:
        assert row['observation.present'] == [True, False, row['observation.present'][2]]
        assert np.isfinite(row['observation.environment_state']).all()
        assert row['observation.images.camera']['bytes'][:4] == b'\x89PNG'
        assert row['observation.word'] in WORDS
    stats = json.loads((out / 'meta' / 'stats.json').read_text())
    assert stats['observation.images.camera']['mean'][0][0][0] == pytest.approx(0.3, abs=0.3)
    moved = np.array([row['action'] for row in whole + blind])
    np.testing.assert_allclose(stats['action']['mean'], moved.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(stats['action']['std'], moved.std(axis=0), atol=1e-6)


def test_export_can_be_imported_again(bags, bundle, tmp_path):
    out = tmp_path / 'lerobot'
    command = ['export-lerobot', str(bags[0]), '--bundle', str(bundle.path), '--out', str(out)]
    assert main(command) == 0
    seen, length_s = survey_lerobot(out)
    assert length_s == pytest.approx(3.0, abs=0.2)
    drafts = {draft.name: draft.kind for each in seen for draft in each.drafts}
    assert drafts['arm'] == 'vector' and drafts['camera'] == 'image' and drafts['word'] == 'symbol'
    arm = ModalitySpec(
        *('arm', 'vector', 2, {'low': (-2.0,) * 2, 'high': (2.0,) * 2}), topic='observation/arm'
    )
    again, _ = Episodes(ModelSpec((arm,)), out).read(ModelSpec((arm,)))
    dataset, _ = import_bags(bundle.spec, Bags(bags[:1]))
    rows = np.arange(len(dataset))
    np.testing.assert_allclose(again.rows('arm', rows), dataset.rows('arm', rows), atol=1e-6)
    assert main(command) == 0, 'its own kind of folder is replaced'


@pytest.mark.parametrize(
    ('options', 'line'),
    [
        (['--action', 'legs'], '--action is legs'),
        (['--rate', '2.5'], 'whole frames per second'),
        (['--bundle', '/nowhere'], 'no bundle "/nowhere"'),
    ],
)
def test_export_refuses_in_one_line_and_writes_nothing(
    options, line, bags, bundle, tmp_path, capsys
):
    out = tmp_path / 'lerobot'
    command = ['export-lerobot', str(bags[0]), '--bundle', str(bundle.path), '--out', str(out)]
    assert main([*command, *options]) == 2
    assert line in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_export_never_replaces_another_folder(bags, bundle, tmp_path, capsys):
    (tmp_path / 'mine.txt').write_text('precious')
    command = ['export-lerobot', str(bags[0]), '--bundle', str(load_bundle(bundle.path).path)]
    assert main([*command, '--out', str(tmp_path)]) == 2
    assert 'holds something else' in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ['mine.txt']
