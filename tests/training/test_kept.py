"""A sensor is added: autoencoders of the others stay as they are."""

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml

pytest.importorskip('torch', reason='torch is not installed')

from mm_perception.bundle import load_bundle
from mm_perception.cli.main import main
from mm_perception.config import to_plain
from mm_perception.data.dataset import save_dataset
from mm_perception.errors import ConfigError
from mm_perception.spec import ModelSpec, StageSpec
from mm_perception.training.kept import find_kept
from tests.helpers.toy_training import configuration, recordings

ONCE = StageSpec(epochs=1, batch_size=64)
OLD = ('camera', 'arm')


def robot_of(folder, names):
    """Write the toy robot's data of some sensors, and a configuration that trains at once."""
    spec = configuration(folder, top=ONCE, classifiers=ONCE)
    modalities = tuple(m for m in spec.model.modalities if m.name in names)
    data = folder / '_'.join(names)
    for split, seed in (('train', 0), ('test', 1)):
        rows = recordings(seed)
        columns = [rows.names.index(name) for name in names]
        part = replace(rows, names=tuple(names), present=rows.present[:, columns])
        save_dataset(data, split, part)
    spec = replace(
        spec,
        dataset=str(data),
        model=replace(spec.model, modalities=modalities),
        unimodal=dict.fromkeys(names, ONCE),
    )
    file = folder / f'{data.name}.yaml'
    file.write_text(yaml.safe_dump(to_plain(spec)))
    return spec, file


@pytest.fixture(scope='module')
def before(tmp_path_factory):
    """A bundle of camera and arm."""
    folder = tmp_path_factory.mktemp('kept')
    _, file = robot_of(folder, OLD)
    out = folder / 'before'
    train = ['train', '--config', str(file), '--out', str(out), '--work', str(folder / 'runs')]
    assert main([*train, '--device', 'cpu', '--jobs', '1']) == 0
    return folder, load_bundle(out)


def test_training_keeps_the_autoencoders_of_unchanged_sensors(before, capsys):
    folder, bundle = before
    _, file = robot_of(folder, (*OLD, 'word'))
    plain = yaml.safe_load(file.read_text())
    for modality in plain['model']['modalities'][:2]:  # what it had left to the data
        modality |= {'latent_dim': 0, 'network': {}, 'likelihood': '', 'max_age_s': 0.2}
    file.write_text(yaml.safe_dump(plain))
    out, work, counts = folder / 'after', folder / 'again', folder / 'train.json'
    train = ['train', '--config', str(file), '--out', str(out), '--work', str(work)]
    train += ['--from', str(bundle.path), '--json', str(counts), '--device', 'cpu', '--jobs', '1']
    assert main(train) == 0
    after = load_bundle(out)
    kept = [key for key in bundle.weights if key.startswith('unimodal.')]
    assert len(kept) > 10
    for key in kept:
        np.testing.assert_array_equal(after.weights[key], bundle.weights[key])
    assert any(key.startswith('unimodal.word.') for key in after.weights)
    assert after.spec.modality('arm').latent_dim == bundle.spec.modality('arm').latent_dim
    assert after.spec.modality('arm').max_age_s == 0.2
    assert not (work / 'camera.safetensors').exists() and (work / 'word.safetensors').exists()
    seconds = json.loads(counts.read_text())['training']['seconds']
    assert set(seconds) == {'word', 'top'}
    assert f'kept from {bundle.frame_id}: camera, arm' in capsys.readouterr().out


def test_adding_a_sensor_leaves_out_what_the_others_took(tmp_path):
    stage = StageSpec(epochs=20, batch_size=64)
    options = ['--device', 'cpu', '--jobs', '1', '--work']
    seconds = {}
    for names, earlier in ((('camera', 'word'), []), ((*OLD, 'word'), []), ((*OLD, 'word'), [0])):
        _, file = robot_of(tmp_path, names)
        plain = yaml.safe_load(file.read_text())
        plain['unimodal']['camera'] = to_plain(stage)
        plain['classifiers'] = to_plain(stage)
        file.write_text(yaml.safe_dump(plain))
        run = f'run{len(seconds)}'
        train = ['train', '--config', str(file), '--out', str(tmp_path / run), *options, run]
        train[-1] = str(tmp_path / f'{run}_work')
        assert main(train + (['--from', str(tmp_path / 'run0')] if earlier else [])) == 0
        seconds[run] = load_bundle(tmp_path / run).training
    full, added = (
        sum(sum(seconds[run][key].values()) for key in ('seconds', 'classifier_seconds'))
        for run in ('run1', 'run2')
    )
    assert set(seconds['run2']['seconds']) == {'arm', 'top'}
    assert set(seconds['run2']['classifier_seconds']) == {'arm'}
    first, last = (load_bundle(tmp_path / run) for run in ('run0', 'run2'))
    for weights, prefix in (('weights', 'unimodal.camera.'), ('classifiers', 'camera.')):
        kept = [key for key in getattr(first, weights) if key.startswith(prefix)]
        assert kept
        for key in kept:
            np.testing.assert_array_equal(
                getattr(last, weights)[key], getattr(first, weights)[key]
            )
    assert added < 0.6 * full


def test_training_anew_of_a_changed_sensor_says_why(before):
    folder, bundle = before
    spec = robot_of(folder, (*OLD, 'word'))[0].model
    camera, arm, word = spec.modalities
    wider = replace(arm, preprocessing={**arm.preprocessing, 'high': (2.0,) * 4})
    kept = find_kept(replace(spec, modalities=(camera, wider, word)), bundle)
    assert list(kept.modalities) == ['camera']
    assert kept.refused == {'arm': 'preprocessing.high has changed'}
    larger = replace(camera, latent_dim=5)
    with pytest.raises(ConfigError, match=r'none .* can be kept \(camera: latent_dim is 5, was 4'):
        find_kept(ModelSpec((larger, wider)), bundle)
    with pytest.raises(ConfigError, match='no modality of the configuration is in it'):
        find_kept(ModelSpec((word,)), bundle)


def test_training_in_one_step_keeps_nothing(before, capsys):
    folder, bundle = before
    _, file = robot_of(folder, OLD)
    plain = yaml.safe_load(file.read_text()) | {'joint': True}
    file.write_text(yaml.safe_dump(plain))
    assert main(['train', '--config', str(file), '--from', str(bundle.path)]) == 2
    assert 'whose autoencoders train apart' in capsys.readouterr().err
