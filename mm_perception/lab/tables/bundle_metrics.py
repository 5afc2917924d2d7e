"""All metrics of one bundle on the test sets of a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mm_perception.bundle import Bundle
from mm_perception.data.dataset import Dataset, load_dataset, splits
from mm_perception.engines.build import reference_engine
from mm_perception.engines.classifiers import load_classifiers
from mm_perception.engines.engine import Engine
from mm_perception.evaluation.calibration import (
    measure_latent_calibration,
    measure_novelty,
    measure_reconstruction_calibration,
    measure_uncertainty,
)
from mm_perception.evaluation.consistency import (
    ABSENT,
    AUROC,
    BLAMED_ANOTHER,
    EXCLUDED,
    FALSE_ALARM,
    LYING,
    MISSED,
    evidence_alone,
    make_events,
    measure_consistency,
    measure_exclusion,
)
from mm_perception.evaluation.frechet import measure_frechet
from mm_perception.evaluation.generation import Row, encode_all, label_indices, subsets
from mm_perception.evaluation.probe import measure_probe
from mm_perception.evaluation.reconstruction import measure_reconstruction
from mm_perception.fusion.consistency import ConsistencyCheck
from mm_perception.lab.tables.evaluators import train_features
from mm_perception.lab.tables.runner import take
from mm_perception.spec import StageSpec, TrainingSpec

RECORDED = 'recorded'
FOUND = (MISSED, BLAMED_ANOTHER, FALSE_ALARM, AUROC)
METRICS = (*FOUND, ABSENT, LYING, EXCLUDED)


def measure_contradictions(
    engine: Engine, bundle: Bundle, dataset: Dataset, seed: int = 0
) -> list[Row]:
    """
    Measure how a bundle judges sensors, and what is generated when one lies.

    :returns: nothing for a bundle that is not calibrated for it; of what is generated only with
        classifiers and labels.
    """
    if bundle.health is None:
        return []
    check = ConsistencyCheck(engine, bundle.spec, bundle.health)
    evidence = evidence_alone(engine, check, encode_all(engine, dataset))
    rows = measure_consistency(check, evidence, make_events(dataset, bundle.spec), seed=seed)
    labels = label_indices(dataset, bundle.spec)
    if labels is not None and bundle.classifiers:
        classifiers = load_classifiers(bundle)
        rows += measure_exclusion(engine, check, dataset, labels, classifiers, seed)
    return rows


def contradiction_tables(split: str, rows: Sequence[Row]) -> list[str]:
    """Lines of Markdown: what is found, and the coherence with a sensor that lies."""
    mine = [row for row in rows if row.metric in METRICS]
    found = [row for row in mine if row.metric in FOUND]
    if not found:
        return []
    sizes = sorted({len(row.observed) for row in found})
    pairings = len({row.estimator for row in found} - {RECORDED})
    events = max(row.n for row in found if row.metric == FALSE_ALARM)
    lines = [
        '',
        f'### Contradictions on `{split}` ({events:,} events of each kind and pairing)',
        '',
        f'In %: mean over {pairings} random pairings and the subsets, in brackets the lowest and'
        ' highest pairing; by the number of modalities present.',
        '',
        f'| what | modality | {" | ".join(map(str, sizes))} |',
        '|---' * (len(sizes) + 2) + '|',
    ]
    paired = [row for row in found if row.estimator != RECORDED]
    for metric in FOUND:
        part = [row for row in paired if row.metric == metric]
        targets = dict.fromkeys(row.target for row in part)
        for target in targets:
            lines.append(_line(metric, target, [r for r in part if r.target == target], sizes))
        if len(targets) > 1:
            lines.append(_line(metric, 'mean', part, sizes))
    recorded = [row for row in found if row.estimator == RECORDED]
    lines.append(_line(f'{FALSE_ALARM}, as recorded', 'latent', recorded, sizes))
    return [*lines, *_lies_table(mine)]


def _line(metric: str, target: str, rows: Sequence[Row], sizes: Iterable[int]) -> str:
    cells = []
    for size in sizes:
        part = [row for row in rows if len(row.observed) == size]
        by_pairing = [
            float(np.mean([row.value for row in part if row.estimator == pairing]))
            for pairing in dict.fromkeys(row.estimator for row in part)
        ]
        cells.append(_spread(by_pairing))
    return f'| {metric} | {target} | {" | ".join(cells)} |'


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ''
    mean = f'{100 * np.mean(values):.2f}'
    if len(values) == 1:
        return mean
    return f'{mean} ({100 * min(values):.2f} to {100 * max(values):.2f})'


def _lies_table(rows: Sequence[Row]) -> list[str]:
    kinds = (ABSENT, LYING, EXCLUDED)
    lies = [row for row in rows if row.metric in kinds]
    if not lies:
        return []
    lines = [
        '',
        'Coherence in % of what is generated for sensors that are absent or lie, by which lies:'
        f' left out, fused, and left out where it is blamed ({max(row.n for row in lies):,}'
        ' events per case).',
        '',
        '| present | lies | absent | lying, fused | lying, excluded | below absent |',
        '|---|---|---|---|---|---|',
    ]
    cases = sorted({(len(row.observed), row.estimator) for row in lies})
    for size, liar in [*cases, *((size, '') for size in sorted({s for s, _ in cases}))]:
        part = [r for r in lies if len(r.observed) == size and liar in (r.estimator, '')]
        absent, fused, excluded = (
            100 * np.mean([row.value for row in part if row.metric == kind]) for kind in kinds
        )
        name = liar.removesuffix(' lies') or 'mean'
        lines.append(
            f'| {size} | {name} | {absent:.1f} | {fused:.1f} | {excluded:.1f}'
            f' | {absent - excluded:.1f} |'
        )
    return lines


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
