"""The tables of the documentation against the code."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip('rclpy', reason='rclpy is not installed')

from mm_perception.cli.main import COMMANDS
from mm_perception.config import load_training, to_plain
from mm_perception.fusion.health import (
    BACKWARDS,
    FLAPPING,
    FUTURE,
    MALFORMED,
    TOLERABLE,
    State,
    Verdict,
)
from mm_perception.lab.replay import node as replay_node
from mm_perception.modalities import build_modality, kinds
from mm_perception.modalities.base import _KINDS
from mm_perception.model.baselines.hmvae import HMVAEOptions
from mm_perception.model.baselines.mhvae import MHVAEOptions
from mm_perception.model.build import FAMILIES, build_model
from mm_perception.model.distributions import LIKELIHOODS
from mm_perception.model.family import Family
from mm_perception.model.joint_encoder import JOINT_ENCODERS
from mm_perception.model.networks import (
    ConvolutionOptions,
    DenseOptions,
    TemporalConvolutionOptions,
)
from mm_perception.ros import microphone_node
from mm_perception.ros.cmi.status import verdict_values
from mm_perception.ros.codecs import input_codec
from mm_perception.ros.parameters import NODE_ROWS, ParameterSpec, modality_rows
from mm_perception.spec import ModalitySpec, ModelSpec, StageSpec, TrainingSpec
from mm_perception.training.augmentation import AUGMENTATIONS, Affine, Spectral
from mm_perception.training.loop import PRECISIONS

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / 'docs' / 'reference.md').read_text()
PAGES = ['README.md', *(f'docs/{page.name}' for page in ROOT.glob('docs/*.md'))]
README = (ROOT / 'README.md').read_text()
SPEC = load_training(ROOT / 'config' / 'mhd.yaml').model
OPTIONS = {name: kind.options_type for name, kind in _KINDS.items()}


def documented(row: ParameterSpec) -> str:
    """The line of the parameter table that describes a parameter."""
    name, default = row.name, f'`{row.default}`'
    if name.startswith('modalities.'):
        _, _, key = name.split('.')
        name = f'modalities.<m>.{key}'
        default = default if key in ('enabled', 'policy') else 'of the bundle'
    default = default if default != '``' else 'empty'
    start = 'start' if row.read_only else ''
    kind = 'Any of' if row.several else 'One of'
    choices = f' {kind} {", ".join(row.choices)}.' if row.choices else ''
    return f'| `{name}` | {row.type_name} | {default} | {start} | {row.description}{choices} |'


@pytest.mark.parametrize(
    'row',
    [
        *NODE_ROWS,
        *modality_rows(SPEC.modalities[0]),
        *replay_node.ROWS,
        *microphone_node.ROWS,
    ],
    ids=lambda row: row.name,
)
def test_every_parameter_is_documented(row: ParameterSpec) -> None:
    assert documented(row) in REFERENCE.splitlines()


def test_no_parameter_is_documented_that_does_not_exist() -> None:
    rows = [*NODE_ROWS, *modality_rows(SPEC.modalities[0])]
    rows += [*replay_node.ROWS, *microphone_node.ROWS]
    known = {documented(row) for row in rows}
    pattern = re.compile(r'^\| `[a-z_.<>]+` \| (bool|int|float|str) \|')
    for line in filter(pattern.match, REFERENCE.splitlines()):
        assert line in known


@pytest.mark.parametrize('modality', SPEC.modalities, ids=lambda m: m.name)
def test_every_input_is_documented(modality: object) -> None:
    message = input_codec(modality.kind, modality.message).name  # type: ignore[attr-defined]
    topic = modality.topic or modality.name  # type: ignore[attr-defined]
    assert f'| {modality.name} | `{topic}` | `{message}` |' in REFERENCE  # type: ignore[attr-defined]
    assert f'| `{topic}` ' in README


def test_every_output_and_service_is_documented() -> None:
    sources = (ROOT / 'mm_perception' / 'ros').rglob('*.py')
    code = '\n'.join(source.read_text() for source in sources)
    created = re.findall(r"create_(?:lifecycle_)?(?:publisher|service)\(\s*\w+, f?'([^']+)'", code)
    assert len(created) >= 5
    for topic in created:
        assert topic.replace('{name}', '<modality>') in REFERENCE, topic


def test_every_state_and_fault_is_documented() -> None:
    states = {row[0].strip('`') for row in table('| state | meaning |')}
    assert states == {state.value for state in State}
    faults = {name for row in table('| fault | found when |') for name in row[0].split('`')[1::2]}
    known = (*TOLERABLE, FUTURE, BACKWARDS, MALFORMED, FLAPPING)
    assert faults == set(known)
    tolerable = {
        name
        for row in table('| fault | found when |')
        for name in row[0].split('`')[1::2]
        if '*' in row[2]
    }
    assert tolerable == set(TOLERABLE)
    keys = {row[0].strip('`') for row in table('| key | values |')}
    assert keys == {*verdict_values(Verdict(State.OK, True)), 'source', 'reason'}


def test_every_command_and_kind_is_documented() -> None:
    for command in COMMANDS:
        assert f'| `{command}` |' in REFERENCE
    tutorial = (ROOT / 'docs' / 'tutorial.md').read_text()
    for kind in kinds():
        assert f'\n| {kind} |' in tutorial


def test_options_of_kinds_that_the_tutorial_names_exist() -> None:
    tutorial = (ROOT / 'docs' / 'tutorial.md').read_text()
    for modality in SPEC.modalities:
        line = next(x for x in tutorial.splitlines() if x.startswith(f'| {modality.kind} |'))
        named = re.findall(r'\w+', re.sub(r'\(.*?\)', '', line.split('|')[3]))
        assert set(named) <= set(build_modality(modality).plain_options())


def test_every_option_of_preprocessing_is_documented() -> None:
    documented = {tuple(cell.strip('`') for cell in row[:3]) for row in section('Preprocessing')}
    expected = set()
    for kind in kinds():
        for option in fields(OPTIONS[kind]):
            default = 'needed' if option.default is MISSING else json.dumps(option.default)
            expected.add((kind, option.name, default.strip('"')))
    assert documented == expected


def section(heading: str) -> list[list[str]]:
    """Cells of the first table under a heading of the reference, without its head."""
    return table('|', REFERENCE.split(f'# {heading}\n', 1)[1])


def table(head: str, after: str = REFERENCE) -> list[list[str]]:
    """Cells of the first table whose head begins so, without its head."""
    after = after[after.index(head) :]
    lines = re.search(r'(?:^\|.*\n)+', after, re.MULTILINE)
    assert lines is not None
    rows = lines[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip('|').split(' | ')] for row in rows]


def shown(value: Any) -> str:
    """A default as it is written in the reference."""
    if value == '':
        return 'empty'
    if isinstance(value, StageSpec):
        usual = StageSpec(epochs=-1)
        value = {
            f.name: getattr(value, f.name)
            for f in fields(value)
            if getattr(value, f.name) != getattr(usual, f.name)
        }
    text = yaml.safe_dump(to_plain(value), default_flow_style=True, sort_keys=False)
    return f'`{text.removesuffix(chr(10)).removesuffix(chr(10) + "...")}`'


def defaults(kind: type[Any]) -> dict[str, str]:
    """Field -> default of a dataclass, as they are written in the reference."""
    result = {}
    for field in fields(kind):
        if field.default_factory is not MISSING:
            result[field.name] = shown(field.default_factory())
        else:
            result[field.name] = 'needed' if field.default is MISSING else shown(field.default)
    return result


def options_in(cell: str) -> dict[str, str]:
    """Options of a family or network, written as `name: default`."""
    return {name: f'`{value}`' for name, value in re.findall(r'`(\w+): ([^`]*)`', cell)}


@pytest.mark.parametrize(
    ('heading', 'kind'),
    [
        ('The run', TrainingSpec),
        ('A stage', StageSpec),
        ('The model', ModelSpec),
        ('A modality', ModalitySpec),
    ],
)
def test_every_key_of_a_configuration_is_documented(heading: str, kind: type[Any]) -> None:
    found = {row[0].strip('`'): row[1] for row in section(heading)}
    assert found == defaults(kind)
    assert all(len(row) == 3 and row[2] for row in section(heading))


def test_values_of_a_configuration_are_documented() -> None:
    meanings = {row[0].strip('`'): row[2] for row in section('A modality') + section('The run')}
    assert set(re.findall(r'`(\w+)`', meanings['likelihood'])) == set(LIKELIHOODS)
    assert set(re.findall(r'`(\w+)`', meanings['precision'])) == set(PRECISIONS)
    assert set(re.findall(r'`(\w+)`', meanings['kind'])) == set(kinds())


def test_every_family_is_documented_as_it_is() -> None:
    rows = section('Model families')
    assert [row[0].strip('`') for row in rows] == list(FAMILIES)
    own: dict[str, type[Any]] = {'mhvae': MHVAEOptions, 'hmvae': HMVAEOptions}
    modalities = tuple(
        ModalitySpec(name, 'vector', 2, {'low': [0], 'high': [1]}, {'hidden': [4]})
        for name in ('a', 'b')
    )
    for name, _, _, levels, fuses, options in rows:
        family = name.strip('`')
        model = build_model(ModelSpec(modalities, family=family))
        assert fuses == ('yes' if model.fuses else 'no')
        assert levels.endswith(', apart') is model.separable
        build = FAMILIES[family]
        if isinstance(build, partial):
            made = build.keywords['family']
            assert isinstance(made, Family)
            own[family] = made.options
        assert options_in(options) == defaults(own[family])
        assert (options == 'none') is (not defaults(own[family]))


def test_every_joint_encoder_is_documented_as_it_is() -> None:
    answers = {name: (kind.fuses, kind.gaussian) for name, kind in JOINT_ENCODERS.items()}
    found = {
        name.strip('`'): (fuses == 'yes', gaussian == 'yes')
        for name, _, fuses, gaussian in section('Joint encoders')
    }
    assert found == answers


def test_every_network_is_documented() -> None:
    found = {row[0].strip('`'): options_in(row[1]) for row in section('Networks')}
    assert found == {
        'dense': defaults(DenseOptions),
        'convolution': defaults(ConvolutionOptions),
        'temporal_convolution': defaults(TemporalConvolutionOptions),
    }


def test_every_augmentation_is_documented() -> None:
    found: dict[str, dict[str, str]] = {}
    for kind, option, default, _ in section('Augmentations'):
        found.setdefault(kind.strip('`'), {})[option.strip('`')] = default
    expected = {name: defaults(kind) for name, kind in AUGMENTATIONS.items()}
    assert issubclass(Spectral, Affine)
    expected['spectral'] = {
        k: v for k, v in expected['spectral'].items() if k not in expected['affine']
    }
    assert found == expected


@pytest.mark.parametrize('page', PAGES)
def test_links_and_pictures_exist(page: str) -> None:
    file = ROOT / page
    for target in re.findall(r'(?:\]\(|src=")([^)#"]+)', file.read_text()):
        if '://' not in target:
            assert (file.parent / target).exists(), target
