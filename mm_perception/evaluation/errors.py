"""How well each modality is given back and filled in: a figure that needs no labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mm_perception.data.dataset import Dataset
from mm_perception.engines.engine import Engine
from mm_perception.evaluation.generation import encode_all, fuse_all, presence
from mm_perception.markdown import markdown_table
from mm_perception.modalities.base import Array

ROWS = 2000
"""Most rows that are measured, spread over the dataset."""
SAMPLE = 5000
LEAST_STD = 1e-4
"""Elements whose std over the training set is below this are constant, and left out."""


def training_scale(dataset: Dataset, name: str) -> tuple[Array, Array]:
    """
    Mean and standard deviation of each element of a modality over the training set.

    Of arrays such as images all elements have one standard deviation, the root of the mean
    variance: a pixel that hardly ever changes is not what tells most.
    """
    values = dataset.unique(name, np.arange(len(dataset.values[name]))[-SAMPLE:])
    std = values.std(0)
    pooled = std if std.ndim == 1 else np.full_like(std, np.sqrt(np.square(std).mean()))
    return values.mean(0), pooled


def measure_errors(engine: Engine, train: Dataset, dataset: Dataset) -> list[dict[str, Any]]:
    """
    Compare what is given back and filled in with the data of each row.

    Each modality is generated from all, from each single other, and from all others.

    :param train: whose mean and standard deviations are the measure.
    :returns: per target and subset: ``target``, ``observed``, ``n`` (rows that have all of
        these), ``error`` (root of the mean square, in standard deviations of the training set,
        over all elements that change) and ``mean`` (the same of the training set's mean).
    """
    rows = np.unique(np.linspace(0, len(dataset) - 1, ROWS).astype(int))
    dataset = dataset.subset(rows)
    codes = encode_all(engine, dataset)
    scales = {name: training_scale(train, name) for name in dataset.names}
    found = []
    for observed, targets in _wanted(dataset.names):
        mask = presence(dataset.names, observed)
        for target in targets:
            known = dataset.present[:, mask | presence(dataset.names, (target,))].all(1)
            shown = np.flatnonzero(known)
            if not len(shown):
                continue
            part = {name: code[shown] for name, code in codes.items()}
            made = engine.decode(target, fuse_all(engine, part, mask)[0])
            mean, std = scales[target]
            truth, moving = dataset.rows(target, shown), std > LEAST_STD
            entry = {'target': target, 'observed': list(observed), 'n': len(shown)}
            for key, guess in (('error', made), ('mean', mean[None])):
                difference = ((guess - truth) / np.where(moving, std, 1.0))[:, moving]
                entry[key] = round(float(np.sqrt(np.square(difference).mean())), 4)
            found.append(entry)
    return found


def _wanted(names: Sequence[str]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Subsets to observe, each with what to generate from it."""
    yield tuple(names), tuple(names)
    for name in names:
        others = tuple(n for n in names if n != name)
        if others:
            yield others, (name,)
    if len(names) > 2:
        for name in names:
            yield (name,), tuple(n for n in names if n != name)


def errors_table(split: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of a Markdown table of :func:`measure_errors`: a target per line."""
    names = list(dict.fromkeys(row['target'] for row in rows))
    cells = {(row['target'], tuple(sorted(row['observed']))): row for row in rows}

    def cell(target: str, observed: Sequence[str]) -> str:
        row = cells.get((target, tuple(sorted(observed))))
        return f'{row["error"]:.2f}' if row else '-'

    lines = []
    for name in names:
        others = [n for n in names if n != name]
        usual = max(row['mean'] for row in rows if row['target'] == name)
        single = [cell(name, (n,)) if n != name else '-' for n in names]
        lines.append([name, f'{usual:.2f}', cell(name, names), cell(name, others), *single])
    head = ['target', 'mean', 'all', 'all others', *(f'{name} alone' for name in names)]
    return [
        f'## Errors on `{split}`',
        '',
        'Root mean square error of what is generated, in standard deviations of the training'
        ' set. `mean` always guesses the mean of the training set: what is no better is not'
        ' worth using. `all`: the target is observed, too.',
        '',
        *markdown_table(head, lines),
    ]
