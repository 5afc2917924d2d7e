"""A table of a paper as data, and the training that each of its models needs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mm_perception.config import from_plain, read_yaml
from mm_perception.errors import ConfigError
from mm_perception.evaluation.generation import Row
from mm_perception.resources import share_directory
from mm_perception.spec import ESTIMATORS, StageSpec, TrainingSpec

OTHERS, OWN, ALL = 'others', 'own', 'all'


@dataclass(frozen=True)
class Scale:
    """
    A budget.

    :param seeds: runs per variant.
    :param minutes: how long it takes on two CPU cores; 0 where that was not measured.
    :param rows: training rows, drawn at random; 0 for all.
    :param test_rows: rows to measure on, drawn at random; 0 for all.
    :param evaluator_rows: rows that the evaluators (classifiers, feature encoders) learn from; 0
        for all.
    :param evaluator_epochs: how long they learn.
    :param samples: importance samples per test row.
    :param changes: to every training configuration.
    """

    seeds: int
    minutes: float = 0.0
    rows: int = 0
    test_rows: int = 0
    evaluator_rows: int = 0
    evaluator_epochs: int = 10
    samples: int = 100
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DatasetEntry:
    """
    A dataset of a table.

    :param config: training configuration, relative to ``config/``, that variants change.
    :param changes: to that configuration.
    :param scales: changes at some scale, by its name.
    """

    config: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    scales: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Variant:
    """
    A line of a table.

    :param changes: to the configuration of the dataset.
    :param config: configuration to start from instead of the dataset's.
    :param bundle: a trained bundle to measure as it is; nothing is trained then.
    :param x: where the variant stands on the axis of a curve.
    :param scales: changes at some scale, by its name.
    """

    title: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    config: str = ''
    bundle: str = ''
    x: float = 0.0
    scales: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Column:
    """
    A figure per variant: the mean of some rows.

    :param metric: key of the registry of measures.
    :param given: what is observed: ``others`` (any but the target), ``own`` (the target
        alone), ``all``, or names separated by commas.
    :param count: how many modalities are observed; 0 for any number.
    :param targets: what is generated; empty for any.
    :param estimator: how data are generated; by default as the Nexus authors evaluate.
    :param factor: 100 for per cent.
    """

    title: str
    metric: str
    given: str = OTHERS
    count: int = 0
    targets: tuple[str, ...] = ()
    estimator: str = 'sample'
    factor: float = 1.0
    digits: int = 1

    def asks(self, target: str, observed: Collection[str], names: Collection[str]) -> bool:
        """
        Whether the column is about one target given some observed modalities.

        :param names: all modalities.
        """
        if self.targets and target not in self.targets:
            return False
        if self.count and len(observed) != self.count:
            return False
        if self.given == OTHERS:
            return target not in observed
        exact = {OWN: {target}, ALL: set(names)}.get(self.given, set(self.given.split(',')))
        return set(observed) == exact

    def holds(self, row: Row, names: Collection[str]) -> bool:
        """Whether a measured row counts into the column."""
        # Likelihoods are estimated in a way of their own, which no column names.
        estimated_so = row.estimator == self.estimator or row.estimator not in ESTIMATORS
        asked = self.asks(row.target, row.observed, names)
        return row.metric == self.metric and estimated_so and asked


@dataclass(frozen=True)
class Table:
    """
    All of a table.

    :param name: that of its file.
    :param source: where the table stands.
    :param split: of the datasets, that the models are measured on: ``test`` or ``validation``.
    :param by_target: a line per variant and target, not only per variant; a grid per metric.
    :param by_metric: a grid per metric, also where the table is not by target.
    :param curve: what ``x`` of the variants is, for a picture; empty for no curve.
    :param notes: sentences on what differs from the paper.
    :param pictures: keys of the registry of pictures.
    :param paper: what the paper reports: dataset, variant, target (``-`` where the table is
        not by target), column: mean and spread.
    """

    title: str
    source: str
    datasets: Mapping[str, DatasetEntry]
    variants: Mapping[str, Variant]
    columns: Mapping[str, Column]
    scales: Mapping[str, Scale]
    name: str = ''
    split: str = 'test'
    by_target: bool = False
    by_metric: bool = False
    curve: str = ''
    notes: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()
    paper: Mapping[str, Mapping[str, Mapping[str, Mapping[str, tuple[float, ...]]]]] = field(
        default_factory=dict
    )

    def scale(self, name: str) -> Scale:
        """
        Find a budget.

        :raises ConfigError: if there is none of that name.
        """
        if name not in self.scales:
            known = ', '.join(self.scales)
            raise ConfigError(f'table {self.name} has no scale "{name}"; it has: {known}')
        return self.scales[name]


def known_tables() -> dict[str, Path]:
    """Files of all tables by name."""
    files = (share_directory() / 'config' / 'tables').glob('*.yaml')
    return {file.stem: file for file in sorted(files)}


def load_table(name: str) -> Table:
    """
    Read a table.

    :param name: of a table that is known, or a YAML file.
    :raises ConfigError: if there is none of that name, or it does not fit.
    """
    file = Path(name) if name.endswith('.yaml') else known_tables().get(name)
    if file is None or not file.is_file():
        raise ConfigError(f'no table "{name}"; known: {", ".join(known_tables())}')
    data = dict(read_yaml(file))
    try:
        return from_plain(Table, {'name': file.stem, **data})
    except ConfigError as error:
        raise ConfigError(f'{file}: {error}') from error


@dataclass(frozen=True)
class TableOptions:
    """
    How a table is run.

    :param seeds: instead of the scale's; 0 for those.
    :param epochs: no stage trains longer; 0 for no limit.
    :param variants: only these; empty for all.
    :param dataset: folder to use in place of that of a table with one dataset.
    :param jobs: processes side by side.
    """

    out: Path
    scale: str = 'default'
    seeds: int = 0
    epochs: int = 0
    variants: tuple[str, ...] = ()
    dataset: str = ''
    device: str = 'cpu'
    jobs: int = 1
    quiet: bool = False

    def folder(self, table: Table) -> Path:
        """Where a table's models and figures go: each scale has its own."""
        suffix = '' if self.scale == 'default' else f'-{self.scale}'
        return self.out / f'{table.name}{suffix}'


def variant_training(
    table: Table, options: TableOptions, dataset: str, variant: Variant
) -> TrainingSpec:
    """
    Training of a variant on a dataset: the configuration with all changes of a table.

    :raises ConfigError: if the configuration does not fit.
    """
    entry, scale = table.datasets[dataset], table.scale(options.scale)
    data = read_yaml(share_directory() / 'config' / (variant.config or entry.config))
    steps: Sequence[Mapping[str, Any]] = (
        entry.changes,
        scale.changes,
        entry.scales.get(options.scale, {}),
        variant.changes,
        variant.scales.get(options.scale, {}),
    )
    for changes in steps:
        data = merge(data, changes)
    try:
        spec = from_plain(TrainingSpec, data)
    except ConfigError as error:
        raise ConfigError(f'table {table.name}, variant {variant.title}: {error}') from error
    spec = replace(spec, dataset=options.dataset or spec.dataset)
    return _limited(spec, options.epochs) if options.epochs else spec


def evaluator_training(table: Table, options: TableOptions, dataset: str) -> TrainingSpec:
    """Training of the classifiers and feature encoders that evaluate the models of a dataset."""
    spec = variant_training(table, options, dataset, Variant('evaluators'))
    epochs = table.scale(options.scale).evaluator_epochs
    epochs = min(epochs, options.epochs or epochs)
    return replace(spec, seed=0, classifiers=replace(spec.classifiers, epochs=epochs))


def merge(base: Any, changes: Any) -> Any:
    """
    Change some of nested plain data.

    Mappings are merged key by key; a list of mappings with names takes a mapping from name to
    changes; None takes a key away; all else is replaced.
    """
    if not isinstance(changes, Mapping):
        return changes
    if isinstance(base, list) and all(isinstance(item, Mapping) for item in base):
        unknown = set(changes) - {item.get('name') for item in base}
        if unknown:
            raise ConfigError(f'changes name {", ".join(sorted(unknown))}, which is not there')
        return [merge(item, changes.get(item['name'], {})) for item in base]
    result = dict(base) if isinstance(base, Mapping) else {}
    for key, change in changes.items():
        result[key] = merge(result.get(key), change)
        if change is None:
            del result[key]
    return result


def _limited(spec: TrainingSpec, epochs: int) -> TrainingSpec:
    def limit(stage: StageSpec) -> StageSpec:
        return replace(
            stage,
            epochs=min(stage.epochs or epochs, epochs),
            warm_up_epochs=min(stage.warm_up_epochs, epochs),
        )

    return replace(
        spec,
        top=limit(spec.top),
        unimodal={name: limit(stage) for name, stage in spec.unimodal.items()},
        shared={name: limit(stage) for name, stage in spec.shared.items()},
        classifiers=limit(spec.classifiers),
        refinement=limit(spec.refinement),
        calibration=limit(spec.calibration),
    )
