"""Run a table: prepare data, train what is shared and the models, gather rows."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mm_perception.config import to_plain
from mm_perception.data.dataset import (
    MANIFEST,
    Dataset,
    complete_folder,
    load_dataset,
    save_dataset,
    splits,
)
from mm_perception.errors import DataError
from mm_perception.lab.tables.table import Plan, RunSettings, Table, Unit, digest, make_plan
from mm_perception.lab.tables.trial import Job, fit_shared, judges_of, read_rows, run_job
from mm_perception.spec import TrainingSpec
from mm_perception.training.run import begin_worker

SPLITS = ('train', 'validation', 'test')


def prepare_data(
    source: Path, names: Sequence[str], rows: int, test_rows: int, split: str, shared: Path
) -> tuple[Path, str]:
    """
    Write some modalities and rows of a dataset's splits for training and testing to a folder.

    The folder is named after the content, so that another dataset never takes its place.

    :param names: the modalities to keep, in their order.
    :param rows: how many training rows to keep, drawn at random; 0 for all.
    :param test_rows: how many rows of the other splits.
    :param split: what is measured on, kept besides those for training, validation and test.
    :param shared: where prepared datasets lie.
    :returns: the folder and the hash that names it.
    :raises DataError: if the dataset lacks a modality or is no dataset.
    """
    known = [name for name in dict.fromkeys((*SPLITS, split)) if name in splits(source)]
    content = [_hash(source, name) for name in known]
    key = digest([content, list(names), rows, test_rows])
    folder = shared / 'data' / f'{source.name}-{key}'
    if not (folder / MANIFEST).is_file():
        with complete_folder(folder, MANIFEST) as scratch:
            for name in known:
                count = rows if name == 'train' else test_rows
                part = take(load_dataset(source, name), names, count)
                save_dataset(scratch, name, part)
    return folder, key


def take(dataset: Dataset, names: Sequence[str], count: int) -> Dataset:
    """
    Some modalities and some rows, with the unique values that they show.

    :param count: number of rows, drawn at random; 0 for all.
    :raises DataError: if the dataset lacks a modality.
    """
    missing = set(names) - set(dataset.names)
    if missing:
        raise DataError(
            f'the dataset has no modality {", ".join(sorted(missing))};'
            f' it has: {", ".join(dataset.names)}'
        )
    order = np.random.default_rng(0).permutation(len(dataset))
    chosen = dataset.subset(np.sort(order[: count or len(dataset)]))
    values, index = {}, {}
    for name in names:
        used, index[name] = np.unique(chosen.index[name], return_inverse=True)
        values[name] = chosen.values[name][used]
    columns = [dataset.names.index(name) for name in names]
    return replace(
        chosen,
        names=tuple(names),
        values=values,
        index=index,
        present=chosen.present[:, columns],
    )


def _hash(source: Path, split: str) -> str:
    file = source / f'{split}.safetensors'
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(
            f'{file}: cannot be read ({error.strerror}); run mm-perception build-data, or name'
            ' the dataset with --dataset'
        ) from error


Call = Callable[[], Any]


@dataclass(frozen=True)
class Outcome:
    """
    A table that has been run.

    :param found: what each job found, in the order of ``jobs``.
    :param judged: accuracy of the classifiers on the real data that models are measured on, by
        dataset and modality.
    :param seconds: of this run alone.
    """

    plan: Plan
    jobs: tuple[Job, ...]
    found: tuple[Mapping[str, Any], ...]
    judged: Mapping[str, Mapping[str, float]]
    seconds: float


def run_table(table: Table, settings: RunSettings, command: str) -> Outcome:
    """
    Train and measure all that a table lacks, and gather all of it.

    What has rows is not run again; what is half trained goes on from its checkpoint.

    :param command: as typed, for the model cards.
    :raises ConfigError: if a configuration does not fit, or a folder holds other models.
    :raises DataError: if a dataset or the table's split of it is missing.
    """
    began = time.monotonic()
    plan = make_plan(table, settings)
    jobs = _jobs(plan, command)
    waiting = [job for job in jobs if read_rows(job) is None]
    _side_by_side(_preparations(waiting), settings, 'judges and autoencoders')
    _side_by_side({_label(job): partial(run_job, job) for job in waiting}, settings, table.name)
    found = [read_rows(job) for job in jobs]
    judged = {}
    for job in jobs:
        if job.unit.dataset not in judged:
            judged[job.unit.dataset] = judges_of(job).accuracy
    return Outcome(
        plan,
        jobs,
        tuple(f for f in found if f is not None),
        judged,
        time.monotonic() - began,
    )


def _jobs(plan: Plan, command: str) -> tuple[Job, ...]:
    scale, split, jobs = plan.scale, plan.table.split, []
    for dataset, spec in plan.judges.items():
        source, names = Path(spec.dataset), spec.model.names
        folder, key = prepare_data(source, names, scale.rows, scale.test_rows, split, plan.shared)
        if split not in splits(folder):
            raise DataError(f'{source}: has no split "{split}"; build it again')
        judged, judged_key = prepare_data(
            source, names, scale.judge_rows, scale.test_rows, split, plan.shared
        )
        judge = replace(spec, dataset=judged.as_posix())
        judge_folder = plan.shared / 'judges' / _judge_name(dataset, spec, judged_key)
        jobs += [
            Job(
                unit=unit,
                spec=replace(unit.spec, dataset=folder.as_posix()),
                data_key=key,
                judge=judge,
                judge_folder=judge_folder,
                columns=plan.table.columns,
                split=split,
                samples=scale.samples,
                shared=plan.shared,
                device=plan.settings.device,
                quiet=plan.settings.quiet or plan.settings.jobs > 1,
                command=command,
            )
            for unit in _units_of(plan, dataset)
        ]
    return tuple(jobs)


def _units_of(plan: Plan, dataset: str) -> Iterator[Unit]:
    return (unit for unit in plan.units if unit.dataset == dataset)


def _judge_name(dataset: str, spec: TrainingSpec, data_key: str) -> str:
    parts = [spec.model.modalities, spec.unimodal, spec.classifiers]
    return f'{dataset}-{digest([to_plain(parts), spec.validation_fraction, data_key])}'


def _fit_judges(job: Job) -> None:
    judges_of(job)


def _label(job: Job) -> str:
    return job.unit.folder.name


def _preparations(jobs: Sequence[Job]) -> dict[str, Call]:
    calls: dict[str, Call] = {}
    for job in jobs:
        calls.setdefault(f'judges of {job.unit.dataset}', partial(_fit_judges, job))
        for name, folder in job.unimodal.items():
            calls.setdefault(folder.name, partial(fit_shared, job, name))
    return calls


def _side_by_side(calls: Mapping[str, Call], settings: RunSettings, title: str) -> None:
    """Make calls in processes of their own (or here, for one job), with a progress bar."""
    jobs = min(settings.jobs, len(calls))
    bar = tqdm(total=len(calls), desc=title, unit='job', disable=settings.quiet)
    with bar:
        if jobs <= 1:
            for name, call in calls.items():
                bar.set_postfix_str(name)
                call()
                bar.update()
            return
        with _processes(jobs) as pool:
            running = {pool.submit(call): name for name, call in calls.items()}
            for future in as_completed(running):
                future.result()
                bar.set_postfix_str(f'{running[future]} done')
                bar.update()


@contextmanager
def _processes(jobs: int) -> Iterator[ProcessPoolExecutor]:
    os.environ.setdefault('TQDM_DISABLE', '1')  # of the processes: their bars would overlap
    context = multiprocessing.get_context('spawn')
    pool = ProcessPoolExecutor(jobs, context, begin_worker, (1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
