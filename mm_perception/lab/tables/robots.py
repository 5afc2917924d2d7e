"""``mm-perception evaluate --table robots``: what fills in on recordings of robots, over seeds."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mm_perception.bundle import MANIFEST
from mm_perception.data.dataset import BUILD_FILE, load_dataset
from mm_perception.errors import ConfigError, DataError
from mm_perception.evaluation.bundle_judgement import FILE
from mm_perception.evaluation.coherence import versions
from mm_perception.lab.tables.command import ROBOTS as NAME
from mm_perception.lab.tables.outage_picture import draw_outages
from mm_perception.lab.tables.robots_report import Robot, robots_markdown, together
from mm_perception.resources import share_directory

SEEDS = 3
SETTINGS = 'settings.json'
SPLITS = ('train', 'validation', 'test')


@dataclass(frozen=True)
class Entry:
    """
    A recording of the table.

    :param title: what it is, one sentence.
    :param source: folder of the raw recordings that it is imported from.
    :param command: that imports it, with options of each split.
    :param units: of the vectors.
    :param goal: geometric mean of the ratio to the best baseline to reach; 0 for none.
    :param probes: what the latent has to tell, by the sensor that is lost.
    """

    title: str
    source: str
    command: str
    splits: Mapping[str, tuple[str, ...]]
    units: Mapping[str, str] = field(default_factory=dict)
    goal: float = 0.0
    probes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def imports(self, name: str, data: Path, out: Path) -> list[list[str]]:
        """Words of the commands that import all splits."""
        config = config_of(name).as_posix()
        source = (data / self.source).as_posix()
        words = [self.command, source, '--config', config, '--out', out.as_posix()]
        return [[*words, '--split', split, *self.splits[split]] for split in SPLITS]


ARMS = ('left_arm', 'right_arm')
PROBES = {'camera': ARMS, 'left_arm': ('left_arm',), 'right_arm': ('right_arm',)}
JOINTS = dict.fromkeys(('left_arm', 'right_arm', 'left_hand', 'right_hand'), 'rad')
# Only episodes up to 33 have a camera.
EPISODES = {
    'train': ('--episodes', '0-20,34-37'),
    'validation': ('--episodes', '21-26,38-39'),
    'test': ('--episodes', '27-33,40-44'),
}
ENTRIES = {
    'g1': Entry(
        'A humanoid (Unitree G1) picks up a bottle: head camera, arms, hands.',
        'robots/g1',
        'import-lerobot',
        EPISODES,
        JOINTS,
        0.90,
        PROBES,
    ),
    'g1_commands': Entry(
        'The same, with the commands to the joints as one more sensor.',
        'robots/g1',
        'import-lerobot',
        EPISODES,
        {**JOINTS, 'command': 'rad'},
        0.50,
        PROBES,
    ),
    'ur3': Entry(
        'An arm (UR3), 21 s, of which it moves from 8.8 to 17.4 s.',
        'bags/ur3_joint_states',
        'import-bag',
        {
            'train': ('--end', '12'),
            'validation': ('--start', '12.4', '--end', '14.9'),
            'test': ('--start', '15.3'),
        },
        {'arm': 'rad', 'wrist': 'rad'},
    ),
    'imu': Entry(
        'A wheeled robot with an arm, 95 s: joints and IMU.',
        'bags/joint_states_imu_mcap',
        'import-bag',
        {
            'train': ('--end', '66'),
            'validation': ('--start', '67', '--end', '80'),
            'test': ('--start', '81'),
        },
        {'arm': 'rad', 'wheels': 'rad', 'gripper': 'rad and m', 'imu': 'mixed'},
    ),
}


def config_of(name: str) -> Path:
    """Training configuration of a recording."""
    return share_directory() / 'config' / 'robots' / f'{name}.yaml'


def run_robots(args: argparse.Namespace) -> dict[str, Any]:
    """
    Import, train and judge what is not there yet, and write the table.

    :param args: of ``mm-perception evaluate``.
    :returns: what ``--json`` holds.
    """
    began = time.monotonic()
    if args.scale != 'default' or args.epochs:
        raise ConfigError('table robots has no --scale or --epochs; use --seeds and --variants')
    unknown = [name for name in args.variants if name not in ENTRIES]
    if unknown:
        raise ConfigError(f'table robots has no {unknown[0]}; it has: {", ".join(ENTRIES)}')
    chosen = {n: e for n, e in ENTRIES.items() if not args.variants or n in args.variants}
    robots = [_run_robot(args, name, entry) for name, entry in chosen.items()]
    pictures = args.pictures or args.out / NAME / 'pictures'
    files = {}
    for robot in robots:
        files[robot.name] = pictures / f'{NAME}_{robot.name}.png'
        draw_outages(together(robot.judgements).test, robot.title, files[robot.name])
    file = args.markdown or args.out / NAME / 'table.md'
    file.parent.mkdir(parents=True, exist_ok=True)
    text = robots_markdown(robots, files, file.parent)
    file.write_text(text)
    print(text)
    print(f'wrote {file}')
    return {
        'rows': [row for robot in robots for row in robot.rows()],
        'state': [row for robot in robots for row in robot.state()],
        'training_seconds': {robot.name: robot.seconds for robot in robots},
        'versions': versions(),
        'seconds': round(time.monotonic() - began, 1),
    }


def _run_robot(args: argparse.Namespace, name: str, entry: Entry) -> Robot:
    dataset = (args.dataset or Path('data')) / name
    if not all((dataset / f'{split}.safetensors').is_file() for split in SPLITS):
        root = Path(os.environ.get('MM_PERCEPTION_DATA', '../shared/data'))
        if not (root / entry.source).is_dir():
            raise DataError(
                f'{root / entry.source}: no recordings; set MM_PERCEPTION_DATA to their folder, or'
                f' leave {name} out with --variants'
            )
        for words in entry.imports(name, root, dataset):
            _command(words)
    plain, observed, seconds = [], [], []
    for seed in range(args.seeds or SEEDS):
        folder = args.out / NAME / f'{name}-{seed}'
        _train(args, name, dataset, folder, seed)
        training = json.loads((folder / MANIFEST).read_text())['training']
        seconds.append(sum(training['seconds'].values()))
        plain.append(_with_units(json.loads((folder / FILE).read_text()), entry.units))
        observed.append(_observed(training))
    about = (name, f'{entry.title} {_rows_of(dataset)}', entry.goal, entry.probes)
    return Robot(*about, tuple(plain), tuple(observed), tuple(seconds))


def _rows_of(dataset: Path) -> str:
    """One sentence on the splits."""
    rows = {split: len(load_dataset(dataset, split)) for split in SPLITS}
    return f'{", ".join(f"{count:,} rows for {split}" for split, count in rows.items())}.'


def _observed(training: Mapping[str, Any]) -> dict[str, float]:
    """Error of what is given back of each modality while all are observed, in training stds."""
    rows = training.get('errors', {}).get('test', [])
    every = max((len(row['observed']) for row in rows), default=0)
    return {row['target']: row['error'] for row in rows if len(row['observed']) == every}


def _train(args: argparse.Namespace, name: str, dataset: Path, folder: Path, seed: int) -> None:
    """Train and judge a bundle, unless that was done; baselines run once, with the first."""
    config, settings = config_of(name), folder / SETTINGS
    content = config.read_bytes() + (dataset / BUILD_FILE).read_bytes()
    key = hashlib.sha256(content).hexdigest()
    if settings.is_file():
        found = json.loads(settings.read_text())
        if found['key'] != key:
            raise ConfigError(f'{folder}: of another configuration or dataset; remove it')
        return
    work = folder.with_name(f'{folder.name}.work')
    words = ['train', '--config', config.as_posix(), '--dataset', dataset.as_posix()]
    words += ['--out', folder.as_posix(), '--work', work.as_posix(), '--seed', str(seed)]
    words += ['--device', args.device, '--jobs', str(args.jobs), '--resume']
    known = folder.with_name(f'{name}-{key[:8]}.json')
    words += ['--baselines', known.as_posix()] if known.is_file() else []
    _command(words)
    if not (folder / FILE).is_file():
        raise DataError(f'{dataset}: tells no time, or a split is missing; import it again')
    shutil.copy(folder / FILE, known)
    settings.write_text(json.dumps({'key': key}) + '\n')


def _command(words: Sequence[str]) -> None:
    """Run a command of ``mm-perception`` as a user would."""
    print(f'mm-perception {" ".join(words)}', flush=True)
    program = [sys.executable, '-m', 'mm_perception.cli.main', *words]
    done = subprocess.run(program, stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise DataError(f'mm-perception {" ".join(words)}: failed; see above')


def _with_units(plain: dict[str, Any], units: Mapping[str, str]) -> dict[str, Any]:
    rows = [{**row, 'unit': units.get(row['target'], row['unit'])} for row in plain['rows']]
    return {**plain, 'rows': rows}
