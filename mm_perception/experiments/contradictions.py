"""Sensors that contradict each other: what of it is found, and what it costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mm_perception.bundle import Bundle
from mm_perception.data.dataset import Dataset
from mm_perception.evaluation.agreement import (
    AUROC,
    BLAMED_ANOTHER,
    FALSE_ALARM,
    MISSED,
    evidence_alone,
    make_events,
    measure_agreement,
)
from mm_perception.evaluation.classifiers import load_classifiers
from mm_perception.evaluation.generation import encode_all
from mm_perception.evaluation.labels import label_indices
from mm_perception.evaluation.lies import ABSENT, EXCLUDED, LYING, measure_lies
from mm_perception.evaluation.rows import Row
from mm_perception.inference.agreement import SECTION, Agreement
from mm_perception.inference.engine import Engine

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
    calibration = bundle.health.get(SECTION)
    if not calibration:
        return []
    agreement = Agreement(engine, bundle.spec, calibration)
    evidence = evidence_alone(engine, agreement, encode_all(engine, dataset))
    rows = measure_agreement(agreement, evidence, make_events(dataset, bundle.spec), seed=seed)
    labels = label_indices(dataset, bundle.spec)
    if labels is not None and bundle.classifiers:
        classifiers = load_classifiers(bundle)
        rows += measure_lies(engine, agreement, dataset, labels, classifiers, seed)
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
