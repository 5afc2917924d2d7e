"""The table ``robots``: it imports, trains and judges, goes on, and says what it misses."""

from __future__ import annotations

import argparse
import importlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from mm_perception.cli import main as frame
from mm_perception.config import load_training, to_plain
from mm_perception.data.dataset import save_build
from mm_perception.evaluation.judgement import Judgement, OutageRow, plain_rows
from mm_perception.lab.tables import robots
from mm_perception.lab.tables.robots import ENTRIES, SPLITS, Entry, config_of
from mm_perception.lab.tables.robots_report import Robot, aims_of, averaged, robots_markdown
from tests.helpers.moving_robot import SPEC, save_moving_robot

KEYS = {'recording', 'target', 'observed', 'age_s', 'method', 'seed', 'error', 'unit'}
NETWORK = {'type': 'dense', 'hidden': [8]}


def row(method: str, error: float, **more: object) -> OutageRow:
    return OutageRow('a', ('b',), 1.0, method, error, 'rad', error, 9, **more)  # type: ignore[arg-type]


def robot(*errors: float, goal: float = 0.9, **more: object) -> Robot:
    """A robot with a cell, our error by seed, and a baseline of 1."""
    judgements = [
        (row('ours', error, **more), row('hold', 1.0), row('mean', 2.0)) for error in errors
    ]
    shares = {'ridge': 0.5, 'network': 0.6}
    state = [{'target': 'a', 'observed': ['b'], 'latent': 0.58 - 0.1 * goal, **shares}]
    plain = [{'rows': plain_rows(Judgement(j, j)), 'state': state} for j in judgements]
    seconds, observed = tuple(60.0 for _ in errors), tuple({'a': e / 10} for e in errors)
    return Robot('g9', 'A robot.', goal, {'a': ('a',)}, tuple(plain), observed, seconds)


def test_aims_are_met_or_missed_by_the_mean_over_seeds() -> None:
    figures = {'coverage90': 0.95, 'exact': 0.1, 'jump': 1.4}
    aims = {a.subject: a for a in aims_of(robot(0.8, 0.9, **figures))}
    mean = aims['one lost: geometric mean']
    assert mean.value == '0.850 ± 0.071' and mean.met
    assert aims['one lost: worst cell'].met and aims['one lost: cells within 1.03'].met
    subject = 'intervals of 90 % hold, by sensor and age'
    assert aims[subject].value == '95 to 95 %' and not aims[subject].met
    exact = {a.subject: a for a in aims_of(robot(0.8, coverage90=0.95, exact=0.4))}
    assert exact[subject].met, 'what is exact lies within any interval'
    assert aims['jump in the first tick, in usual ones'].met
    assert aims['observed vectors, error in training stds'].met
    latent = aims['a lost: variance of a told by the latent']
    assert (latent.value, latent.aim, latent.met) == ('0.490', 'at least 0.570', False)
    missed = {a.subject for a in aims_of(robot(0.95, 1.5, jump=2.0)) if not a.met}
    assert len(missed) == 6 and 'one lost: worst cell' in missed
    short = {a.subject: a for a in aims_of(robot(0.95, goal=0.0))}
    assert all(a.met for a in short.values())
    assert 'all cells: worst against damped_velocity' not in short, 'no such baseline here'


def test_a_recording_that_is_too_short_is_set_against_damped_velocity() -> None:
    one = robot(1.2, goal=0.0)
    rows = [{**r, 'method': 'damped_velocity'} for r in one.plain[0]['rows'] if r['error'] == 2.0]
    both = {**one.plain[0], 'rows': [*one.plain[0]['rows'], *rows]}
    aims = {a.subject: a for a in aims_of(replace(one, plain=(both,)))}
    falling = aims['all cells: worst against damped_velocity']
    assert (falling.value, falling.met) == ('0.60', True)
    assert not aims['one lost: worst cell'].met


def test_cells_of_one_sensor_alone_are_no_aim() -> None:
    one = robot(1.2)
    rows = [{**r, 'observed': ['b', 'c', 'd']} for r in one.plain[0]['rows']]
    alone = replace(one, plain=({**one.plain[0], 'rows': [*one.plain[0]['rows'], *rows]},))
    assert {a.subject.split(':')[0] for a in aims_of(alone) if 'cell' in a.subject} == {'one lost'}


def test_seeds_are_averaged_by_cell_and_method() -> None:
    found = averaged(robot(0.8, 0.9, coverage90=0.9).judgements)
    assert [r.error for r in found.test] == [pytest.approx(0.85), 1.0, 2.0]
    assert found.test[0].coverage90 == pytest.approx(0.9) and found.test[1].coverage90 is None


def test_report_says_plainly_what_is_missed(tmp_path: Path) -> None:
    text = robots_markdown([robot(1.2)], {'g9': tmp_path / 'g9.png'}, tmp_path)
    assert '| g9 | one lost: worst cell | 1.20 | at most 1.10 | **no** |' in text
    assert '5 of 5 aims are missed' in text and '![Errors on g9](g9.png)' in text
    prose = [x for x in text.splitlines() if not x.startswith(('|', '!'))]
    assert max(map(len, prose)) <= 110
    met = robots_markdown([robot(0.5, goal=0.0)], {'g9': tmp_path}, tmp_path)
    assert 'All 3 aims are met.' in met


def test_baselines_stand_in_the_rows_once() -> None:
    rows = robot(0.8, 0.9).rows()
    assert [(r['method'], r['seed']) for r in rows] == [
        ('ours', 0), ('hold', 0), ('mean', 0), ('ours', 1),
    ]  # fmt: skip


@pytest.mark.skipif(not config_of('g1').is_file(), reason='no configurations of robots')
@pytest.mark.parametrize('name', ENTRIES)
def test_entry_imports_what_its_configuration_names(name: str, tmp_path: Path) -> None:
    entry, spec = ENTRIES[name], load_training(config_of(name)).model
    assert set(entry.units) <= set(spec.names)
    for split, words in zip(SPLITS, entry.imports(name, tmp_path, tmp_path / 'out')):
        parser = argparse.ArgumentParser()
        importlib.import_module(frame.COMMANDS[words[0]][0]).add_parser(parser.add_subparsers())
        arguments = parser.parse_args(words)
        assert arguments.split == split and arguments.config == config_of(name)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--variants', 'hal'], 'table robots has no hal; it has: g1, g1_commands, ur3, imu'),
        (['--scale', 'full'], 'has no --scale or --epochs'),
        (['--variants', 'g1'], 'no recordings; set MM_PERCEPTION_DATA'),
    ],
)
def test_table_says_in_one_line_what_is_wrong(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv('MM_PERCEPTION_DATA', str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert frame.main(['evaluate', '--table', 'robots', *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def write_robot(folder: Path) -> Path:
    """A dataset with time, and a configuration that trains in seconds."""
    save_moving_robot(folder / 'data' / 'tiny')
    save_build(folder / 'data' / 'tiny', {split: {} for split in SPLITS})
    modalities = [
        {**to_plain(m), 'network': NETWORK, 'likelihood': 'optimal_sigma'} for m in SPEC.modalities
    ]
    config = {
        'name': 'tiny',
        'dataset': 'data/tiny',
        'model': {
            'modalities': modalities,
            'joint_latent_dim': 4,
            'message_dim': 8,
            'joint_hidden': [8],
            'decoder_hidden': [8],
        },
        'top': {'epochs': 2},
        'unimodal': {m.name: {'epochs': 2} for m in SPEC.modalities},
    }
    (folder / 'tiny.yaml').write_text(yaml.safe_dump(config))
    return folder / 'tiny.yaml'


def test_table_trains_and_judges_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_robot(tmp_path)
    entry = Entry('A tiny robot.', 'none', 'import-bag', {}, {'arm': 'rad'}, goal=0.9)
    monkeypatch.setattr(robots, 'ENTRIES', {'tiny': entry})
    monkeypatch.setattr(robots, 'config_of', lambda name: config)
    monkeypatch.setenv('PYTHONPATH', str(Path(__file__).parents[2]))
    monkeypatch.chdir(tmp_path)
    command = ['evaluate', '--table', 'robots', '--seeds', '1', '--jobs', '1', '--out', 'runs']
    assert frame.main([*command, '--json', 'robots.json']) == 0
    content = json.loads((tmp_path / 'robots.json').read_text())
    assert {'versions', 'seconds', 'state'} <= content.keys()
    assert all(found.keys() >= KEYS for found in content['rows'])
    assert {r['unit'] for r in content['rows'] if r['target'] == 'arm'} == {'rad'}
    assert {r['recording'] for r in content['rows']} == {'tiny'}
    assert {'hold', 'ridge_memory', 'kalman', 'ours:no_memory'} <= {
        r['method'] for r in content['rows']
    }
    text = (tmp_path / 'runs' / 'robots' / 'table.md').read_text()
    assert '## tiny' in text and '| observed |' not in text
    assert (tmp_path / 'runs' / 'robots' / 'pictures' / 'robots_tiny.png').is_file()
    bundle = tmp_path / 'runs' / 'robots' / 'tiny-0'
    assert 'After a loss' in (bundle / 'README.md').read_text()
    assert (bundle / 'judgement.png').stat().st_size > 10_000
    words = ['evaluate', str(bundle), '--dataset', 'data/tiny', '--json', 'bundle.json']
    assert frame.main([*words, '--pictures', 'drawn']) == 0
    judged = json.loads((tmp_path / 'bundle.json').read_text())['judgement']
    assert judged['rows'][0].keys() >= KEYS and judged['rows'][0]['recording'] == 'tiny'
    assert judged['rows'] == json.loads((bundle / 'judgement.json').read_text())['rows']
    assert (tmp_path / 'drawn' / 'tiny_outages.png').is_file()
    made = os.stat(bundle / 'bundle.json').st_mtime_ns
    assert frame.main([*command[:4], '2', *command[5:], '--json', 'robots.json']) == 0
    seeds = {r['seed'] for r in json.loads((tmp_path / 'robots.json').read_text())['rows']}
    first, second = (
        json.loads((tmp_path / 'runs' / 'robots' / f'tiny-{seed}' / 'judgement.json').read_text())
        for seed in seeds
    )
    baselines = [
        [row['error'] for row in plain['rows'] if row['method'] == 'kalman']
        for plain in (first, second)
    ]
    assert len(baselines[0]) == len(baselines[1]) > 0
    np.testing.assert_allclose(*baselines)
    assert os.stat(bundle / 'bundle.json').st_mtime_ns == made
    config.write_text(config.read_text().replace('epochs: 2', 'epochs: 3'))
    capsys.readouterr()
    assert frame.main(command) == 2
    assert 'of another configuration or dataset; remove it' in capsys.readouterr().err
