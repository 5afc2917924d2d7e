"""Run a table: train what is shared and the models, gather what was measured."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from tqdm import tqdm

from mm_perception.lab.tables.table import Table, TableOptions
from mm_perception.lab.tables.trial import Trial, plan_trials
from mm_perception.training.run import begin_worker

Call = Callable[[], None]


@dataclass(frozen=True)
class Results:
    """
    A table that has been run.

    :param found: what each trial found, in the order of ``trials``.
    :param accuracy: of the classifiers on the real data that models are measured on, by dataset
        and modality.
    :param seconds: of this run alone.
    """

    table: Table
    options: TableOptions
    trials: tuple[Trial, ...]
    found: tuple[Mapping[str, Any], ...]
    accuracy: Mapping[str, Mapping[str, float]]
    seconds: float

    def names(self, dataset: str) -> tuple[str, ...]:
        """Modalities of a dataset."""
        return next(t.evaluators.model.names for t in self.trials if t.dataset == dataset)


def run_table(table: Table, options: TableOptions, command: str) -> Results:
    """
    Train and measure all that a table lacks, and gather all of it.

    What has rows is not run again; what is half trained goes on from its checkpoint.

    :param command: as typed, for the model cards.
    :raises ConfigError: if a configuration does not fit, or a folder holds other models.
    :raises DataError: if a dataset or the table's split of it is missing.
    """
    began = time.monotonic()
    trials = plan_trials(table, options, command)
    waiting = [trial for trial in trials if trial.found() is None]
    _side_by_side(_preparations(waiting), options, 'evaluators and autoencoders')
    _side_by_side({trial.folder.name: trial.run for trial in waiting}, options, table.name)
    found = tuple(found for trial in trials if (found := trial.found()) is not None)
    first = {trial.dataset: trial for trial in reversed(trials)}
    accuracy = {dataset: first[dataset].classifier_accuracy() for dataset in table.datasets}
    return Results(table, options, trials, found, accuracy, time.monotonic() - began)


def _preparations(trials: Sequence[Trial]) -> dict[str, Call]:
    calls: dict[str, Call] = {}
    for trial in trials:
        calls.setdefault(f'evaluators of {trial.dataset}', trial.fit_evaluators)
        for name, folder in trial.unimodal.items():
            calls.setdefault(folder.name, partial(trial.fit_shared, name))
    return calls


def _side_by_side(calls: Mapping[str, Call], options: TableOptions, title: str) -> None:
    """Make calls in processes of their own (or here, for one job), with a progress bar."""
    jobs = min(options.jobs, len(calls))
    with tqdm(total=len(calls), desc=title, unit='job', disable=options.quiet) as bar:
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
