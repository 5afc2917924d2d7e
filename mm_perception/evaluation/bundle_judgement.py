"""The judgement of one bundle: what it fills in, and what its latent tells, in words and rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mm_perception.bundle import Bundle
from mm_perception.data.dataset import Dataset, load_dataset
from mm_perception.engines.build import reference_engine
from mm_perception.engines.engine import Engine
from mm_perception.errors import DataError
from mm_perception.evaluation.generation import encode_all, presence
from mm_perception.evaluation.judgement import (
    Judgement,
    from_rows,
    judge,
    modalities_of,
    plain_rows,
    summary,
)
from mm_perception.evaluation.judgement_report import judgement_report
from mm_perception.evaluation.outages import Method
from mm_perception.evaluation.recall import OURS, recalls
from mm_perception.evaluation.state_probe import StateRow, measure_state, state_table
from mm_perception.modalities.base import Array

FILE, PICTURE = 'judgement.json', 'judgement.png'
"""Beside the model card."""


class ModelAlone:
    """Generate the lost modality from what the observed ones show now; nothing is remembered."""

    name = f'{OURS}:no_memory'

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kept: tuple[Dataset, dict[str, Array]] | None = None

    def fit(self, dataset: Dataset) -> None:
        """Learn nothing: the model is trained."""

    def predict(
        self,
        dataset: Dataset,
        target: str,
        observed: tuple[str, ...],
        lost: np.ndarray,
        now: np.ndarray,
    ) -> Array:
        """Fuse the observed modalities of ``now``, and decode the target."""
        if self._kept is None or self._kept[0] is not dataset:
            self._kept = dataset, encode_all(self._engine, dataset)
        codes = {name: code[now] for name, code in self._kept[1].items()}
        present = np.repeat(presence(dataset.names, observed)[None], len(now), axis=0)
        mean, _ = self._engine.fuse(codes, present)
        return self._engine.decode(target, mean)


def our_methods(bundle: Bundle, engine: Engine) -> list[Method]:
    """Ways in which a bundle fills in for a lost sensor."""
    return [*recalls(bundle, engine), ModelAlone(engine)]


@dataclass(frozen=True)
class BundleJudgement:
    """
    All figures of one bundle on recordings.

    :param state: empty where no modality is a vector.
    """

    outages: Judgement
    state: tuple[StateRow, ...]

    def lines(self) -> list[str]:
        """Markdown for the model card."""
        names = modalities_of((*self.outages.validation, *self.outages.test))
        state = ['', *state_table(self.state, names)] if self.state else []
        return [*judgement_report(self.outages), *state]

    def plain(self, **more: Any) -> dict[str, Any]:
        """
        All of it for machines: ``rows``, sums, probes.

        :param more: what each row says besides.
        """
        methods = dict.fromkeys(row.method for row in self.outages.test)
        return {
            'rows': plain_rows(self.outages, **more),
            'summary': {method: summary(self.outages, method) for method in methods},
            'not_worth': [
                {'target': target, 'observed': observed}
                for target, observed in self.outages.not_worth()
            ],
            'state': [{**more, **vars(row)} for row in self.state],
        }


def save_judgement(judgement: BundleJudgement | None, folder: Path, **more: Any) -> None:
    """
    Write it beside the model card of a bundle; one of before goes.

    :param more: what each row says besides, such as the recording and the seed.
    """
    if judgement is None:
        (folder / FILE).unlink(missing_ok=True)
    else:
        (folder / FILE).write_text(json.dumps(judgement.plain(**more)) + '\n')


def read_judgement(file: Path, dataset: Path) -> Judgement:
    """
    Read the rows of a ``judgement.json``.

    :raises DataError: if it is none, or of another dataset.
    """
    try:
        rows = json.loads(file.read_text())['rows']
        other = {row['recording'] for row in rows} - {dataset.name}
        found = from_rows(rows)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f'{file}: no judgement of a bundle ({error})') from error
    if other:
        raise DataError(f'{file}: judges {", ".join(sorted(other))}, not {dataset.name}')
    return found


def judge_bundle(
    bundle: Bundle, dataset: Path, device: str, known: Judgement | None = None
) -> BundleJudgement | None:
    """
    Judge a bundle on recordings.

    :param dataset: folder of the dataset.
    :param known: judgement of another bundle of that dataset, to take baselines from.
    :returns: None if the dataset tells no time, or lacks one of its splits.
    """
    engine = reference_engine(bundle, device)
    outages = judge(our_methods(bundle, engine), bundle.spec, dataset, known)
    if outages is None:
        return None
    train, test = (load_dataset(dataset, split) for split in ('train', 'test'))
    state = measure_state(engine, train, test, probed_subsets(test.names))
    return BundleJudgement(outages, tuple(state))


def probed_subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """All modalities, and all but one."""
    rest = [tuple(other for other in names if other != name) for name in names]
    return [tuple(names), *(subset for subset in rest if subset)]
