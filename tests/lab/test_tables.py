"""Tables of the papers: the whole way on tiny data, and the tables that ship."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from mm_perception.cli import main as frame
from mm_perception.cli.evaluate import EXAMPLES
from mm_perception.evaluation.generation import Row
from mm_perception.lab.tables.table import (
    Column,
    TableOptions,
    known_tables,
    load_table,
    merge,
)
from mm_perception.lab.tables.trial import plan_trials
from mm_perception.model.build import build_model
from mm_perception.training.stages import autoencoder_part
from tests.helpers.tiny_table import TABLE, VALIDATION_ROWS, write_tiny_table

ROOT = Path(__file__).parents[2]
VARIANTS = tuple(TABLE['variants'])
OURS = ('ablation', 'speakers')
NAMES = ('camera', 'pen', 'voice', 'word')
MAX_PICTURE_BYTES = 300_000


def evaluate(table: Path, *more: str) -> int:
    """Run the command on a table, as a user does, in this process."""
    out = table.parent / 'runs'
    files = ['--out', str(out), '--json', str(out.parent / 'rows.json')]
    return frame.main(['evaluate', '--table', str(table), '--device', 'cpu', *files, *more])


@pytest.fixture(scope='module')
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny table that has been run; tests must leave it complete."""
    file = write_tiny_table(tmp_path_factory.mktemp('table'))
    assert evaluate(file, '--jobs', '1') == 0
    return file


def folder(table: Path, variant: str, seed: int) -> Path:
    return table.parent / 'runs' / 'tiny' / f'{variant}-{seed}'


def test_table_has_rows_of_every_variant_seed_target_and_subset(table: Path) -> None:
    content = json.loads((table.parent / 'rows.json').read_text())
    rows = content['rows']
    fields = {'family', 'bundle', 'seed', 'test_set', 'target', 'observed', 'estimator', 'metric'}
    assert all(fields | {'value', 'n'} <= row.keys() and row['n'] == 30 for row in rows)
    asked = {
        (row['variant'], row['seed'], row['target'], tuple(row['observed']))
        for row in rows
        if row['metric'] == 'accuracy'
    }
    assert asked == {
        (variant, seed, target, (given,))
        for variant in VARIANTS
        for seed in (0, 1)
        for target in NAMES
        for given in NAMES
    }
    distances = [row for row in rows if row['metric'] == 'mfd' and len(row['observed']) == 3]
    assert len(distances) == len(VARIANTS) * 2 * 3
    assert content['versions'].keys() >= {'torch'}
    assert content['classifier_accuracy']['tiny'].keys() == {'camera', 'pen', 'voice'}


def test_table_is_written_with_the_figures_of_the_paper_beside(table: Path) -> None:
    text = (table.parent / 'runs' / 'tiny' / 'table.md').read_text()
    accuracy, distance = text.split('| model | target | MFD | paper |')
    assert '| model | target | from 1, % | paper | from itself, % |' in accuracy
    for part, figure in ((accuracy, '| 84.9 ± 12.4 |'), (distance, '| 203.9 |')):
        lines = part.splitlines()
        assert [x.split('|')[1] for x in lines if figure in x] == [' Nexus ']
    assert '| word |' in accuracy and '| word |' not in distance
    assert 'over 2 seeds' in text and '80 training rows' in text
    assert 'Nothing here means anything.' in text


def test_table_means_agree_with_its_rows(table: Path) -> None:
    rows = json.loads((table.parent / 'rows.json').read_text())['rows']
    by_seed = []
    for seed in (0, 1):
        values = [
            row['value']
            for row in rows
            if (row['variant'], row['seed'], row['target']) == ('nexus', seed, 'pen')
            and row['metric'] == 'accuracy'
            and row['observed'] != ['pen']
        ]
        assert len(values) == 3
        by_seed.append(100 * sum(values) / 3)
    spread = abs(by_seed[0] - by_seed[1]) / 2**0.5
    text = (table.parent / 'runs' / 'tiny' / 'table.md').read_text()
    line = next(x for x in text.splitlines() if x.startswith('| Nexus | pen |'))
    assert f'| {sum(by_seed) / 2:.1f} ± {spread:.1f} |' in line


@pytest.mark.parametrize(
    ('metric', 'estimator', 'column_estimator', 'held'),
    [
        ('accuracy', 'sample', 'sample', True),
        ('accuracy', 'mean', 'sample', False),
        ('accuracy', 'sample', 'mean', False),
        ('log_likelihood', 'importance_50', 'sample', True),
    ],
)
def test_column_holds_rows_of_its_estimator_alone(
    metric: str, estimator: str, column_estimator: str, held: bool
) -> None:
    row = Row(metric, 'camera', ('pen',), estimator, 0.5, 100)
    column = Column('figure', metric, estimator=column_estimator)
    assert column.holds(row, NAMES) is held


def test_table_draws_every_picture_small(table: Path) -> None:
    text = (table.parent / 'runs' / 'tiny' / 'table.md').read_text()
    files = sorted((table.parent / 'runs' / 'tiny' / 'pictures').glob('*.png'))
    names = {'bars', 'curve', 'latent-tiny', 'samples-tiny'}
    assert {file.stem for file in files} == names | {
        f'generated-tiny-{name}' for name in ('camera', 'pen', 'voice')
    }
    for file in files:
        assert 2_000 < file.stat().st_size < MAX_PICTURE_BYTES
        assert f'](pictures/{file.name})' in text


def test_variants_of_a_seed_share_their_autoencoders(table: Path) -> None:
    shared = list((table.parent / 'runs' / 'shared' / 'unimodal').iterdir())
    assert len(shared) == len(NAMES) * 2  # per seed, not per variant


def test_table_resumes_without_doing_anything_twice(table: Path) -> None:
    lost, kept = folder(table, 'nexus', 1), folder(table, 'mvae_flat', 0)
    before = {file: file.stat().st_mtime_ns for file in kept.iterdir()}
    bundle = (lost / 'bundle.json').stat().st_mtime_ns
    old = json.loads((lost / 'rows.json').read_text())['rows']
    (lost / 'rows.json').unlink()
    assert evaluate(table, '--jobs', '1') == 0
    assert json.loads((lost / 'rows.json').read_text())['rows'] == old
    assert (lost / 'bundle.json').stat().st_mtime_ns == bundle  # measured, not trained again
    assert {file: file.stat().st_mtime_ns for file in kept.iterdir()} == before


def test_table_trains_again_what_is_gone_and_finds_the_same(table: Path) -> None:
    gone = folder(table, 'nexus0', 0)
    old = json.loads((gone / 'rows.json').read_text())
    shutil.rmtree(gone)
    assert evaluate(table, '--jobs', '2') == 0
    new = json.loads((gone / 'rows.json').read_text())
    assert (new['bundle'], new['rows']) == (old['bundle'], old['rows'])


def test_table_refuses_to_mix_settings(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(table, '--epochs', '1', '--variants', 'nexus') == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert 'nexus-0: holds a model of other settings' in error and '--out' in error


def test_table_measures_a_trained_bundle_again_when_it_has_changed(tmp_path: Path) -> None:
    file = write_tiny_table(tmp_path)
    arguments = ['--variants', 'nexus', '--seeds', '2', '--jobs', '1']
    assert evaluate(file, *arguments) == 0
    first, second = folder(file, 'nexus', 0), folder(file, 'nexus', 1)
    shipped = {'title': 'shipped', 'bundle': first.as_posix()}
    content = {**yaml.safe_load(file.read_text()), 'variants': {'shipped': shipped}}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    assert evaluate(file) == 0
    rows = folder(file, 'shipped', 0) / 'rows.json'
    found = json.loads(rows.read_text())
    assert found['bundle'] == json.loads((first / 'rows.json').read_text())['bundle']
    assert not (rows.parent / 'bundle.json').exists()  # nothing was trained
    for name in ('bundle.json', 'model.safetensors'):
        shutil.copy(second / name, first / name)
    assert evaluate(file) == 0
    again = json.loads(rows.read_text())
    assert again['bundle'] == json.loads((second / 'rows.json').read_text())['bundle']


@pytest.mark.parametrize('split', ['validation', 'validation_speaker'])
def test_table_is_measured_on_the_split_that_it_names(tmp_path: Path, split: str) -> None:
    file = write_tiny_table(tmp_path)
    content = {**yaml.safe_load(file.read_text()), 'split': split, 'pictures': []}
    columns = {'own': content['columns']['own']}
    file.write_text(yaml.safe_dump({**content, 'columns': columns, 'paper': {}}))
    arguments = ['--variants', 'mvae_flat', '--seeds', '1', '--jobs', '1', '--epochs', '1']
    assert evaluate(file, *arguments) == 0
    rows = json.loads((tmp_path / 'rows.json').read_text())['rows']
    assert {(row['test_set'], row['n']) for row in rows} == {(split, VALIDATION_ROWS)}
    text = (tmp_path / 'runs' / 'tiny' / 'table.md').read_text()
    assert f'{split} rows' in text and f'real {split} data' in text and 'paper' not in text


def test_table_refuses_a_metric_that_nothing_measures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_tiny_table(tmp_path)
    columns = {'wrong': {'title': 'wrong', 'metric': 'bleu'}}
    content = {**yaml.safe_load(file.read_text()), 'columns': columns, 'paper': {}}
    file.write_text(yaml.safe_dump(content))
    assert evaluate(file) == 2
    assert 'metric: unknown "bleu"; known: accuracy, mfd' in capsys.readouterr().err


def test_table_refuses_a_split_that_the_data_lack(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_tiny_table(tmp_path)
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), 'split': 'test_speaker'}))
    assert evaluate(file) == 2
    assert 'has no split "test_speaker"' in capsys.readouterr().err
    assert not (tmp_path / 'runs' / 'tiny').exists()


def test_ablation_changes_one_thing_and_shares_autoencoders_where_it_can(tmp_path: Path) -> None:
    table = load_table('ablation')
    options = TableOptions(tmp_path, seeds=1)
    specs = {trial.variant: trial.spec for trial in plan_trials(table, options)}
    default = specs['default']
    assert not default.model.calibrated and default.unimodal['image'].augmentation
    for variant, spec in specs.items():
        stages = [
            (autoencoder_part(m), spec.unimodal[m.name].augmentation)
            for m in spec.model.modalities
        ]
        shared = [
            (autoencoder_part(m), default.unimodal[m.name].augmentation)
            for m in default.model.modalities
        ]
        assert (stages == shared) is (variant != 'no_augmentation')
        assert (spec.model == default.model) is (variant in ('default', 'no_augmentation'))
    assert not any(m.data_weight for m in specs['no_refinement'].model.modalities)
    assert not any(stage.augmentation for stage in specs['no_augmentation'].unimodal.values())


def test_merge_changes_adds_and_takes_away() -> None:
    base = {'kept': 1, 'gone': {'a': 1}, 'list': [{'name': 'x', 'a': 1}, {'name': 'y'}]}
    changes = {'gone': None, 'missing': None, 'new': 2, 'list': {'x': {'a': 3}}}
    merged = {'kept': 1, 'new': 2, 'list': [{'name': 'x', 'a': 3}, {'name': 'y'}]}
    assert merge(base, changes) == merged
    assert base['gone'] == {'a': 1}


def test_table_trains_only_the_variants_asked_for(tmp_path: Path) -> None:
    file = write_tiny_table(tmp_path)
    assert evaluate(file, '--variants', 'mvae_flat', '--seeds', '1', '--jobs', '1') == 0
    assert [f.name for f in (tmp_path / 'runs' / 'tiny').glob('*-*')] == ['mvae_flat-0']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--table', 'nonsense'], f'no table "nonsense"; known: {", ".join(known_tables())}'),
        ([], 'takes a bundle or --table'),
        (['mhd', '--table', 'mhd'], 'takes a bundle or --table'),
        (['--table', 'mhd', '--scale', 'huge'], 'it has: default, full'),
        (['--table', 'mhd', '--variants', 'vae'], 'has no variant vae; it has: shipped'),
        (['--table', 'mhd', '--dataset', '/nowhere'], 'mm-perception build-data'),
    ],
)
def test_table_says_in_one_line_what_is_wrong(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert frame.main(['evaluate', *arguments, '--out', str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert not os.listdir(tmp_path)


def test_tables_that_ship_are_those_of_the_papers_and_our_own() -> None:
    papers = ('fpd', 'hierarchy', 'likelihood', 'mhd', 'standard')
    assert set(known_tables()) == {*papers, *OURS}
    assert all(load_table(name).split == 'test' for name in papers)
    assert all(load_table(name).split.startswith('validation') for name in OURS)


@pytest.mark.parametrize('scale', ['default', 'full'])
@pytest.mark.parametrize('name', known_tables())
def test_shipped_table_builds_its_models(name: str, scale: str, tmp_path: Path) -> None:
    table = load_table(name)
    trials = plan_trials(table, TableOptions(tmp_path, scale=scale, seeds=1))
    assert len(trials) == len(table.datasets) * len(table.variants)
    for trial in trials:
        model = build_model(trial.spec.model)
        assert model.code_dims.keys() == set(trial.evaluators.model.names)


@pytest.mark.parametrize('name', known_tables())
def test_figures_of_the_paper_belong_to_lines_and_columns(name: str) -> None:
    table = load_table(name)
    trials = plan_trials(table, TableOptions(Path('unused')))
    names = {trial.dataset: set(trial.evaluators.model.names) for trial in trials}
    assert bool(table.paper) is (name not in ('fpd', *OURS))
    for dataset, variants in table.paper.items():
        targets = names[dataset] if table.by_target else {'-'}
        for variant, figures in variants.items():
            assert variant in table.variants
            assert figures.keys() <= targets
            assert all(columns.keys() <= table.columns.keys() for columns in figures.values())


def test_documentation_lists_every_table_with_its_budget() -> None:
    page = (ROOT / 'docs' / 'evaluation.md').read_text()
    for name in known_tables():
        table = load_table(name)
        line = next(x for x in page.splitlines() if x.startswith(f'| `{name}` |'))
        each = f'{len(table.variants)}{" on each" if len(table.datasets) > 1 else ""}'
        scale = table.scale('default')
        assert line.endswith(f'| {each} | {scale.seeds} | {scale.minutes:.0f} |')
        assert f'{name} {scale.minutes:.0f}' in EXAMPLES
        assert scale.minutes <= 60


def test_epochs_of_every_stage_can_be_limited(tmp_path: Path) -> None:
    for trial in plan_trials(load_table('ablation'), TableOptions(tmp_path, epochs=2)):
        spec = trial.spec
        stages = (spec.top, spec.refinement, spec.calibration, *spec.unimodal.values())
        assert all(stage.epochs <= 2 for stage in stages)


def test_full_scale_takes_the_budget_of_the_papers() -> None:
    epochs = {'fpd': 100, 'hierarchy': 100, 'standard': 100, 'likelihood': 500}
    for name, count in epochs.items():
        table = load_table(name)
        trials = plan_trials(table, TableOptions(Path('unused'), scale='full'))
        assert {trial.spec.top.epochs for trial in trials} == {count}
        assert {trial.spec.top.batch_size for trial in trials} == {64}
        assert {(trial.scale.rows, trial.scale.seeds) for trial in trials} == {(0, 5)}
    assert load_table('likelihood').scale('full').samples == 5000
