"""Bundles: saved and loaded exactly, refused when anything is wrong."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from mm_perception.bundle import (
    Bundle,
    Graphs,
    find_bundle,
    load_bundle,
    save_additions,
    save_bundle,
)
from mm_perception.cli.main import main
from mm_perception.engines.build import build_engine
from mm_perception.engines.torch_engine import load_model
from mm_perception.errors import BundleError, EngineUnavailable
from mm_perception.model.build import build_model
from tests.helpers.agreeing_world import exact_health, plain
from tests.helpers.model_specs import arm_spec
from tests.helpers.small_bundle import make_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    torch.manual_seed(0)
    weights = {k: v.numpy() for k, v in build_model(arm_spec()).state_dict().items()}
    return save_bundle(Bundle('arm', arm_spec(), weights), tmp_path / 'arm', '# arm\n')


def test_a_bundle_comes_back_as_it_was_saved(bundle: Bundle) -> None:
    loaded = load_bundle(bundle.path)
    assert loaded.spec == bundle.spec or loaded.spec.names == bundle.spec.names
    assert loaded.hash == bundle.hash and len(loaded.hash) == 64
    assert loaded.frame_id == f'latent/arm@{bundle.hash[:8]}'
    for name, array in bundle.weights.items():
        np.testing.assert_array_equal(loaded.weights[name], array)


GRAPHS = Graphs({'fuse': b'\x08\x00graph', 'int8.fuse': b''}, True, False, True, {'a': 3}, {})
ADDED = ('fuse.onnx', 'health.safetensors')


def with_additions(bundle: Bundle) -> Bundle:
    added = replace(bundle, graphs=GRAPHS, health=exact_health())
    save_additions(added)
    return added


def test_graphs_and_health_come_back_and_do_not_name_the_latent_space(bundle: Bundle) -> None:
    assert load_bundle(bundle.path).graphs is None is load_bundle(bundle.path).health
    weights = (bundle.path / 'model.safetensors').read_bytes()
    added = with_additions(bundle)
    loaded = load_bundle(bundle.path)
    assert loaded.graphs == GRAPHS and plain(loaded.health) == plain(exact_health())
    assert loaded.hash == bundle.hash
    assert (bundle.path / 'model.safetensors').read_bytes() == weights
    assert (bundle.path / 'fuse.onnx').read_bytes() == GRAPHS.content['fuse']
    save_bundle(added, bundle.path, 'again')
    assert load_bundle(bundle.path).graphs == added.graphs
    save_additions(replace(bundle, graphs=None, health=None))
    assert not {*ADDED, 'int8.fuse.onnx'} & {file.name for file in bundle.path.iterdir()}
    assert load_bundle(bundle.path).graphs is None


@pytest.mark.parametrize('name', ADDED)
def test_every_added_file_is_hashed(bundle: Bundle, name: str) -> None:
    with_additions(bundle)
    file = bundle.path / name
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(BundleError, match=f'{name}: truncated or altered'):
        load_bundle(bundle.path)
    file.write_bytes(b' ' * (65 << 20))
    with pytest.raises(BundleError, match=r'larger than 6[34] MiB'):
        load_bundle(bundle.path)
    file.unlink()
    with pytest.raises(BundleError, match=f'{name}: missing'):
        load_bundle(bundle.path)


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('additions', {'../fuse.onnx': ''}, 'strange file'),
        ('additions', {'run.py': ''}, 'strange file'),
        ('additions', {'more.safetensors': ''}, 'strange file'),
        ('additions', ['fuse.onnx'], 'additions: expected keys and values'),
        ('health', [1], 'health: expected keys and values'),
        ('health', {'rows': 'many'}, 'health.rows: expected int'),
        ('graphs', {'fuses': 1}, 'graphs.fuses: expected bool'),
        ('graphs', {}, 'graphs.fuses: missing'),
    ],
)
def test_strange_additions_are_refused(
    bundle: Bundle, key: str, value: object, message: str
) -> None:
    with_additions(bundle)
    edit(key, value)(bundle.path)
    with pytest.raises(BundleError, match=message) as error:
        load_bundle(bundle.path)
    assert '\n' not in str(error.value)


def in_format_1(bundle: Bundle) -> None:
    """Turn a bundle with class heads into what the last version wrote."""
    file, health = bundle.path / 'bundle.json', bundle.health
    assert health is not None
    heads = {
        name: {
            layer: [
                base64.b64encode(health.class_heads[f'{name}.{layer}.{part}'].tobytes()).decode()
                for part in ('weight', 'bias')
            ]
            for layer in ('hidden', 'output')
        }
        | {'usual': health.usual[name], 'spread': health.spread[name]}
        for name in health.usual
    }
    agreement = {'readers': heads, 'thresholds': health.thresholds, 'false_alarm': 0.01, 'rows': 0}
    save_file({'index': np.zeros(3, np.uint8)}, bundle.path / 'graphs.safetensors')
    manifest = json.loads(file.read_text())
    for name in manifest.pop('additions'):
        (bundle.path / name).unlink()
    manifest |= {'format': 1, 'graphs': 'a hash', 'health': {'agreement': agreement}}
    file.write_text(json.dumps(manifest))


def test_a_bundle_of_format_1_loads_without_graphs_and_export_converts_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = save_bundle(replace(make_bundle(), health=exact_health()), tmp_path / 'small', '')
    in_format_1(bundle)
    old = load_bundle(bundle.path)
    assert old.hash == bundle.hash and old.graphs is None
    assert plain(old.health) == plain(bundle.health)
    assert build_engine(old, 'cpu').name == 'torch'
    with pytest.raises(EngineUnavailable, match=f'run mm-perception export {bundle.path}'):
        build_engine(old, 'cpu', 'onnx')
    assert main(['export', str(bundle.path)]) == 0
    assert '9 graphs' in capsys.readouterr().out
    new = load_bundle(bundle.path)
    assert json.loads((bundle.path / 'bundle.json').read_text())['format'] == 2
    assert not (bundle.path / 'graphs.safetensors').exists()
    assert new.hash == bundle.hash and plain(new.health) == plain(bundle.health)
    assert build_engine(new, 'cpu').name == 'onnx'


def test_a_bundle_names_every_preprocessing_option(bundle: Bundle) -> None:
    manifest = json.loads((bundle.path / 'bundle.json').read_text())
    motor = manifest['spec']['modalities'][4]
    assert motor['preprocessing']['hop'] == 250
    assert motor['preprocessing']['mels'] == 16


def test_a_bundle_can_be_read_by_other_users(bundle: Bundle) -> None:
    assert all(file.stat().st_mode & 0o044 == 0o044 for file in bundle.path.iterdir())


def test_the_hash_follows_the_weights(bundle: Bundle, tmp_path: Path) -> None:
    weights = dict(bundle.weights)
    name = next(iter(weights))
    weights[name] = weights[name] + 1e-6
    other = save_bundle(Bundle('arm', arm_spec(), weights), tmp_path / 'other', '')
    assert other.hash != bundle.hash


def truncate(path: Path) -> None:
    file = path / 'model.safetensors'
    file.write_bytes(file.read_bytes()[:-10])


def alter(path: Path) -> None:
    file = path / 'model.safetensors'
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))


def edit(key: str, value: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        file = path / 'bundle.json'
        manifest = json.loads(file.read_text())
        manifest[key] = value
        file.write_text(json.dumps(manifest))

    return change


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (truncate, 'model.safetensors: truncated or altered'),
        (alter, 'model.safetensors: truncated or altered'),
        (lambda path: (path / 'model.safetensors').unlink(), 'model.safetensors: missing'),
        (lambda path: (path / 'bundle.json').unlink(), 'no bundle'),
        (lambda path: (path / 'bundle.json').write_text('{"form'), 'cannot be read'),
        (lambda path: (path / 'bundle.json').write_text('[]'), 'no JSON object'),
        (edit('format', 99), 'format 99, this version reads 2'),
        (edit('name', 'other'), 'altered'),
        (edit('files', {'../../etc/passwd': ''}), 'altered'),
        (lambda path: (path / 'bundle.json').write_text(' ' * (5 << 20)), 'larger than 4 MiB'),
    ],
)
def test_a_damaged_bundle_is_refused_in_one_line(
    bundle: Bundle, damage: Callable[[Path], None], message: str
) -> None:
    damage(bundle.path)
    with pytest.raises(BundleError, match=message) as error:
        load_bundle(bundle.path)
    assert '\n' not in str(error.value)


def test_weights_that_do_not_fit_the_spec_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    weights = {k: v for k, v in bundle.weights.items() if 'top.decoders.force' not in k}
    other = save_bundle(Bundle('arm', arm_spec(), weights), tmp_path / 'other', '')
    with pytest.raises(BundleError, match='do not fit the spec'):
        load_model(load_bundle(other.path))


def test_an_unknown_name_lists_what_exists() -> None:
    with pytest.raises(BundleError, match='no bundle "nothing"'):
        find_bundle('nothing')


def test_saving_again_keeps_recordings(bundle: Bundle) -> None:
    (bundle.path / 'recordings').mkdir()
    (bundle.path / 'recordings' / 'a.wav').write_bytes(b'x')
    save_bundle(bundle, bundle.path, 'new')
    assert (bundle.path / 'recordings' / 'a.wav').is_file()
    assert load_bundle(bundle.path).hash == bundle.hash


def test_a_crafted_weight_file_is_refused_before_it_is_read(bundle: Bundle) -> None:
    arrays = load_file(bundle.path / 'model.safetensors')
    save_file(arrays | {'extra': np.zeros(3, np.float32)}, bundle.path / 'model.safetensors')
    with pytest.raises(BundleError, match='truncated or altered'):
        load_bundle(bundle.path)
