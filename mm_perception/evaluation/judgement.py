"""What fills in for a lost sensor, ours beside the baselines: figures per outage, and sums."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mm_perception.data.dataset import Dataset, load_dataset, splits
from mm_perception.evaluation.baselines import build_baselines
from mm_perception.evaluation.outages import (
    AGES_S,
    HasIntervals,
    Method,
    Outage,
    draw_outage,
    outage_subsets,
    tick_s,
)
from mm_perception.modalities import build_modality
from mm_perception.modalities.base import Array
from mm_perception.progress import tqdm
from mm_perception.spec import ModelSpec

OURS = 'ours'
WITHIN = 1.03
"""Ratio to the best baseline up to which a cell is as good."""
WORTH = 0.97
"""Ratio to the better of hold and mean from which on filling in pays."""
LEAST_STD = 0.01
"""Of an element, in that of the modality's largest: others are constant but for noise."""
NOTHING = 1e-9
LEAST_ERROR = 1e-3
"""In training stds: a sensor that stands still is held without any error; no ratio tells there."""


class Cell(NamedTuple):
    """What is lost, what still works, and for how long."""

    target: str
    observed: tuple[str, ...]
    age_s: float


@dataclass(frozen=True)
class OutageRow:
    """
    Error of one method in one cell.

    :param error: root of the mean square over queries and elements, in ``unit``.
    :param error_std: the same in standard deviations of the training rows, per element for
        vectors.
    :param n: queries.
    :param coverage90: share of the elements within the interval of 90 %, where there is one;
        ``exact``: of those within an interval of 0.001 training stds.
    :param jump: change in the first tick without the sensor, in parts of the usual change in a
        tick of the same recordings; of our methods.
    """

    target: str
    observed: tuple[str, ...]
    age_s: float
    method: str
    error: float
    unit: str
    error_std: float
    n: int
    coverage90: float | None = None
    exact: float | None = None
    jump: float | None = None

    @property
    def cell(self) -> Cell:
        """Where it belongs."""
        return Cell(self.target, self.observed, self.age_s)


@dataclass(frozen=True)
class Judgement:
    """
    Errors on two splits; which baseline is the best in a cell is decided on the first.

    :param validation: rows that choose; ``test``: rows that are reported.
    """

    validation: tuple[OutageRow, ...]
    test: tuple[OutageRow, ...]

    def best(self) -> dict[Cell, str]:
        """
        Baseline that did best on the validation rows of each cell.

        Errors of less than 0.001 training stds are equal there: the first of them is taken.
        """
        rows = [row for row in self.validation if not is_ours(row.method)]
        told = [replace(row, error=0.0) if _is_nothing(row) else row for row in rows]
        return {c: min(errors, key=errors.__getitem__) for c, errors in by_cell(told).items()}

    def ratios(self, method: str = OURS, against: str = '') -> dict[Cell, float]:
        """
        Test error of a method over that of the best baseline, per cell measured on both.

        :param against: a method that stands for the best baseline.
        """
        rows = {(row.cell, row.method): row for row in self.test}
        return {
            cell: _ratio(rows[cell, method], rows[cell, against or best])
            for cell, best in self.best().items()
            if (cell, method) in rows and (cell, against or best) in rows
        }

    def beside(self, other: Judgement) -> Judgement:
        """With the baselines of another."""
        validation, test = (
            tuple(row for row in rows if not is_ours(row.method))
            for rows in (other.validation, other.test)
        )
        return Judgement((*self.validation, *validation), (*self.test, *test))

    def not_worth(self, method: str = OURS) -> list[tuple[str, tuple[str, ...]]]:
        """Targets and what is observed, of which filling in beats neither hold nor mean."""
        pays: dict[tuple[str, tuple[str, ...]], bool] = {}
        for cell, errors in by_cell(self.validation).items():
            if method in errors:
                better = errors[method] < WORTH * min(errors['hold'], errors['mean'])
                key = (cell.target, cell.observed)
                pays[key] = pays.get(key, False) or better
        return [key for key, some in pays.items() if not some]


def _ratio(mine: OutageRow, other: OutageRow) -> float:
    """Ratio of two errors, of which none counts as less than 0.001 training stds."""
    larger = max(mine, other, key=lambda row: row.error)
    if _is_nothing(larger):
        return 1.0
    least = LEAST_ERROR * larger.error / larger.error_std
    return max(mine.error, least) / max(other.error, least)


def _is_nothing(row: OutageRow) -> bool:
    return row.error <= NOTHING or row.error_std <= LEAST_ERROR


def is_ours(method: str) -> bool:
    """Whether a method is one of ours, not a baseline."""
    return method.split(':')[0] == OURS


def by_cell(rows: Iterable[OutageRow]) -> dict[Cell, dict[str, float]]:
    """Errors by cell and method."""
    found: dict[Cell, dict[str, float]] = {}
    for row in rows:
        found.setdefault(row.cell, {})[row.method] = row.error
    return found


def judge(
    ours: Sequence[Method], spec: ModelSpec, folder: Path, known: Judgement | None = None
) -> Judgement | None:
    """
    Set methods against the baselines, which are fitted on the training split.

    :param ours: methods that are trained already.
    :param folder: of the dataset, with splits ``train``, ``validation`` and ``test``.
    :param known: judgement of the same dataset, whose baselines are taken.
    :returns: None if the dataset tells no time, or lacks a split.
    """
    if not {'train', 'validation', 'test'} <= set(splits(folder)):
        return None
    test = load_dataset(folder, 'test')
    if not test.tells_time:
        return None
    train, validation = (load_dataset(folder, split) for split in ('train', 'validation'))
    methods = [*ours, *([] if known else build_baselines())]
    for method in methods:
        method.fit(train)
    scales = {name: Scale.of(train, spec, name) for name in train.names}
    found = Judgement(
        *(
            tuple(measure_outages(methods, data, scales, title))
            for data, title in ((validation, 'validation'), (test, 'test'))
        )
    )
    return found if known is None else found.beside(known)


@dataclass(frozen=True)
class Scale:
    """
    How errors of a modality are told.

    :param sensor: sensor units per unit of the model's array, to be multiplied with it.
    :param std: of the training rows, in the model's unit, likewise.
    """

    unit: str
    sensor: Array
    std: Array

    @classmethod
    def of(cls, train: Dataset, spec: ModelSpec, name: str) -> Scale:
        """Take the scale of a modality from the training rows."""
        modality = build_modality(spec.modality(name))
        sensor = np.broadcast_to(np.float32(modality.unit_scale), modality.shape)
        rows = np.flatnonzero(train.present[:, train.names.index(name)])
        std = train.rows(name, rows).std(0)
        std = std if std.ndim == 1 else np.sqrt((std * std).mean())
        return cls(unit_of(sensor), sensor, np.maximum(std, LEAST_STD * std.max()))


def unit_of(sensor: Array) -> str:
    """Name of the unit: without a scale, the model's array is what is measured."""
    return '0..1' if (sensor == 1).all() else 'sensor unit'


def root_mean_square(values: Array) -> float:
    """Over all elements."""
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def measure_outages(
    methods: Sequence[Method], dataset: Dataset, scales: Mapping[str, Scale], title: str = ''
) -> Iterator[OutageRow]:
    """
    Let every method fill in for every target, for each subset and age.

    :param methods: fitted.
    :param title: what the progress bar says.
    """
    wanted = outage_subsets(dataset.names)
    for target, observed in tqdm(wanted, desc=f'outages, {title}', unit='subset', leave=False):
        drawn = [draw_outage(dataset, target, observed, age) for age in AGES_S]
        outages = [outage for outage in drawn if outage is not None]
        if not outages:
            continue
        first = draw_outage(dataset, target, observed, tick_s(dataset))
        for method in methods:
            jump = None
            if is_ours(method.name) and first is not None:
                jump = measure_jump(method, dataset, first, scales[target])
            for outage in outages:
                yield measure_cell(method, dataset, outage, scales[target], jump)


def measure_cell(
    method: Method, dataset: Dataset, outage: Outage, scale: Scale, jump: float | None
) -> OutageRow:
    """Error of one method in one cell."""
    query = (dataset, outage.target, outage.observed, outage.lost, outage.now)
    truth = dataset.rows(outage.target, outage.now)
    coverage = exact = None
    if isinstance(method, HasIntervals):
        value, half_width = method.interval(*query)
        error = value - truth
        coverage = float((np.abs(error) <= half_width).mean())
        exact = float((np.abs(error) <= LEAST_ERROR * scale.std).mean())
    else:
        error = method.predict(*query) - truth
    return OutageRow(
        target=outage.target,
        observed=outage.observed,
        age_s=outage.age_s,
        method=method.name,
        error=root_mean_square(error * scale.sensor),
        unit=scale.unit,
        error_std=root_mean_square(error / np.maximum(scale.std, NOTHING)),
        n=len(outage.now),
        coverage90=coverage,
        exact=exact,
        jump=jump,
    )


def measure_jump(method: Method, dataset: Dataset, outage: Outage, scale: Scale) -> float | None:
    """Change in the first tick without the sensor, in parts of what it really was."""
    lost, truth = (dataset.rows(outage.target, rows) for rows in (outage.lost, outage.now))
    usual = root_mean_square((truth - lost) * scale.sensor)
    if usual <= NOTHING:
        return None
    filled = method.predict(dataset, outage.target, outage.observed, outage.lost, outage.now)
    return root_mean_square((filled - lost) * scale.sensor) / usual


def summary(judgement: Judgement, method: str = OURS) -> list[dict[str, Any]]:
    """
    Sum up the ratios to the best baseline: per number of sensors lost, and over all.

    :returns: ``lost`` (``one``, ``two``, ``all but one``), ``cells``, ``geometric_mean``,
        ``worst``, its cell, and ``within``, the share of cells at most 3 % worse.
    """
    names = modalities_of((*judgement.validation, *judgement.test))
    groups: dict[str, dict[Cell, float]] = {}
    for cell, ratio in judgement.ratios(method).items():
        groups.setdefault(lost_of(cell, len(names)), {})[cell] = ratio
    return [_summed(lost, ratios) for lost, ratios in groups.items()]


def modalities_of(rows: Iterable[OutageRow]) -> list[str]:
    """Names of all modalities that the rows are about."""
    return list(dict.fromkeys(name for row in rows for name in (row.target, *row.observed)))


def most_observed(rows: Iterable[OutageRow]) -> list[OutageRow]:
    """Of every target the rows with the most other modalities at work."""
    widest: dict[str, tuple[str, ...]] = {}
    known = list(rows)
    for row in known:
        if len(row.observed) > len(widest.get(row.target, ())):
            widest[row.target] = row.observed
    return [row for row in known if row.observed == widest.get(row.target)]


def lost_of(cell: Cell, modalities: int) -> str:
    """How many sensors a cell lacks, in words."""
    lost = modalities - len(cell.observed)
    return {1: 'one', 2: 'two'}.get(lost, 'all but one')


def _summed(lost: str, ratios: Mapping[Cell, float]) -> dict[str, Any]:
    values = np.array(list(ratios.values()))
    worst = max(ratios, key=lambda cell: ratios[cell])
    return {
        'lost': lost,
        'cells': len(values),
        'geometric_mean': float(np.exp(np.log(values).mean())),
        'worst': float(values.max()),
        'worst_cell': worst._asdict(),
        'within': float((values <= WITHIN).mean()),
    }


def plain_rows(judgement: Judgement, **more: Any) -> list[dict[str, Any]]:
    """
    Test rows for machines, each with the ``validation_error`` of its cell and method.

    :param more: what each row says besides, such as the recording and the seed.
    """
    chosen = by_cell(judgement.validation)
    rows = []
    for row in judgement.test:
        plain = {**more, **{k: v for k, v in asdict(row).items() if v is not None}}
        known = chosen.get(row.cell, {}).get(row.method)
        if known is not None:
            plain['validation_error'] = known
        rows.append({k: _short(v) for k, v in plain.items()})
    return rows


def _short(value: Any) -> Any:
    """Six digits of a number say enough."""
    return float(f'{value:.6g}') if isinstance(value, float) else value


def from_rows(rows: Iterable[Mapping[str, Any]]) -> Judgement:
    """Judgement that :func:`plain_rows` told; what else the rows say is left out."""
    known = {field.name for field in fields(OutageRow)}
    test, validation = [], []
    for plain in rows:
        row = OutageRow(**{k: v for k, v in plain.items() if k in known})
        row = replace(row, observed=tuple(row.observed))
        test.append(row)
        if 'validation_error' in plain:
            error = plain['validation_error']
            unit = row.error_std / row.error if row.error > NOTHING else 0.0
            validation.append(replace(row, error=error, error_std=error * unit))
    return Judgement(tuple(validation), tuple(test))
