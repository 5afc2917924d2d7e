"""
Every subset of the sensors, broken in every way, over real DDS: `make fault-matrix` reports it.

One node with the bundle `mhd` and one robot serve all cells. A cell breaks some sensors, waits
until the node says so, compares everything that it publishes with a session of our own that
sees only the healthy sensors, mends them and waits until all is as before.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from mm_perception.bundle import Bundle, find_bundle, load_bundle
from mm_perception.lab.digits.recordings import Recording, load_recordings
from tests.helpers.fault_kinds import KINDS, Kind
from tests.helpers.robot import NodeProcess
from tests.helpers.stage import NAMES, Oracle, Stage, lie, stages

NAMESPACE = '/matrix'
LABEL, OTHER = '3', '0'
FLAPPING, LYING = 'flapping', 'inconsistent'
TURN_S = 0.25
"""How long the outputs of a turn are waited for."""
PATIENCE_S = 20.0
RATE_HZ = 40
PARAMETERS = {
    'autostart': 'true',
    'rate_hz': RATE_HZ,
    'health.frozen_s': 0.25,
    'health.silent_s': 0.25,
    'health.inconsistent_s': 0.1,
    'health.flaps': 0,
    'health.flap_s': 3.0,
    'health.steady_s': 0.2,
    'modalities.image.max_age_s': 0.35,
    'modalities.trajectory.max_age_s': 0.35,
    'modalities.symbol.max_age_s': 0.35,
    'modalities.sound.max_age_s': 0.6,
}


@dataclass(frozen=True)
class Cell:
    """One cell of the matrix."""

    kind: Kind
    sensors: tuple[str, ...]

    def __str__(self) -> str:
        return f'{self.kind.name}: {", ".join(self.sensors)}'


def recording_of(label: str) -> Recording:
    """A recording that ships with the bundle."""
    folder = find_bundle('mhd') / 'recordings'
    return next(r for r in load_recordings(folder) if r.label == label)


def subsets(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """All of them but the empty one."""
    return [some for size in range(1, len(names) + 1) for some in combinations(names, size)]


def cells() -> list[Cell]:
    """All cells, one kind after the other."""
    kinds = (*KINDS, Kind(LYING, lie(recording_of(OTHER)), LYING, ('contradicts',), alone=True))
    return [
        Cell(kind, some)
        for kind in kinds
        for some in subsets(tuple(kind.breaks))
        if len(some) == 1 or not kind.alone
    ]


@pytest.fixture(scope='module')
def mhd() -> Bundle:
    """The bundle that ships."""
    return load_bundle('mhd')


@pytest.fixture(scope='module')
def oracle(mhd: Bundle) -> Oracle:
    """What the node should answer while the recording is on show."""
    return Oracle(mhd, recording_of(LABEL))


@pytest.fixture(scope='module')
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The node and its sensors, all of them healthy; at the end the node must have survived."""
    parameters = [f'{name}:={value}' for name, value in PARAMETERS.items()]
    log = tmp_path_factory.mktemp('matrix') / 'log'
    node = NodeProcess(log, *parameters, namespace=NAMESPACE)
    for stage in stages(recording_of(LABEL), NAMESPACE):
        stage.live = set(NAMES)
        stage.until_used(set(NAMES), 60.0)
        yield stage
    assert node.stop() == 0
    assert 'Traceback' not in node.log


@pytest.fixture(scope='module')
def report() -> Iterator[list[dict[str, Any]]]:
    """Takes a line per cell; written to the file that FAULT_MATRIX names."""
    lines: list[dict[str, Any]] = []
    yield lines
    if path := os.environ.get('FAULT_MATRIX'):
        Path(path).write_text(json.dumps({'cells': lines}, indent=1) + '\n')


def problem(stage: Stage, oracle: Oracle, cell: Cell) -> str:
    """What is not yet as it should be; empty once the whole cell is."""
    healthy = set(NAMES) - set(cell.sensors)
    for name, values in stage.status().items():
        text = f'{name}: {values}'
        if name in healthy:
            if (values['state'], values['used'], values['source']) != ('ok', 'true', 'sensor'):
                return f'not as healthy as it is: {text}'
            continue
        if values['state'] != cell.kind.state or values['used'] != 'false':
            return f'not found out: {text}'
        if not any(
            word in values['reason'] or word == values['fault'] for word in cell.kind.words
        ):
            return f'wrong reason: {text}'
        if values['source'] != ('inferred' if healthy else 'none'):
            return f'wrong source: {text}'
    return _wrong_outputs(stage, oracle, healthy)


def _wrong_outputs(stage: Stage, oracle: Oracle, healthy: set[str]) -> str:
    if not healthy:
        # No latent from nothing: none may have come since the status said so.
        return '' if not stage.received['latent'] else 'a latent although nothing is observed'
    for name in NAMES:
        messages = stage.received[f'filled/{name}']
        if not messages:
            return f'filled/{name}: nothing'
        distance = oracle.distance(name, messages[-1], healthy)
        if distance > oracle.tolerances[name]:
            return f'filled/{name}: distance {distance:.3f} from what it should be'
    return '' if stage.received['latent'] else 'no latent'


def complete(stage: Stage, latest_s: float) -> bool:
    """Whether a status came, and every stand-in (they keep their sensors' rates) or it is late."""
    came = all(stage.received[f'filled/{name}'] for name in NAMES)
    return bool(stage.received['cmi/status']) and (came or time.monotonic() > latest_s)


def until_as_expected(stage: Stage, oracle: Oracle, cell: Cell) -> float:
    """Go on until everything is as a cell expects it; seconds until the states were."""
    begin_s = time.monotonic()
    found_s = None
    why = ''
    while time.monotonic() - begin_s < PATIENCE_S:
        stage.until(partial(complete, stage, time.monotonic() + TURN_S), 'status')
        why = problem(stage, oracle, cell)
        states_are_right = why.startswith(('filled', 'a latent', 'no latent')) or not why
        if states_are_right and found_s is None:
            found_s = time.monotonic() - begin_s
        elif not why:
            return found_s or 0.0
        stage.received.clear()
    raise AssertionError(f'{cell}: {why}')


@pytest.mark.parametrize('cell', cells(), ids=str)
def test_fault_matrix(
    stage: Stage, oracle: Oracle, mhd: Bundle, cell: Cell, report: list[dict[str, Any]]
) -> None:
    if cell.kind.name == LYING and mhd.health is None:
        pytest.skip('the bundle is not calibrated for the comparison of its modalities')
    line: dict[str, Any] = {'kind': cell.kind.name, 'sensors': cell.sensors, 'passed': False}
    report.append(line)
    if cell.kind.name == FLAPPING:
        stage.set_parameter('health.flaps', 3)
    try:
        stage.broken = {name: cell.kind.breaks[name] for name in cell.sensors}
        line['found_s'] = round(until_as_expected(stage, oracle, cell), 3)
        stage.broken = {}
        line['well_s'] = round(until_as_expected(stage, oracle, Cell(cell.kind, ())), 3)
        line['passed'] = True
    finally:
        stage.broken = {}
        if cell.kind.name == FLAPPING:
            stage.set_parameter('health.flaps', 0)


def test_silenced_sensors_do_not_outvote_the_living(stage: Stage, mhd: Bundle) -> None:
    """Three fall silent while the camera goes on and sees something else: it is right."""
    if mhd.health is None:
        pytest.skip('the bundle is not calibrated for the comparison of its modalities')
    other = lie(recording_of(OTHER))['image']
    for _ in range(3):
        stage.until_used(set(NAMES), PATIENCE_S)
        stage.received['cmi/status'].clear()
        stage.live = {'image'}
        stage.broken = {'image': other}
        stage.until_used({'image'}, PATIENCE_S)
        states = {
            value.value
            for message in stage.received['cmi/status']
            for entry in message.status
            if entry.name == 'image'
            for value in entry.values
            if value.key == 'state'
        }
        assert states == {'ok'}
        stage.broken, stage.live = {}, set(NAMES)
