"""The tables of the documentation against the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed')

from mm_perception.cli.main import COMMANDS
from mm_perception.config import load_training
from mm_perception.modalities import build_modality, kinds
from mm_perception.ros import microphone_node, replay_node
from mm_perception.ros.codecs import input_codec
from mm_perception.ros.parameters import NODE_ROWS, Row, modality_rows

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / 'docs' / 'reference.md').read_text()
PAGES = ['README.md', *(f'docs/{page.name}' for page in ROOT.glob('docs/*.md'))]
README = (ROOT / 'README.md').read_text()
SPEC = load_training(ROOT / 'config' / 'mhd.yaml').model


def documented(row: Row) -> str:
    """The line of the parameter table that describes a parameter."""
    name, default = row.name, f'`{row.default}`'
    if name.startswith('modalities.'):
        _, _, key = name.split('.')
        name = f'modalities.<m>.{key}'
        default = default if key in ('enabled', 'policy') else 'of the bundle'
    default = default if default != '``' else 'empty'
    start = 'start' if row.read_only else ''
    choices = f' One of {", ".join(row.choices)}.' if row.choices else ''
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
def test_every_parameter_is_documented(row: Row) -> None:
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
    sources = (ROOT / 'mm_perception' / 'ros').glob('*.py')
    code = '\n'.join(source.read_text() for source in sources)
    created = re.findall(r"create_(?:lifecycle_)?(?:publisher|service)\(\s*\w+, f?'([^']+)'", code)
    assert len(created) >= 6
    for topic in created:
        assert topic.replace('{name}', '<modality>') in REFERENCE, topic


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


@pytest.mark.parametrize('page', PAGES)
def test_links_and_pictures_exist(page: str) -> None:
    file = ROOT / page
    for target in re.findall(r'(?:\]\(|src=")([^)#"]+)', file.read_text()):
        if '://' not in target:
            assert (file.parent / target).exists(), target
