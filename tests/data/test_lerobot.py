"""LeRobot datasets as recordings."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip('av', reason='PyAV is not installed')
pytest.importorskip('pyarrow', reason='pyarrow is not installed')

import cv2
import pyarrow as pa
import pyarrow.parquet as parquet

from mm_perception.bundle import load_bundle
from mm_perception.cli.import_lerobot import read_numbers
from mm_perception.cli.main import main
from mm_perception.config import load_training
from mm_perception.data.dataset import load_dataset, load_preprocessing, splits
from mm_perception.data.lerobot import Episodes
from mm_perception.errors import ConfigError, DataError
from mm_perception.spec import ModalitySpec, ModelSpec
from tests.data.lerobot_folder import CAMERA, LENGTHS, grey, states, write_v21, write_v30

ROOT = Path(__file__).parents[2]
WIDE = {'low': (-1000.0,) * 2, 'high': (1000.0,) * 2}


def model(**changed):
    """Camera, two joints by name, action and object."""
    sensors = {
        'camera': ModalitySpec(
            'camera',
            'image',
            2,
            {'height': 12, 'width': 16, 'square': False},
            topic='observation/images/head',
        ),
        'arm': ModalitySpec(
            'arm', 'vector', 2, {'names': ('elbow', 'lift'), **WIDE}, topic='observation.state'
        ),
        'action': ModalitySpec('action', 'vector', 2, WIDE),
        'object': ModalitySpec('object', 'symbol', 2, {'labels': ('cup', 'ball')}),
    }
    return ModelSpec(modalities=tuple((sensors | changed).values()))


@pytest.fixture(scope='module', params=[write_v21, write_v30], ids=['v2.1', 'v3.0'])
def folder(request, tmp_path_factory):
    return request.param(tmp_path_factory.mktemp('lerobot') / 'robot')


def test_episodes_become_recordings_of_the_nearest_frames(folder):
    said = []
    episodes = Episodes(model(), folder, say=said.append)
    dataset, accounts = episodes.read(model())
    assert dataset.names == ('camera', 'arm', 'action', 'object')
    recordings = dataset.recordings()
    assert [r.name for r in recordings] == [f'episode_{k:06d}' for k in range(3)]
    for k, recording in enumerate(recordings):
        frames = np.arange(0, LENGTHS[k], 3)
        np.testing.assert_allclose(recording.time_s, frames / 30, atol=1e-6)
        arm = dataset.rows('arm', recording.rows) * 2000 - 1000
        np.testing.assert_allclose(arm, states(k)[frames][:, [2, 1]], atol=1e-3)
        action = dataset.rows('action', recording.rows) * 2000 - 1000
        np.testing.assert_allclose(action, 2 * states(k)[frames][:, :2], atol=1e-3)
        label = dataset.rows('object', recording.rows).argmax(1)
        assert label.tolist() == (frames >= 15).astype(int).tolist()
        there = dataset.present[recording.rows, 0]
        assert there.all() if k < 2 else not there.any()
        if k < 2:
            pictures = dataset.rows('camera', recording.rows)
            levels = [grey(k, frame) for frame in frames]
            np.testing.assert_allclose(pictures.mean((1, 2, 3)) * 255, levels, atol=1.2)
    assert dataset.values['camera'].dtype == np.uint8
    assert dataset.present[:, 1:].all()
    assert accounts['camera'].rows == 11 + 14 and accounts['arm'].rows == len(dataset)
    assert any(f'camera: 1 of 3 episodes have no {CAMERA}' in line for line in said)


def test_some_episodes_at_another_rate(folder):
    dataset, _ = Episodes(model(), folder, (1,), 20.0).read(model())
    (recording,) = dataset.recordings()
    assert recording.name == 'episode_000001'
    ticks = np.arange(len(recording.time_s)) / 20
    assert np.abs(recording.time_s - ticks).max() <= 0.5 / 30 + 1e-6
    assert recording.time_s[-1] == pytest.approx(39 / 30, abs=0.03)
    frames = np.rint(recording.time_s * 30)
    pictures = dataset.rows('camera', recording.rows)
    levels = [grey(1, frame) for frame in frames]
    np.testing.assert_allclose(pictures.mean((1, 2, 3)) * 255, levels, atol=1.2)
    whole, _ = Episodes(model(), folder, (1,), 30.0).read(model())
    assert len(whole) == LENGTHS[1]


def test_episodes_that_meta_lists_but_are_not_there_are_left_out(tmp_path):
    folder, said = write_v21(tmp_path / 'robot'), []
    assert Episodes(model(), folder, say=said.append).numbers == (0, 1, 2)
    assert said == [f'{folder}: 1 of 4 episodes have no data file and are left out']
    with pytest.raises(DataError, match=r'episode_000003.parquet: missing; copy it, or choose'):
        Episodes(model(), folder, (0, 3))


def test_pictures_in_parquet_and_numbers_that_cannot_be_used(tmp_path):
    folder = write_v21(tmp_path / 'robot')
    info = json.loads((folder / 'meta' / 'info.json').read_text())
    info['features'][CAMERA]['dtype'] = 'image'
    (folder / 'meta' / 'info.json').write_text(json.dumps(info))
    file = folder / 'data/chunk-000/episode_000002.parquet'
    table = parquet.read_table(file)
    rgb = np.zeros((48, 64, 3), np.uint8)
    rgb[..., 0] = 255
    png = cv2.imencode('.png', rgb[..., ::-1])[1].tobytes()
    stored = [{'bytes': png, 'path': ''}] * 21 + [{'bytes': b'broken', 'path': ''}]
    action = [[1.0, 2.0]] * 21 + [[1.0, float('nan')]]
    table = table.append_column(CAMERA, pa.array(stored))
    table = table.set_column(table.schema.get_field_index('action'), 'action', pa.array(action))
    parquet.write_table(table, file)
    camera = ModalitySpec('camera', 'image', 2, {'channels': 3}, topic=CAMERA)
    spec = model(camera=camera)
    dataset, accounts = Episodes(spec, folder, (2,)).read(spec)
    assert len(dataset) == 8 and dataset.present[:-1].all()
    assert dataset.present[-1].tolist() == [False, True, False, True]
    assert dataset.unique('camera', np.array([0])).mean((0, 2, 3)).tolist() == [1.0, 0.0, 0.0]
    assert accounts['camera'].refused == accounts['action'].refused == 1
    assert 'image has shape' in accounts['camera'].reason and 'NaN' in accounts['action'].reason


def test_rows_lack_what_their_file_leaves_out(tmp_path):
    folder = write_v21(tmp_path / 'robot')
    file = folder / 'data/chunk-000/episode_000000.parquet'
    table = parquet.read_table(file)
    state = [None, *([1.0, 2.0, 3.0, 4.0] for _ in range(29)), [1.0, 2.0]]
    label = [*['cup'] * 30, None]
    for name, column in (('observation.state', state), ('object', label)):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.array(column))
    parquet.write_table(table, file)
    dataset, accounts = Episodes(model(), folder, (0,)).read(model())
    there = dict(zip(dataset.names, dataset.present.T.tolist()))
    assert there['arm'] == [False, *[True] * 9, False] and there['object'] == [*[True] * 10, False]
    assert accounts['arm'].refused == 1 and '1 elements' in accounts['arm'].reason


@pytest.mark.parametrize(
    ('changed', 'said'),
    [
        (ModalitySpec('arm', 'vector', 2, WIDE, topic='/joints'), 'no feature joints; it has obs'),
        (ModalitySpec('arm', 'vector', 2, WIDE, topic=CAMERA), 'holds video, which kind vector'),
        (ModalitySpec('arm', 'sound', 2, topic='effort'), 'holds float32, which kind sound'),
        (
            ModalitySpec('arm', 'vector', 2, {'names': ('hip',)}, topic='observation.state'),
            'no element hip; it has pan, lift, elbow, grip; set names',
        ),
        (ModalitySpec('arm', 'vector', 2, {'names': ('2',)}, topic='action'), 'it has 0 to 1'),
    ],
)
def test_modalities_without_a_feature_are_one_clear_line(folder, changed, said):
    with pytest.raises(ConfigError, match=said):
        Episodes(model(arm=changed), folder)


def test_elements_without_names_are_called_by_their_number(folder):
    second = ModalitySpec('arm', 'vector', 1, {'names': ('1',)}, topic='action')
    raws = Episodes(model(arm=second), folder, (1,)).raw_values(['arm'])['arm']
    assert [raw.tolist() for raw in raws[:2]] == [[200.0], [206.0]]


@pytest.mark.parametrize(
    ('file', 'content', 'said'),
    [
        ('meta/info.json', b'{', 'info.json: missing or broken .*LeRobot dataset'),
        (
            'meta/info.json',
            b'{"codebase_version": "v2.1", "fps": 30, "features": {"a": 1}}',
            'info.json: missing or broken',
        ),
        ('meta/info.json', b'{"codebase_version": "v1.6", "fps": 30, "features": {}}', 'v1.6; v2'),
        ('meta/episodes.jsonl', b'', 'meta lists no episodes'),
        ('meta/episodes.jsonl', b'{"length": 3}', 'episode without its number'),
        ('data/chunk-000/episode_000001.parquet', b'PAR1', '000001.parquet: not readable parquet'),
        (
            f'videos/chunk-000/{CAMERA}/episode_000001.mp4',
            b'nothing',
            '000001.mp4: not a readable',
        ),
    ],
)
def test_broken_files_are_one_clear_line(file, content, said, tmp_path):
    folder = write_v21(tmp_path / 'robot')
    (folder / file).write_bytes(content)
    with pytest.raises(DataError, match=said) as error:
        Episodes(model(), folder, (0, 1)).read(model())
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('changed', 'said'),
    [
        ({'data_path': '/etc/passwd'}, r'data_path: /etc/passwd'),
        ({'data_path': '../../{episode_index}'}, 'does not tell the files'),
        ({'data_path': '{episode_index:0999999999d}'}, 'does not tell the files'),
        ({'data_path': '{episode_index.__class__}'}, 'does not tell the files'),
        ({'data_path': 'x' * 5000}, 'does not tell the files'),
        ({'fps': 1e300}, 'missing or broken'),
        ({'fps': 10**400}, 'missing or broken'),
        ({'chunks_size': 0}, 'missing or broken'),
        ({'features': {'a': {'dtype': 'float32', 'shape': [10**9]}}}, 'a: shape'),
        ({'features': {'a': {'dtype': 'float32', 'shape': [4096] * 3}}}, 'a: too large'),
        ({'features': {'a': {'dtype': 'float32', 'names': 3}}}, 'missing or broken'),
    ],
)
def test_dataset_made_to_harm_is_one_clear_line(changed, said, tmp_path):
    folder = write_v21(tmp_path / 'robot')
    file = folder / 'meta' / 'info.json'
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    with pytest.raises(DataError, match=said) as error:
        Episodes(model(), folder, (0,)).read(model())
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', ['meta/info.json', 'data/chunk-000/episode_000000.parquet'])
def test_pipe_in_place_of_a_file_holds_nobody_up(name, tmp_path):
    folder = write_v21(tmp_path / 'robot')
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(DataError, match=r'regular file|missing'):
        Episodes(model(), folder, (0,)).read(model())


def test_video_that_ends_early_leaves_rows_without_it(tmp_path):
    folder = write_v21(tmp_path / 'robot')
    videos = folder / 'videos/chunk-000' / CAMERA
    (videos / 'episode_000000.mp4').replace(videos / 'episode_000001.mp4')  # 31 frames for 40
    dataset, _ = Episodes(model(), folder, (1,)).read(model())
    assert dataset.present[:, 0].tolist() == [True] * 11 + [False] * 3


def test_numbers_of_episodes():
    assert read_numbers('') == ()
    assert read_numbers('3,0-2,2') == (0, 1, 2, 3)
    for text in ('a', '5-3', '1,,2', '-3'):
        with pytest.raises(DataError, match='give numbers and ranges'):
            read_numbers(text)


def configuration(tmp_path, **more):
    """A file with a camera and joints whose range nobody sets."""
    camera, arm, *_ = model().modalities
    sensors = [
        {'name': m.name, 'kind': m.kind, 'latent_dim': 2, 'topic': m.topic} for m in (camera, arm)
    ]
    sensors[0]['preprocessing'] = dict(camera.preprocessing)
    sensors[1]['preprocessing'] = {'names': ['elbow', 'lift', 'grip']}
    plain = {
        'name': 'robot',
        'dataset': str(tmp_path / 'dataset'),
        'top': {'epochs': 1},
        'unimodal': {m['name']: {'epochs': 1} for m in sensors},
        'model': {'modalities': sensors, 'joint_hidden': [8], 'decoder_hidden': [8]},
    }
    file = tmp_path / 'robot.yaml'
    file.write_text(yaml.safe_dump(plain | more))
    return file


def test_range_goes_from_the_training_episodes_into_the_bundle(folder, tmp_path, capsys):
    pytest.importorskip('torch', reason='torch is not installed')
    file, out = configuration(tmp_path), tmp_path / 'dataset'
    command = ['import-lerobot', str(folder), '--config', str(file)]
    test = [*command, '--split', 'test', '--episodes', '1,2']
    assert main(test) == 2
    assert (
        'does not know the range of arm; import the split train first' in capsys.readouterr().err
    )
    assert main([*command, '--episodes', '0']) == 0
    assert main(test) == 0
    assert 'arm: never changes in the split train: grip' in capsys.readouterr().out
    decided = load_preprocessing(out)['arm']
    assert decided['low'][1] == pytest.approx(-15) and decided['high'][1] == pytest.approx(45)
    low, high = (np.array(decided[k]) for k in ('low', 'high'))
    test_set = load_dataset(out, 'test')
    values = test_set.rows('arm', test_set.recordings()[0].rows)
    expected = (states(1)[::3][:, [2, 1, 3]] - low) / (high - low)
    np.testing.assert_allclose(values, np.clip(expected, 0.0, 1.0), atol=1e-5)
    train = ['train', '--config', str(file), '--jobs', '1', '--device', 'cpu']
    bundle, work = tmp_path / 'bundle', tmp_path / 'work'
    assert main([*train, '--out', str(bundle), '--work', str(work)]) == 0
    options = load_bundle(bundle).spec.modality('arm').preprocessing
    assert list(options['low']) == decided['low'] and list(options['high']) == decided['high']
    build = json.loads((out / 'build.json').read_text())['splits']
    assert build['test']['episodes'] == [1, 2] and build['test']['rate_hz'] == 10.0

    assert main([*command, '--episodes', '0,1']) == 0  # another range: the test split is outdated
    assert 'import the split test again' in capsys.readouterr().out
    assert splits(out) == ('train',)


def test_bad_commands_are_one_line(folder, tmp_path, capsys):
    command = ['import-lerobot', str(folder), '--config', str(configuration(tmp_path))]
    for more in (['--rate', '0'], ['--rate', '60'], ['--episodes', '0-9'], ['--episodes', 'x']):
        assert main([*command, *more]) == 2
    assert main(['import-lerobot', str(tmp_path), *command[2:]]) == 2
    assert capsys.readouterr().err.count('\n') == 5


# --- a robot that others recorded

DATA = Path(os.environ.get('MM_PERCEPTION_DATA', ROOT.parent / 'shared' / 'data'))
G1 = DATA / 'robots' / 'g1'


@pytest.mark.skipif(not G1.is_dir(), reason=f'no recorded robot in {G1}')
def test_humanoid_is_read_as_its_configuration_says(tmp_path):
    said = []
    spec = load_training(ROOT / 'config' / 'robots' / 'g1_commands.yaml').model
    episodes = Episodes(spec, G1, (2, 3), say=said.append)
    raws = episodes.raw_values(['right_arm', 'command'])
    assert raws['right_arm'][0].shape == (7,) and raws['command'][0].shape == (26,)
    table = parquet.read_table(G1 / 'data/chunk-000/episode_000002.parquet')
    whole = np.array(table['observation.state'].to_pylist(), np.float32)
    np.testing.assert_array_equal(np.stack(raws['right_arm'])[:115], whole[::3, 7:14])
    camera = ModelSpec(modalities=spec.modalities[:1])
    dataset, _ = Episodes(camera, G1, (2, 3), say=said.append).read(camera)
    (recording,) = dataset.recordings()
    assert recording.name == 'episode_000002' and len(recording.rows) == 115
    assert dataset.values['camera'].shape == (115, 3, 48, 64)
    assert 0.05 < dataset.unique('camera', np.arange(115)).std() < 0.5
    assert said == [
        'camera: 1 of 2 episodes have no observation.images.cam_high; their rows lack it'
    ]
