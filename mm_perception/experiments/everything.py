"""All metrics of one bundle on the test sets of a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mm_perception.bundle import Bundle
from mm_perception.data.dataset import Dataset, load_dataset, splits
from mm_perception.evaluation.calibration import (
    measure_latent_calibration,
    measure_novelty,
    measure_reconstruction_calibration,
    measure_uncertainty,
)
from mm_perception.evaluation.frechet import measure_frechet
from mm_perception.evaluation.generation import subsets
from mm_perception.evaluation.labels import label_indices
from mm_perception.evaluation.probe import measure_probe
from mm_perception.evaluation.reconstruction import measure_reconstruction
from mm_perception.evaluation.rows import Row
from mm_perception.experiments.contradictions import (
    METRICS,
    contradiction_tables,
    measure_contradictions,
)
from mm_perception.experiments.data import take
from mm_perception.inference.build import reference_engine
from mm_perception.spec import StageSpec, TrainingSpec
from mm_perception.training.feature_stage import train_features

KNOWN, NOVELTY = 'test', 'auroc'
FEATURE_ROWS = 20_000
FEATURE_STAGE = StageSpec(epochs=4)
PROBE_ROWS = 5_000


@dataclass(frozen=True)
class Evaluation:
    """
    What a bundle is measured with.

    :param work: folder that keeps the feature encoders.
    :param estimator: ``mean`` or ``sample`` of the latents.
    """

    bundle: Bundle
    dataset: Path
    work: Path
    device: str = 'cpu'
    estimator: str = 'mean'
    seed: int = 0


def measure_everything(evaluation: Evaluation) -> dict[str, list[Row]]:
    """
    Measure Frechet distance, probe, calibration, reconstruction error and contradictions.

    Of every split the rows are used in which every modality was recorded.

    On every other test split, the rows ``auroc`` say whether the published std is larger there
    than on ``test``.

    The feature encoders of the Frechet distance and the probes learn from rows of the training
    split; metrics that need labels are left out where the dataset has none.

    :returns: rows by split.
    """
    bundle = evaluation.bundle
    training = load_dataset(evaluation.dataset, 'train').complete()
    labelled = label_indices(training, bundle.spec) is not None
    rows = {}
    names = [name for name in splits(evaluation.dataset) if name.startswith(KNOWN)]
    found = {name: load_dataset(evaluation.dataset, name).complete() for name in names}
    tests = {name: test for name, test in found.items() if len(test)}
    for split, test in tests.items():
        rows[split] = _without_labels(evaluation, test)
        if split != KNOWN and KNOWN in tests:
            engine = reference_engine(evaluation.bundle, evaluation.device)
            rows[split] += measure_novelty(engine, tests[KNOWN], test, subsets(test.names))
        if labelled:
            rows[split] += _with_labels(evaluation, training, test)
    return rows


def metric_table(split: str, rows: Sequence[Row]) -> list[str]:
    """Lines of a Markdown table: metrics by target and number of observed modalities."""
    novelty = [row for row in rows if row.metric == NOVELTY]
    contradictions = contradiction_tables(split, rows)
    rows = [row for row in rows if row.metric not in (NOVELTY, *METRICS)]
    sizes = sorted({len(row.observed) for row in rows})
    lines = [
        f'## Other metrics on `{split}` ({max(row.n for row in rows):,} samples)',
        '',
        'By the number of modalities observed, averaged over the subsets.',
        '',
        f'| metric | target | {" | ".join(map(str, sizes))} |',
        '|---' * (len(sizes) + 2) + '|',
    ]
    for metric, target in dict.fromkeys((row.metric, row.target) for row in rows):
        chosen = [row for row in rows if (row.metric, row.target) == (metric, target)]
        cells = [_mean(row.value for row in chosen if len(row.observed) == size) for size in sizes]
        lines.append(f'| {metric} | {target} | {" | ".join(cells)} |')
    lines += _novelty_table(split, novelty) if novelty else []
    return [*lines, *contradictions]


def _novelty_table(split: str, rows: Sequence[Row]) -> list[str]:
    return [
        '',
        f'Is the std larger on `{split}` than on `{KNOWN}`? AUROC: 0.5 no, 1 always; n counts the'
        ' distinct data of both.',
        '',
        '| observed | AUROC | n |',
        '|---|---|---|',
        *(f'| {", ".join(row.observed)} | {row.value:.3f} | {row.n:,} |' for row in rows),
    ]


def _without_labels(evaluation: Evaluation, test: Dataset) -> list[Row]:
    engine = reference_engine(evaluation.bundle, evaluation.device)
    observed = subsets(test.names)
    how = (evaluation.estimator, evaluation.seed)
    return [
        *measure_reconstruction(engine, test, evaluation.bundle.spec, observed, *how),
        *measure_latent_calibration(engine, test, observed[:-1], seed=evaluation.seed),
        *measure_uncertainty(engine, test, observed),
        *measure_reconstruction_calibration(engine, test, observed, seed=evaluation.seed),
        *measure_contradictions(engine, evaluation.bundle, test, evaluation.seed),
    ]


def _with_labels(evaluation: Evaluation, training: Dataset, test: Dataset) -> list[Row]:
    bundle, how = evaluation.bundle, (evaluation.estimator, evaluation.seed)
    engine = reference_engine(bundle, evaluation.device)
    labels = label_indices(test, bundle.spec)
    known = take(training, training.names, min(PROBE_ROWS, len(training)))
    known_labels = label_indices(known, bundle.spec)
    assert labels is not None and known_labels is not None  # the caller has looked
    judge = TrainingSpec('features', evaluation.dataset.as_posix(), bundle.spec, FEATURE_STAGE)
    part = take(training, training.names, min(FEATURE_ROWS, len(training)))
    features = train_features(judge, part, evaluation.work, evaluation.device, FEATURE_STAGE)
    observed = subsets(test.names)
    return [
        *measure_frechet(engine, test, labels, features, observed[:-1], *how),
        *measure_probe(engine, known, known_labels, test, labels, observed, *how),
    ]


def _mean(values: Iterable[float]) -> str:
    known = list(values)
    return f'{np.mean(known):.4g}' if known else ''
