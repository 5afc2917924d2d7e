"""All metrics of one bundle on the test sets of a dataset, and their tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
from mm_perception.evaluation.confidence import measure_confidence
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
from mm_perception.evaluation.frechet import Encode, measure_frechet
from mm_perception.evaluation.generation import Row, encode_all, label_indices, subsets
from mm_perception.evaluation.probe import measure_probe
from mm_perception.evaluation.reconstruction import measure_reconstruction
from mm_perception.fusion.consistency import ConsistencyCheck
from mm_perception.lab.tables.data import take
from mm_perception.lab.tables.features import train_features
from mm_perception.markdown import markdown_table
from mm_perception.spec import StageSpec, TrainingSpec

RECORDED = 'recorded'
FOUND = (MISSED, BLAMED_ANOTHER, FALSE_ALARM, AUROC)
COHERENCE = (ABSENT, LYING, EXCLUDED)
KNOWN, NOVELTY = 'test', 'auroc'
FEATURE_ROWS = 20_000
FEATURE_STAGE = StageSpec(epochs=4)
PROBE_ROWS = 5_000


def measure_everything(
    bundle: Bundle, dataset: Path, work: Path, device: str, estimator: str = 'mean', seed: int = 0
) -> dict[str, list[Row]]:
    """
    Measure Frechet distance, probe, calibration, reconstruction error and contradictions.

    Of every split the rows are used in which every modality was recorded. On every other test
    split, the rows ``auroc`` say whether the published std is larger there than on ``test``.

    The feature encoders of the Frechet distance and the probes learn from rows of the training
    split; metrics that need labels are left out where the dataset has none.

    :param work: folder that keeps the feature encoders.
    :param estimator: ``mean`` or ``sample`` of the latents.
    :returns: rows by split.
    """
    engine, how = reference_engine(bundle, device), (estimator, seed)
    training = load_dataset(dataset, 'train').complete()
    names = [name for name in splits(dataset) if name.startswith(KNOWN)]
    tests = {n: test for n in names if len(test := load_dataset(dataset, n).complete())}
    rows = {}
    for split, test in tests.items():
        observed = subsets(test.names)
        rows[split] = [
            *measure_reconstruction(engine, test, bundle.spec, observed, *how),
            *measure_latent_calibration(engine, test, observed[:-1], seed=seed),
            *measure_uncertainty(engine, test, observed),
            *measure_reconstruction_calibration(engine, test, observed, seed=seed),
            *measure_contradictions(engine, bundle, test, seed),
        ]
        if split != KNOWN and KNOWN in tests:
            rows[split] += measure_novelty(engine, tests[KNOWN], test, observed)
    if label_indices(training, bundle.spec) is not None:
        spec = TrainingSpec('features', dataset.as_posix(), bundle.spec, FEATURE_STAGE)
        part = take(training, training.names, min(FEATURE_ROWS, len(training)))
        features = train_features(spec, part, work, device, FEATURE_STAGE)
        known = take(training, training.names, min(PROBE_ROWS, len(training)))
        for split, test in tests.items():
            rows[split] += _with_labels(engine, bundle, features, known, test, how)
    return rows


def _with_labels(
    engine: Engine,
    bundle: Bundle,
    features: Mapping[str, Encode],
    known: Dataset,
    test: Dataset,
    how: tuple[str, int],
) -> list[Row]:
    observed = subsets(test.names)
    labels, known_labels = (label_indices(data, bundle.spec) for data in (test, known))
    assert labels is not None and known_labels is not None  # as in the training split
    return [
        *measure_frechet(engine, test, labels, features, observed[:-1], *how),
        *measure_probe(engine, known, known_labels, test, labels, observed, *how),
        *measure_confidence(engine, bundle, test, observed),
    ]


def measure_contradictions(
    engine: Engine, bundle: Bundle, dataset: Dataset, seed: int = 0
) -> list[Row]:
    """
    Measure how a bundle finds a contradictory sensor, and what is generated beside one.

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


def metric_table(split: str, rows: Sequence[Row]) -> list[str]:
    """Lines of Markdown: metrics by target and number of observed modalities."""
    apart = (NOVELTY, *FOUND, *COHERENCE)
    shown = [row for row in rows if row.metric not in apart]
    sizes = _sizes(shown)
    lines = []
    for metric, target in dict.fromkeys((row.metric, row.target) for row in shown):
        chosen = [row for row in shown if (row.metric, row.target) == (metric, target)]
        parts = ([row.value for row in chosen if len(row.observed) == size] for size in sizes)
        lines.append([metric, target, *(f'{np.mean(p):.4g}' if p else '' for p in parts)])
    return [
        f'## Other metrics on `{split}` ({max(row.n for row in shown):,} samples)',
        '',
        'By the number of modalities observed, averaged over the subsets.',
        '',
        *markdown_table(['metric', 'target', *map(str, sizes)], lines),
        *_novelty_table(split, [row for row in rows if row.metric == NOVELTY]),
        *contradiction_tables(split, rows),
    ]


def _sizes(rows: Iterable[Row]) -> list[int]:
    return sorted({len(row.observed) for row in rows})


def _novelty_table(split: str, rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    lines = [(', '.join(row.observed), f'{row.value:.3f}', f'{row.n:,}') for row in rows]
    return [
        '',
        f'Is the std larger on `{split}` than on `{KNOWN}`? AUROC: 0.5 no, 1 always; n counts the'
        ' distinct data of both.',
        '',
        *markdown_table(['observed', 'AUROC', 'n'], lines),
    ]


def contradiction_tables(split: str, rows: Sequence[Row]) -> list[str]:
    """Lines of Markdown: what is found, and the coherence with a sensor that others contradict."""
    found = [row for row in rows if row.metric in FOUND]
    if not found:
        return []
    sizes, lines = _sizes(found), []
    paired = [row for row in found if row.estimator != RECORDED]
    for metric in FOUND:
        part = [row for row in paired if row.metric == metric]
        targets = dict.fromkeys(row.target for row in part)
        for target in targets:
            mine = [row for row in part if row.target == target]
            lines.append([metric, target, *_cells(mine, sizes)])
        if len(targets) > 1:
            lines.append([metric, 'mean', *_cells(part, sizes)])
    recorded = [row for row in found if row.estimator == RECORDED]
    lines.append([f'{FALSE_ALARM}, as recorded', 'latent', *_cells(recorded, sizes)])
    pairings = len({row.estimator for row in paired})
    events = max(row.n for row in found if row.metric == FALSE_ALARM)
    return [
        '',
        f'### Contradictions on `{split}` ({events:,} events of each kind and pairing)',
        '',
        f'In %: mean over {pairings} random pairings and the subsets, in brackets the lowest and'
        ' highest pairing; by the number of modalities present.',
        '',
        *markdown_table(['what', 'modality', *map(str, sizes)], lines),
        *_coherence_table([row for row in rows if row.metric in COHERENCE]),
    ]


def _cells(rows: Sequence[Row], sizes: Iterable[int]) -> list[str]:
    """Mean over the pairings by number of modalities, with the lowest and the highest."""
    cells = []
    for size in sizes:
        part = [row for row in rows if len(row.observed) == size]
        values = [
            100 * np.mean([row.value for row in part if row.estimator == pairing])
            for pairing in dict.fromkeys(row.estimator for row in part)
        ]
        mean = f'{np.mean(values):.2f}' if values else ''
        ends = f' ({min(values):.2f} to {max(values):.2f})' if len(values) > 1 else ''
        cells.append(mean + ends)
    return cells


def _coherence_table(rows: Sequence[Row]) -> list[str]:
    """Coherence of what is generated beside a sensor that the others contradict."""
    if not rows:
        return []
    cases = sorted({(len(row.observed), row.estimator) for row in rows})
    lines = []
    for size, case in [*cases, *((size, '') for size in _sizes(rows))]:
        part = [r for r in rows if len(r.observed) == size and case in (r.estimator, '')]
        absent, fused, excluded = (
            100 * np.mean([row.value for row in part if row.metric == metric])
            for metric in COHERENCE
        )
        figures = (f'{x:.1f}' for x in (absent, fused, excluded, absent - excluded))
        lines.append([size, case.removesuffix(' lies') or 'mean', *figures])
    heads = ['present', 'contradictory', 'absent', 'fused', 'excluded', 'below absent']
    return [
        '',
        'Coherence in % of what no agreeing sensor shows, by the contradictory sensor: with it'
        ' left out (absent), fused, and left out where it is blamed (excluded;'
        f' {max(row.n for row in rows):,} events per case).',
        '',
        *markdown_table(heads, lines),
    ]
