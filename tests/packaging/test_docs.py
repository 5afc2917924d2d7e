"""The documentation against the code: tables, links, names, examples, length."""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip('rclpy', reason='rclpy is not installed')

import mm_perception
from checks import reference
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
from mm_perception.lab.gym import node as gym_node
from mm_perception.modalities import kinds
from mm_perception.modalities.base import _KINDS, NOISY
from mm_perception.model.baselines.hmvae import HMVAEOptions
from mm_perception.model.baselines.mhvae import MHVAEOptions
from mm_perception.model.build import FAMILIES, build_model
from mm_perception.model.distributions import LIKELIHOODS
from mm_perception.model.family import Family
from mm_perception.model.joint_encoder import JOINT_ENCODERS
from mm_perception.model.networks import (
    ConvolutionOptions,
    DenseOptions,
    SpectralConvolutionOptions,
    TemporalConvolutionOptions,
)
from mm_perception.ros import policy_node
from mm_perception.ros.cmi.diagnostics import verdict_values
from mm_perception.ros.cmi.parameters import NODE_SPECS
from mm_perception.ros.codecs import input_codec
from mm_perception.spec import ModalitySpec, ModelSpec, StageSpec, TrainingSpec
from mm_perception.training.augmentation import AUGMENTATIONS, Affine, Ink, Spectral
from mm_perception.training.loop import PRECISIONS

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for pattern in ('*.md', 'docs/**/*.md', 'checks/**/*.md')
    for page in ROOT.glob(pattern)
)
README, NODE, CONFIGURATION, MODELS, COMMAND_LINE = (
    (ROOT / name).read_text(encoding='utf-8')
    for name in (
        'README.md',
        'docs/reference/node.md',
        'docs/reference/configuration.md',
        'docs/reference/models.md',
        'docs/reference/command_line.md',
    )
)
TUTORIAL = (ROOT / 'docs' / 'tutorial.md').read_text(encoding='utf-8')
SPEC = load_training(ROOT / 'config' / 'mhd.yaml').model
OPTIONS = {name: kind.options_type for name, kind in _KINDS.items()}
MAX_WIDTH, MAX_README_WORDS = 110, 700
WRITTEN = re.compile(r'<!-- written by mm-perception \w+: begin -->.*?: end -->', re.DOTALL)


def test_reference_shows_every_parameter_as_the_code_has_it() -> None:
    assert reference.render(NODE) == NODE, 'out of date: python -m checks.reference'
    written = [item for items in reference.sections().values() for item in items]
    assert len(written) > 40
    assert all(item.startswith('- `') for item in written)


def test_reference_page_without_its_marks_is_refused() -> None:
    with pytest.raises(ValueError, match='marks of "cmi"'):
        reference.render(NODE.replace('checks.reference, cmi: begin', ''))


@pytest.mark.parametrize('modality', SPEC.modalities, ids=lambda m: m.name)
def test_every_input_is_documented(modality: object) -> None:
    message = input_codec(modality.kind, modality.message).name  # type: ignore[attr-defined]
    topic = modality.topic or modality.name  # type: ignore[attr-defined]
    assert f'| {modality.name} | `{topic}` | `{message}` |' in NODE  # type: ignore[attr-defined]
    robot = (ROOT / 'docs' / 'robot.md').read_text(encoding='utf-8')
    assert f'| `{topic}` ' in README and f'| `{topic}` ' in robot


def test_every_output_and_service_is_documented() -> None:
    sources = (ROOT / 'mm_perception' / 'ros').rglob('*.py')
    code = '\n'.join(source.read_text() for source in sources)
    created = re.findall(r"create_(?:lifecycle_)?(?:publisher|service)\(\s*\w+, f?'([^']+)'", code)
    assert len(created) >= 5
    for topic in created:
        assert f'`{topic.replace("{name}", "<modality>")}`' in NODE, topic


def test_every_state_and_fault_is_documented() -> None:
    states = {row[0].strip('`') for row in table('| state | meaning |')}
    assert states == {state.value for state in State}
    rows = table('| fault | state |')
    known = {*TOLERABLE, FUTURE, BACKWARDS, MALFORMED, FLAPPING, NOISY}
    assert {name for row in rows for name in row[0].split('`')[1::2]} == known
    tolerable = {name for row in rows if '*' in row[1] for name in row[0].split('`')[1::2]}
    assert tolerable == set(TOLERABLE)
    after = NODE.split('| fault | state |')[1].split('### Services')[0]
    items = re.findall(r'^- ((?:`\w+`(?:, )?)+): \w', after, re.MULTILINE)
    assert {name for item in items for name in item.split('`')[1::2]} == known
    keys = {row[0].strip('`') for row in table('| key | values |')}
    more = {'source', 'confidence', 'error', 'reason'}
    assert keys == {*verdict_values(Verdict(State.OK, True)), *more}


def test_every_command_and_kind_is_documented() -> None:
    for command in COMMANDS:
        assert f'\n| `{command}` |' in COMMAND_LINE
    python = (ROOT / 'docs' / 'reference' / 'python.md').read_text(encoding='utf-8')
    for kind in kinds():
        assert f'\n| {kind} |' in TUTORIAL and f'\n| {kind} |' in python
        assert f'\n| {kind} |' in NODE


def test_every_option_of_preprocessing_is_documented() -> None:
    documented = {
        tuple(cell.strip('`') for cell in row[:3])
        for row in section('Preprocessing', CONFIGURATION)
    }
    expected = set()
    for kind in kinds():
        for option in fields(OPTIONS[kind]):
            made = (
                option.default if option.default_factory is MISSING else option.default_factory()
            )
            default = 'needed' if made is MISSING else json.dumps(made)
            expected.add((kind, option.name, default.strip('"')))
    assert documented == expected


def section(heading: str, page: str) -> list[list[str]]:
    """Cells of the first table under a heading of a page, without its head."""
    return table('|', page.split(f'# {heading}\n', 1)[1])


def table(head: str, page: str = NODE) -> list[list[str]]:
    """Cells of the first table whose head begins so, without its head."""
    lines = re.search(r'(?:^\|.*\n)+', page[page.index(head) :], re.MULTILINE)
    assert lines is not None
    rows = lines[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip('|').split(' | ')] for row in rows]


def shown(value: Any) -> str:
    """A default as it is written in the reference."""
    if value == '':
        return 'empty'
    if isinstance(value, StageSpec):
        usual = StageSpec()
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
    rows = section(heading, CONFIGURATION)
    assert {row[0].strip('`'): row[1] for row in rows} == defaults(kind)
    assert all(len(row) == 3 and row[2] for row in rows)


def test_values_of_a_configuration_are_documented() -> None:
    rows = section('A modality', CONFIGURATION) + section('The run', CONFIGURATION)
    meanings = {row[0].strip('`'): row[2] for row in rows}
    assert set(re.findall(r'`(\w+)`', meanings['likelihood'])) == set(LIKELIHOODS)
    assert set(re.findall(r'`(\w+)`', meanings['precision'])) == set(PRECISIONS)
    assert set(re.findall(r'`(\w+)`', meanings['kind'])) == set(kinds())
    assert {row[0].strip('`') for row in section('Likelihoods', MODELS)} == set(LIKELIHOODS)


def test_every_family_is_documented_as_it_is() -> None:
    rows = section('Model families', MODELS)
    assert [row[0].strip('`') for row in rows] == list(FAMILIES)
    own: dict[str, type[Any]] = {'mhvae': MHVAEOptions, 'hmvae': HMVAEOptions}
    modalities = tuple(
        ModalitySpec(name, 'vector', 2, {'low': [0], 'high': [1]}, {'hidden': [4]})
        for name in ('a', 'b')
    )
    below = dict(re.findall(r'^Options of `(\w+)`[^:]*: (.*)$', MODELS, re.MULTILINE))
    items = re.findall(r'^- `(\w+)` (?:is|has|fuses|puts|\()', MODELS, re.MULTILINE)
    assert {family.split('_flat')[0] for family in FAMILIES} <= set(items)
    for name, _, levels, fuses, options in rows:
        family = name.strip('`')
        if options == 'below':
            options = below[family.removesuffix('_flat')]
        model = build_model(ModelSpec(modalities, family=family, joint_latent_dim=8))
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
        for name, _, fuses, gaussian in section('Joint encoders', MODELS)
    }
    assert found == answers


def test_every_network_is_documented() -> None:
    found = {row[0].strip('`'): options_in(row[1]) for row in section('Networks', CONFIGURATION)}
    assert found == {
        'linear': {},
        'dense': defaults(DenseOptions),
        'convolution': defaults(ConvolutionOptions),
        'temporal_convolution': defaults(TemporalConvolutionOptions),
        'spectral_convolution': defaults(SpectralConvolutionOptions),
    }


def test_every_augmentation_is_documented() -> None:
    found: dict[str, dict[str, str]] = {}
    for kind, option, default, _ in section('Augmentations', CONFIGURATION):
        found.setdefault(kind.strip('`'), {})[option.strip('`')] = default
    expected = {name: defaults(kind) for name, kind in AUGMENTATIONS.items()}
    for kind in (Ink, Spectral):
        assert issubclass(kind, Affine)
        own = expected[kind.__name__.lower()]
        for option in expected['affine']:
            del own[option]
    assert found == expected


@pytest.mark.parametrize('page', PAGES)
def test_links_and_pictures_exist(page: str) -> None:
    file = ROOT / page
    for target in re.findall(r'(?:\]\(|src=")([^)"]+)', file.read_text(encoding='utf-8')):
        path, _, heading = target.partition('#')
        if '://' in target:
            continue
        linked = file.parent / path if path else file
        assert linked.exists(), target
        if heading:
            assert heading in anchors(linked), target


def anchors(page: Path) -> set[str]:
    """Anchors that GitHub gives the headings of a page."""
    headings = re.findall(r'^#+ (.*)$', page.read_text(encoding='utf-8'), re.MULTILINE)
    plain = [re.sub(r'[^\w\- ]', '', heading.lower()) for heading in headings]
    return {heading.replace(' ', '-') for heading in plain}


@pytest.mark.parametrize('page', PAGES)
def test_pages_have_no_long_lines(page: str) -> None:
    text = WRITTEN.sub('', (ROOT / page).read_text(encoding='utf-8'))
    assert [line for line in text.splitlines() if len(line) > MAX_WIDTH] == []


def test_parameters_that_the_page_on_acting_sets_exist() -> None:
    text = (ROOT / 'docs' / 'acting.md').read_text(encoding='utf-8')
    specs = [*NODE_SPECS, *policy_node.ROWS, *gym_node.ROWS]
    named = re.findall(r'(?:-p |`)([\w.]+):=', text)
    assert len(named) >= 8
    assert {*named} <= {spec.name for spec in specs}


def test_readme_is_short() -> None:
    assert len(README.split()) <= MAX_README_WORDS


def test_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text(encoding='utf-8'))
    assert {'cff-version', 'message', 'title', 'authors'} <= set(citation)
    assert citation['version'] == mm_perception.__version__
    assert citation['references'][0]['title'].split()[0] in README


@pytest.mark.parametrize('page', sorted({*PAGES} - {'CHANGELOG.md'}))
def test_modules_and_files_that_pages_name_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding='utf-8')
    named = set(re.findall(r'\bmm_perception(?:\.[a-z_]+)+', text))
    for name in named - {'mm_perception.load'}:  # which the tests below run
        assert resolves(name), name
    for path in re.findall(r'`((?:mm_perception|tests|checks|config|launch)/[\w/-]+\.\w+)`', text):
        if '/NAME' not in path:
            assert (ROOT / path).exists(), path


def test_moved_modules_of_the_changelog_exist() -> None:
    text = (ROOT / 'CHANGELOG.md').read_text(encoding='utf-8')
    now = [row[1] for row in section('Moved modules', text)]
    assert len(now) > 40
    for name in {name for cell in now for name in re.findall(r'`([\w.]+)`', cell)}:
        assert resolves(f'mm_perception.{name}'), name


def test_files_of_the_architecture_exist() -> None:
    page = (ROOT / 'docs' / 'architecture.md').read_text(encoding='utf-8')
    named = set(re.findall(r'(?:[a-z_]+/)*[a-z_]+\.py|(?:[a-z_]+/)+(?=[`<])', page))
    assert len(named) > 40
    parts = [p for part in ('mm_perception', 'checks', 'tests') for p in (ROOT / part).rglob('*')]
    known = [f'/{path.relative_to(ROOT).as_posix()}' for path in parts]
    known += [f'/{path.name}' for path in ROOT.iterdir()]
    for name in named:
        assert any(path.endswith(f'/{name.rstrip("/")}') for path in known), name


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    module, *rest = name.split('.')
    found: Any = importlib.import_module(module)
    for part in rest:
        try:
            found = importlib.import_module(f'{found.__name__}.{part}')
        except (AttributeError, ModuleNotFoundError):
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
    return True


def python_blocks(page: str) -> list[str]:
    text = (ROOT / page).read_text(encoding='utf-8')
    return re.findall(r'```python\n(.*?)```', text, re.DOTALL)


@pytest.mark.parametrize('page', ['README.md', 'docs/reference/python.md'])
def test_front_door_does_what_the_page_shows(page: str) -> None:
    picture = np.full((48, 64, 3), 255, np.uint8)
    picture[10:38, 28:34] = 0
    scope: dict[str, Any] = {'rgb': picture, 'images': [picture, None] * 32}
    exec(python_blocks(page)[0], scope)  # noqa: S102 - code of ours
    result = scope['result']
    assert result.latent.shape == result.std.shape == (SPEC.joint_latent_dim,)
    assert result.reconstructions['trajectory'].shape == (200,)
    assert result.health['image'].state is State.OK
    assert result.mask.shape == (len(SPEC.modalities),) and result.mask[0]
    assert mm_perception.Waveform and mm_perception.Motion
    for code in python_blocks(page)[1:]:
        exec(code, scope)  # noqa: S102 - code of ours
        assert scope['result'].latent.shape == (64, SPEC.joint_latent_dim)
        assert scope['result'].mask[:, 0].tolist() == [True, False] * 32
