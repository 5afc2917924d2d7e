"""Configuration: read strictly, explained with its path."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
import yaml

from mm_perception.config import from_plain, load_training, to_plain
from mm_perception.errors import ConfigError
from mm_perception.spec import ModelSpec
from tests.helpers.model_specs import mhd_spec

CONFIG = Path(__file__).parent.parent / 'config' / 'mhd.yaml'


def test_the_shipped_configuration_loads() -> None:
    spec = load_training(CONFIG)
    assert spec.model.names == ('image', 'trajectory', 'sound', 'symbol')
    assert set(spec.unimodal) == set(spec.model.names)


def test_a_spec_survives_plain_data() -> None:
    plain = to_plain(mhd_spec())
    assert to_plain(from_plain(ModelSpec, yaml.safe_load(yaml.safe_dump(plain)))) == plain


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ("c['modle'] = 1", 'modle: unknown key; known here: name, dataset'),
        ("c['model']['modalities'][1]['latentdim'] = 4", r'model.modalities\[1\].latentdim'),
        ("c['model']['dropout'] = 'often'", 'model.dropout: expected float'),
        ("c['top']['epochs'] = 2.5", 'top.epochs: expected int, got 2.5'),
        ("c['joint'] = 1", 'joint: expected bool'),
        ("del c['model']['modalities'][0]['kind']", r'modalities\[0\].kind: missing'),
        ("c['model']['modalities'] = 3", 'model.modalities: expected a list'),
        ("c['unimodal']['smell'] = c['top']", r'unimodal\.smell: model\.modalities has none'),
        ("c['top'] = 5", 'top: expected keys and values'),
    ],
)
def test_a_wrong_configuration_is_explained_with_its_path(
    tmp_path: Path, change: str, message: str
) -> None:
    content = yaml.safe_load(CONFIG.read_text())
    exec(change, {'c': content})  # noqa: S102
    file = tmp_path / 'c.yaml'
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=message) as error:
        load_training(file)
    assert str(file) in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('text', ['a: [', '', '- 1', '\x00'])
def test_what_is_no_configuration_is_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / 'c.yaml'
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_training(file)
    assert '\n' not in str(error.value)


def bomb(levels: int) -> str:
    """A few hundred bytes whose aliases stand for 9 to the power of the levels."""
    lines = ['a0: &a0 [x, x, x, x, x, x, x, x, x]']
    lines += [f'a{k}: &a{k} [{", ".join([f"*a{k - 1}"] * 9)}]' for k in range(1, levels)]
    return '\n'.join(lines)


@pytest.mark.parametrize(
    'text',
    [bomb(8), bomb(30), 'a: &a [*a]', '[' * 100_000, 'a: ' + '9' * 100_000, 'x' * (2 << 20)],
    ids=['bomb', 'larger bomb', 'in itself', 'nested', 'number', 'large'],
)
def test_what_is_made_to_fill_the_memory_is_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / 'c.yaml'
    file.write_text(text)
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError) as error:
            load_training(file)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert '\n' not in str(error.value) and len(str(error.value)) < 1000
    assert peak < 64 << 20


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='cannot be read'):
        load_training(tmp_path / 'none.yaml')
