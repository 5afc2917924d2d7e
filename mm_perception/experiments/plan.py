"""From a table to the models that it needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mm_perception.config import from_plain, read_yaml, to_plain
from mm_perception.errors import ConfigError
from mm_perception.experiments.table import Scale, Table, Variant
from mm_perception.resources import share_directory
from mm_perception.spec import StageSpec, TrainingSpec

SHARED = 'shared'


@dataclass(frozen=True)
class Settings:
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


@dataclass(frozen=True)
class Unit:
    """
    One model to train and to measure.

    :param spec: its training, ``dataset`` being the full dataset.
    """

    dataset: str
    variant: str
    spec: TrainingSpec
    folder: Path
    bundle: str = ''

    @property
    def seed(self) -> int:
        """Of the training."""
        return self.spec.seed

    @property
    def key(self) -> str:
        """Hash of all that decides the trained model, but for the data's content."""
        return digest([to_plain(self.spec), self.bundle])


@dataclass(frozen=True)
class Plan:
    """A table with the models that it needs, and what judges them on each dataset."""

    table: Table
    scale: Scale
    settings: Settings
    units: tuple[Unit, ...]
    judges: Mapping[str, TrainingSpec]

    @property
    def folder(self) -> Path:
        """Where the table's models and figures go."""
        return table_output(self.table, self.settings)

    @property
    def shared(self) -> Path:
        """Where goes what several models or tables use."""
        return self.settings.out / SHARED


def make_plan(table: Table, settings: Settings) -> Plan:
    """
    List the models of a table.

    :raises ConfigError: if a variant is unknown or a configuration does not fit.
    """
    unknown = set(settings.variants) - set(table.variants)
    if unknown:
        raise ConfigError(
            f'table {table.name} has no variant {", ".join(sorted(unknown))};'
            f' it has: {", ".join(table.variants)}'
        )
    if settings.dataset and len(table.datasets) > 1:
        raise ConfigError(f'--dataset: table {table.name} has several datasets; leave it out')
    scale = table.scale(settings.scale)
    chosen = [n for n in table.variants if not settings.variants or n in settings.variants]
    units = [
        _unit(table, settings, dataset, name, seed)
        for dataset in table.datasets
        for seed in range(settings.seeds or scale.seeds)
        for name in chosen
        if seed == 0 or not table.variants[name].bundle
    ]
    judges = {name: _judges(table, settings, name) for name in table.datasets}
    return Plan(table, scale, settings, tuple(units), judges)


def table_output(table: Table, settings: Settings) -> Path:
    """Folder of a table's models: each scale has its own."""
    suffix = '' if settings.scale == 'default' else f'-{settings.scale}'
    return settings.out / f'{table.name}{suffix}'


def digest(value: Any) -> str:
    """Hash of plain data, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


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


def _unit(table: Table, settings: Settings, dataset: str, name: str, seed: int) -> Unit:
    variant = table.variants[name]
    prefix = f'{dataset}.' if len(table.datasets) > 1 else ''
    label = f'{prefix}{name}'
    spec = replace(_spec(table, settings, dataset, variant), name=f'{table.name}.{label}')
    folder = table_output(table, settings) / f'{label}-{seed}'
    return Unit(dataset, name, replace(spec, seed=seed), folder, variant.bundle)


def _spec(table: Table, settings: Settings, dataset: str, variant: Variant) -> TrainingSpec:
    entry, scale = table.datasets[dataset], table.scale(settings.scale)
    data = read_yaml(share_directory() / 'config' / (variant.config or entry.config))
    steps: Sequence[Mapping[str, Any]] = (
        entry.changes,
        scale.changes,
        entry.scales.get(settings.scale, {}),
        variant.changes,
        variant.scales.get(settings.scale, {}),
    )
    for changes in steps:
        data = merge(data, changes)
    try:
        spec = from_plain(TrainingSpec, data)
    except ConfigError as error:
        raise ConfigError(f'table {table.name}, variant {variant.title}: {error}') from error
    spec = replace(spec, dataset=settings.dataset or spec.dataset)
    return _limited(spec, settings.epochs) if settings.epochs else spec


def _judges(table: Table, settings: Settings, dataset: str) -> TrainingSpec:
    spec = _spec(table, settings, dataset, Variant('judges'))
    epochs = table.scale(settings.scale).judge_epochs
    epochs = min(epochs, settings.epochs or epochs)
    return replace(spec, seed=0, classifiers=replace(spec.classifiers, epochs=epochs))


def _limited(spec: TrainingSpec, epochs: int) -> TrainingSpec:
    def limit(stage: StageSpec) -> StageSpec:
        return replace(
            stage,
            epochs=min(stage.epochs, epochs),
            warm_up_epochs=min(stage.warm_up_epochs, epochs),
        )

    return replace(
        spec,
        top=limit(spec.top),
        unimodal={name: limit(stage) for name, stage in spec.unimodal.items()},
        classifiers=limit(spec.classifiers),
        refinement=limit(spec.refinement),
        calibration=limit(spec.calibration),
    )
