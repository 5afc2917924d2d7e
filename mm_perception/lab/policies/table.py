"""``mm-perception evaluate --table policies``: returns over seeds, beside what others read."""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

import mm_perception
from mm_perception.bundle import MANIFEST
from mm_perception.data.dataset import BUILD_FILE
from mm_perception.errors import ConfigError, DataError
from mm_perception.evaluation.coherence import versions
from mm_perception.fusion.perception import Perception
from mm_perception.lab.policies.ensemble import Ensemble
from mm_perception.lab.policies.report import policies_markdown
from mm_perception.lab.policies.variants import OURS, VARIANTS, Material, Together, Variant, padded
from mm_perception.lab.tables.command import POLICIES as NAME
from mm_perception.resources import share_directory
from mm_perception.rl.agents import Observing, widened
from mm_perception.rl.evaluation import Agent, Arena, Condition, Others, lies, losses, row
from mm_perception.rl.failures import Failures, RandomSpells, VectorSensorFailures, sensors_of
from mm_perception.rl.observation import QUICK_CHECKS, VectorObservedBy
from mm_perception.rl.pendulum import ID, MAX_TORQUE, RATE_HZ
from mm_perception.rl.training import SacSettings, make_vector

NEXUS = 'nexus'
SEEDS, EPISODES = 3, 50
LIE_MOMENTS = (15,)
DROPOUT, NO_DROPOUT = 'dropout', 'all sensors'
TRAININGS = {DROPOUT: Failures(spells=RandomSpells()), NO_DROPOUT: Failures()}
"""How the sensors fail while a policy is trained."""
SETTINGS = SacSettings()
HIGHEST = np.array([MAX_TORQUE], np.float32)


def run_policies(args: argparse.Namespace) -> dict[str, Any]:
    """
    Train and judge what is not there yet, and write the table.

    :param args: of ``mm-perception evaluate``.
    :returns: what ``--json`` holds.
    """
    began = time.monotonic()
    if args.scale != 'default' or args.epochs:
        raise ConfigError('table policies has no --scale or --epochs; use --seeds and --variants')
    unknown = [name for name in args.variants if name not in VARIANTS]
    if unknown:
        raise ConfigError(f'table policies has no {unknown[0]}; it has: {", ".join(VARIANTS)}')
    torch.set_num_threads(1)
    folder = args.out / NAME
    folder.mkdir(parents=True, exist_ok=True)
    dataset = (args.dataset or Path('data')) / 'pendulum'
    if not (dataset / BUILD_FILE).is_file():
        _command(['build-data', 'pendulum', '--out', dataset.as_posix()])
    seeds = args.seeds or SEEDS
    place = _place(folder, dataset, seeds)
    results = [_measure(name, place, seeds) for name in args.variants or tuple(VARIANTS)]
    rows = [each for result in results for each in result['rows']]
    text = policies_markdown(rows, SETTINGS.steps)
    file = args.markdown or folder / 'table.md'
    file.write_text(text)
    print(text)
    print(f'wrote {file}')
    return {
        'rows': rows,
        'training_seconds': {r['variant']: r['training_seconds'] for r in results},
        'settings': {**SETTINGS.plain(), 'episodes': EPISODES},
        'versions': versions(),
        'seconds': round(time.monotonic() - began, 1),
    }


@dataclass(frozen=True)
class _Place:
    """
    Where what was trained and measured is kept.

    :param key: of the settings and the data.
    """

    folder: Path
    dataset: Path
    key: str

    def known(self, name: str, make: Callable[[], Any], more: Any = '') -> Any:
        """What a file holds, once made; ``more``: settings of this one alone."""
        file, key = self.folder / f'{name}.json', f'{self.key} {more}'
        if not file.is_file():
            file.write_text(json.dumps({'key': key, 'found': make()}) + '\n')
        kept = json.loads(file.read_text())
        if kept['key'] != key:
            raise ConfigError(f'{file}: of other settings; remove it')
        return kept['found']


def _place(folder: Path, dataset: Path, seeds: int) -> _Place:
    config = share_directory() / 'config' / 'pendulum.yaml'
    content = config.read_bytes() + (dataset / BUILD_FILE).read_bytes()
    about = repr((SETTINGS, seeds)).encode()
    return _Place(folder, dataset, hashlib.sha256(content + about).hexdigest())


def _bundle(family: str, seed: int, place: _Place) -> Perception:
    """Train a bundle, unless that was done, and load it."""
    folder, dataset = place.folder, place.dataset
    out = folder / f'{family}-{seed}'
    if not (out / MANIFEST).is_file():
        config = folder / f'{family}.yaml'
        plain = yaml.safe_load((share_directory() / 'config' / 'pendulum.yaml').read_text())
        plain['model']['family'] = family
        if family != NEXUS:  # one level only: linear networks would see too little
            for modality in plain['model']['modalities']:
                modality['network'] = {'type': 'dense', 'hidden': [128, 128]}
        config.write_text(yaml.safe_dump(plain))
        words = ['train', '--config', config, '--dataset', dataset, '--out', out, '--jobs', 1]
        words += ['--work', folder / f'{out.name}.work', '--seed', seed, '--resume']
        _command([str(word) for word in words])
    return mm_perception.load(str(out))


def _command(words: Sequence[str]) -> None:
    """Run a command of ``mm-perception`` as a user would."""
    print(f'mm-perception {" ".join(words)}', flush=True)
    program = [sys.executable, '-m', 'mm_perception.cli.main', *words]
    if subprocess.run(program, stdout=subprocess.DEVNULL, check=False).returncode:
        raise DataError(f'mm-perception {" ".join(words)}: failed; see above')


def _environments(count: int) -> Any:
    return make_vector(ID, count)


def _measure(name: str, place: _Place, seeds: int) -> dict[str, Any]:
    """Train the policies of all seeds side by side, with dropout and without, and judge them."""
    variant = VARIANTS[name]
    bundles = [_bundle(variant.family, seed, place) for seed in range(seeds)]
    sensors = sensors_of(_environments(1).single_observation_space)
    observing = [variant.observe(Material(bundle, sensors, place.dataset)) for bundle in bundles]
    trainings = TRAININGS if len(variant.sensors) > 1 else {NO_DROPOUT: Failures()}
    together = Together([(observe(len(trainings)), len(trainings)) for observe in observing])
    ensemble = Ensemble(seeds * len(trainings), together.size, -HIGHEST, HIGHEST, SETTINGS)
    failing = [*trainings.values()] * seeds
    weights = place.known(f'{name}.policies', lambda: _trained(ensemble, failing, together))
    ensemble.load(weights['actor'])
    rows = []
    plans = [(seed, training) for seed in range(seeds) for training in trainings]
    for k, (seed, training) in enumerate(plans):
        agent = Agent(observing[seed], _padding(ensemble.policy(k), together.size))
        judge = partial(_judge, variant, agent, bundles[seed], name)
        about = {'policy': f'{name}, {training}', 'observation': name, 'training': training}
        found = place.known(f'{name}.{training.replace(" ", "_")}.{seed}', judge, EPISODES)
        rows += [{**about, 'seed': seed, **each} for each in found]
    return {'variant': name, 'training_seconds': weights['seconds'], 'rows': rows}


def _trained(
    ensemble: Ensemble, failures: Sequence[Failures], together: Together
) -> dict[str, Any]:
    began = time.monotonic()
    failing = VectorSensorFailures(_environments(len(failures)), failures)
    ensemble.learn(VectorObservedBy(failing, together))
    return {'seconds': round(time.monotonic() - began, 1), 'actor': ensemble.plain()}


def _padding(act: Any, size: int) -> Any:
    return lambda seen: act(padded(seen, size))


def _judge(variant: Variant, agent: Agent, bundle: Perception, name: str) -> list[dict[str, Any]]:
    """Rows of one policy: sensors lost, sensors that lie; ours with the health checks too."""
    arena = Arena(_environments, EPISODES)
    least = float(arena.by_chance().mean()), float(arena.by_zero().mean())
    conditions = losses(variant.sensors) if len(variant.sensors) > 1 else [Condition()]
    lying = lies(variant.sensors, LIE_MOMENTS) if name == OURS else []
    others: Others | None = arena.elsewhere(agent) if lying else None
    found = arena.returns(agent, [*conditions, *lying], others)
    whole = float(found[0].mean()), *least
    rows = [
        {'checks': False, **row(c, each, *whole)} for c, each in zip([*conditions, *lying], found)
    ]
    if name == OURS:
        checking = Agent(_checked(bundle), agent.act)
        found = arena.returns(checking, [Condition(), *lying], others)
        whole = float(found[0].mean()), *least
        rows += [
            {'checks': True, **row(c, each, *whole)}
            for c, each in zip([Condition(), *lying], found)
        ]
    return rows


def _checked(bundle: Perception) -> Observing:
    return widened(bundle, RATE_HZ, checks=QUICK_CHECKS)
