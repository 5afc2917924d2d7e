"""The table ``robots`` in words: its aims beside what was measured, and every robot's figures."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mm_perception.evaluation.intervals import coverages
from mm_perception.evaluation.judgement import (
    WITHIN,
    Judgement,
    OutageRow,
    from_rows,
    is_ours,
    modalities_of,
    summary,
)
from mm_perception.evaluation.judgement_report import (
    error_table,
    method_table,
    not_worth_in_words,
    shown_method,
    sums_in_words,
)
from mm_perception.evaluation.state_probe import StateRow, state_table
from mm_perception.markdown import markdown_table

WIDTH = 108
WORST, SHARE, JUMP = 1.10, 0.9, 1.5
OBSERVED, GAP = 0.1, 0.03
AIMED = ('one', 'two')
FALLBACK = 'damped_velocity'
READERS = ('latent', 'network')
PICTURE_UNIT = '0..1'
NOTES = """Recordings of robots that the project does not ship. Every sensor is taken away in
turn, on recordings that nothing was trained on, and what fills in for it is compared with the
truth after 0.1 to 5 s: **ours** (the bundle's memory), `ours:no_memory` (what the model generates
from the sensors that work), `ours:no_anchor` (the memory without that), and the baselines, which
are fitted on the same training recordings:

- `hold`, the last value; `mean`, that of the training; `constant_velocity`; `damped_velocity`,
  which moves on as far as sensors did in the training recordings;
- `ridge`, from the working sensors; `ridge_memory`, from these now and at the loss, and the last
  value; `knn`, the mean of the 5 nearest training rows;
- `kalman`, the filter of a vector autoregression of order two with missing sensors.

Pictures are told to `ridge`, `knn` and `kalman` by principal components. A cell is a sensor, what
still works, and a time since the loss. Its error is divided by that of the baseline that did best
there on the validation recordings; 1 is as good. No error counts as less than 0.001 training
stds; of baselines that are all below it, the first of this list is taken. Errors are means over
the seeds. Baselines do not depend on the seed.

A share of values within their intervals may exceed 93 % by what an interval of 0.001 stds holds
already: a sensor at rest is held exactly. Of the recordings that are too short to train much, it
is also asked that nothing is worse than `damped_velocity`, on which they fall back. Cells with one
sensor at work are figures without an aim."""


@dataclass(frozen=True)
class Robot:
    """
    What was measured on one recording.

    :param probes: what the latent has to tell, by the sensor that is lost.
    :param plain: content of each seed's ``judgement.json``.
    :param observed: per seed, errors of what is given back while all sensors work, in training
        stds.
    :param seconds: that training the networks took, per seed.
    """

    name: str
    title: str
    goal: float
    probes: Mapping[str, tuple[str, ...]]
    plain: tuple[Mapping[str, Any], ...]
    observed: tuple[Mapping[str, float], ...]
    seconds: tuple[float, ...]

    @cached_property
    def judgements(self) -> list[Judgement]:
        """One per seed."""
        return [from_rows(plain['rows']) for plain in self.plain]

    @cached_property
    def mean(self) -> Judgement:
        """Mean errors over the seeds."""
        return averaged(self.judgements)

    @property
    def shown(self) -> str:
        """Method that is the bundle's."""
        return shown_method(self.mean)

    def rows(self) -> list[dict[str, Any]]:
        """All rows for machines; baselines once, for they have no seed."""
        return [
            {**row, 'recording': self.name, 'seed': seed}
            for seed, plain in enumerate(self.plain)
            for row in plain['rows']
            if seed == 0 or is_ours(row['method'])
        ]

    def state(self) -> list[dict[str, Any]]:
        """Rows of the probes."""
        return [
            {**row, 'recording': self.name, 'seed': seed}
            for seed, plain in enumerate(self.plain)
            for row in plain['state']
        ]


def together(judgements: Iterable[Judgement]) -> Judgement:
    """Rows of all seeds side by side."""
    known = list(judgements)
    return Judgement(
        tuple(row for judgement in known for row in judgement.validation),
        tuple(row for judgement in known for row in judgement.test),
    )


def averaged(judgements: Sequence[Judgement]) -> Judgement:
    """Mean over seeds of every figure of a cell and method."""
    rows = together(judgements)
    return Judgement(_averaged(rows.validation), _averaged(rows.test))


def _averaged(rows: Sequence[OutageRow]) -> tuple[OutageRow, ...]:
    groups: dict[Any, list[OutageRow]] = {}
    for row in rows:
        groups.setdefault((row.cell, row.method), []).append(row)
    figures = ('error', 'error_std', 'coverage90', 'exact', 'jump')
    result = []
    for group in groups.values():
        means: dict[str, Any] = {}
        for name in figures:
            values = [getattr(row, name) for row in group]
            means[name] = None if None in values else float(np.mean(values))
        result.append(replace(group[0], **means))
    return tuple(result)


WRITTEN = '<!-- written by mm-perception evaluate: {} -->'


def robots_markdown(robots: Sequence[Robot], pictures: Mapping[str, Path], at: Path) -> str:
    """
    Write the table down.

    :param pictures: files by the robot's name.
    :param at: folder of the Markdown file, from which pictures are linked.
    """
    seeds = max(len(robot.plain) for robot in robots)
    lines = [
        '# What fills in for a lost sensor',
        '',
        f'For whoever wants to know how far to trust it. `mm-perception evaluate --table robots`,'
        f' {seeds} {"seed" if seeds == 1 else "seeds"}; rows for machines: `--json`.',
        '',
        *NOTES.split('\n'),
        '',
        WRITTEN.format('begin'),
        '## Aims',
        '',
        *aims_table(robots),
        '',
        *missed_in_words(robots),
    ]
    for robot in robots:
        lines += ['', *_robot_lines(robot, pictures[robot.name], at)]
    lines += ['', WRITTEN.format('end')]
    return '\n'.join(part for line in lines for part in _wrapped(line)) + '\n'


def _wrapped(line: str) -> list[str]:
    """Lines of prose as documents have them; tables, headings and pictures stay."""
    if line.startswith(('|', '#', '!', '<')):
        return [line]
    indent = '  ' if line.startswith('- ') else ''
    wrapper = textwrap.TextWrapper(
        WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return wrapper.wrap(line) or ['']


def _robot_lines(robot: Robot, picture: Path, at: Path) -> list[str]:
    judgement, link = robot.mean, Path(os.path.relpath(picture, at)).as_posix()
    seconds = ', '.join(f'{value:.0f}' for value in robot.seconds)
    lines = [
        f'## {robot.name}',
        '',
        f'{robot.title} Training of the networks: {seconds} s.',
        '',
        f'Error of `{robot.shown}` by the time since the loss, all other sensors at work (ratio to'
        ' the best baseline):',
        '',
        *error_table(judgement, robot.shown),
        '',
        *sums_in_words(judgement, robot.shown),
        '',
        'Ratio to the best baseline, geometric mean over the cells, and the worst cell:',
        '',
        *method_table(judgement),
        '',
        *not_worth_in_words(judgement, robot.shown),
        '',
        f'![Errors on {robot.name}]({link})',
    ]
    state = [_state_row(row) for row in robot.plain[0]['state']]
    if state:
        names = modalities_of((*judgement.validation, *judgement.test))
        lines += ['', *(line.replace('## ', '### ') for line in state_table(state, names))]
    return lines


def _state_row(plain: Mapping[str, Any]) -> StateRow:
    known = {field.name: plain[field.name] for field in fields(StateRow)}
    return StateRow(**{**known, 'observed': tuple(plain['observed'])})


@dataclass(frozen=True)
class Aim:
    """
    One aim of one robot.

    :param value: measured, as text.
    :param aim: what was asked for, as text.
    """

    robot: str
    subject: str
    value: str
    aim: str
    met: bool


def aims_of(robot: Robot) -> list[Aim]:
    """What was aimed at, with what was measured: means over seeds."""
    aims = []
    for part in summary(robot.mean, robot.shown):
        if part['lost'] in AIMED:
            aims += _aims_of_errors(robot, part)
    if not robot.goal:
        aims += _aim_of_falling_back(robot)
    return [*aims, *_aims_of_intervals(robot), *_aims_of_latent(robot)]


def _aims_of_errors(robot: Robot, part: Mapping[str, Any]) -> list[Aim]:
    lost, aims = f'{part["lost"]} lost', []
    mean, worst, within = part['geometric_mean'], part['worst'], part['within']
    if robot.goal:
        value, goal = f'{mean:.3f}{_spread(robot, part["lost"])}', f'at most {robot.goal:g}'
        aims.append(Aim(robot.name, f'{lost}: geometric mean', value, goal, mean <= robot.goal))
        value, goal = f'{100 * within:.0f} %', f'at least {100 * SHARE:.0f} %'
        subject = f'{lost}: cells within {WITHIN:g}'
        aims.append(Aim(robot.name, subject, value, goal, within >= SHARE))
    subject, goal = f'{lost}: worst cell', f'at most {WORST:.2f}'
    return [*aims, Aim(robot.name, subject, f'{worst:.2f}', goal, worst <= WORST)]


def _aim_of_falling_back(robot: Robot) -> list[Aim]:
    """Of a recording that is too short to train much."""
    ratios = robot.mean.ratios(robot.shown, FALLBACK).values()
    if not ratios:
        return []
    subject, worst = f'all cells: worst against {FALLBACK}', max(ratios)
    goal = f'at most {WORST:.2f}'
    return [Aim(robot.name, subject, f'{worst:.2f}', goal, worst <= WORST)]


def _spread(robot: Robot, lost: str) -> str:
    """Standard deviation over the seeds."""
    values = [
        part['geometric_mean']
        for judgement in robot.judgements
        for part in summary(judgement, robot.shown)
        if part['lost'] == lost
    ]
    return f' ± {np.std(values, ddof=1):.3f}' if len(values) > 1 else ''


def _aims_of_intervals(robot: Robot) -> list[Aim]:
    rows = [row for row in robot.mean.test if row.method == robot.shown]
    found = coverages(rows, robot.shown).values()
    jumps = [row.jump for row in rows if row.jump is not None]
    aims = []
    if found:
        shares = [100 * coverage.share for coverage in found]
        value, goal = f'{min(shares):.0f} to {max(shares):.0f} %', '87 to 93 %'
        subject, met = 'intervals of 90 % hold, by sensor and age', all(c.holds for c in found)
        aims.append(Aim(robot.name, subject, value, goal, met))
    if jumps:
        value, goal = f'{max(jumps):.2f}', f'at most {JUMP:g}'
        subject = 'jump in the first tick, in usual ones'
        aims.append(Aim(robot.name, subject, value, goal, max(jumps) <= JUMP))
    return aims


def _aims_of_latent(robot: Robot) -> list[Aim]:
    vectors = {row.target for row in robot.mean.test if row.unit != PICTURE_UNIT}
    back = [
        float(np.mean([errors[name] for errors in robot.observed]))
        for name in sorted(vectors)
        if all(name in errors for errors in robot.observed)
    ]
    aims = []
    if back:
        subject, value = 'observed vectors, error in training stds', f'at most {max(back):.3f}'
        met = max(back) <= OBSERVED
        aims.append(Aim(robot.name, subject, value, f'at most {OBSERVED:g}', met))
    names = modalities_of((*robot.mean.validation, *robot.mean.test))
    for lost, targets in robot.probes.items():
        rest = [name for name in names if name != lost]
        for target in targets:
            rows = [r for r in robot.state() if r['observed'] == rest and r['target'] == target]
            if rows:
                latent, network = (np.mean([r[key] for r in rows]) for key in READERS)
                subject = f'{lost} lost: variance of {target} told by the latent'
                goal = f'at least {network - GAP:.3f}'
                met = bool(latent >= network - GAP)
                aims.append(Aim(robot.name, subject, f'{latent:.3f}', goal, met))
    return aims


def aims_table(robots: Sequence[Robot]) -> list[str]:
    """Lines of Markdown: every aim with what was measured."""
    lines = [
        [aim.robot, aim.subject, aim.value, aim.aim, 'yes' if aim.met else '**no**']
        for robot in robots
        for aim in aims_of(robot)
    ]
    return markdown_table(['recording', 'subject', 'measured', 'aim', 'met'], lines)


def missed_in_words(robots: Sequence[Robot]) -> list[str]:
    """Say plainly what was not reached."""
    aims = [aim for robot in robots for aim in aims_of(robot)]
    missed = [aim for aim in aims if not aim.met]
    if not missed:
        return [f'All {len(aims)} aims are met.']
    parts = [f'{aim.robot}, {aim.subject} ({aim.value}, {aim.aim})' for aim in missed]
    return [f'{len(missed)} of {len(aims)} aims are missed: {"; ".join(parts)}.']
