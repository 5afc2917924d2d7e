"""What models generate: from labels by all models, and from every sensor by one model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mm_perception.evaluation.generation import decode_all, encode_all, joint_latents, presence
from mm_perception.experiments.pictures.canvas import (
    LEGENDS,
    PAINTERS,
    Model,
    draw_grid,
    models_of,
    write_figure,
)
from mm_perception.experiments.runner import Outcome
from mm_perception.modalities.raw import Array

PER_LABEL = 2
SAMPLED = 'sample'


def draw_samples(outcome: Outcome, folder: Path) -> dict[str, Path]:
    """Images from labels, a row per model, as in Fig. 17 and 18 of Vasco et al. 2022."""
    files = {}
    for dataset in outcome.plan.table.datasets:
        rows: dict[str, tuple[str, list[Array]]] = {}
        for model in models_of(outcome, dataset):
            target = next(m.name for m in model.spec.modalities if m.kind == 'image')
            label = next(name for name, m in model.modalities.items() if m.labels)
            chosen = rows_of_labels(model, label, PER_LABEL)
            test = model.test
            heads = [model.modalities[label].labels[i] for i in _labels(model, label, chosen)]
            rows.setdefault('recorded', (target, list(test.rows(target, chosen))))
            rows[model.title] = (target, _generate(model, (label,), target, chosen, SAMPLED))
        if rows:
            shown = [head if k % PER_LABEL == 0 else '' for k, head in enumerate(heads)]
            title = f'Images generated from the label alone ({dataset}, test data, sampled)'
            figure = draw_grid(title, rows, shown, model.modalities)
            files[title] = write_figure(figure, folder, f'samples-{dataset}')
    return files


def draw_generated(outcome: Outcome, folder: Path) -> dict[str, Path]:
    """Recorded data beside what the first model generates from each of the other sensors."""
    files = {}
    for dataset in outcome.plan.table.datasets:
        model = next(models_of(outcome, dataset), None)
        if model is None:
            continue
        label = next(name for name, m in model.modalities.items() if m.labels)
        chosen = rows_of_labels(model, label, 1)
        heads = [model.modalities[label].labels[i] for i in _labels(model, label, chosen)]
        for modality in model.spec.modalities:
            target = modality.name
            if modality.kind not in PAINTERS:
                continue
            others = tuple(name for name in model.spec.names if name != target)
            rows = {'recorded': (target, list(model.test.rows(target, chosen)))}
            for given in (*((name,) for name in others), others):
                title = f'from {given[0]}' if len(given) == 1 else f'from all {len(given)}'
                rows[title] = (target, _generate(model, given, target, chosen, 'mean'))
            title = f'{model.title}: {target}, recorded and generated ({dataset}, test data)'
            legend = f'{title}\n{LEGENDS[modality.kind]}'
            figure = draw_grid(legend, rows, heads, model.modalities)
            files[title] = write_figure(figure, folder, f'generated-{dataset}-{target}')
    return files


def rows_of_labels(model: Model, label: str, count: int) -> np.ndarray:
    """The first test rows of every label, label by label."""
    test = model.test
    labels = _labels(model, label, np.arange(len(test)))
    return np.concatenate([np.flatnonzero(labels == k)[:count] for k in np.unique(labels)])


def _labels(model: Model, label: str, rows: np.ndarray) -> np.ndarray:
    return np.argmax(model.test.rows(label, rows), axis=1)


def _generate(
    model: Model, given: tuple[str, ...], target: str, rows: np.ndarray, estimator: str
) -> list[Array]:
    part = model.test.subset(rows)
    codes = encode_all(model.engine, part)
    joint = joint_latents(model.engine, codes, presence(part.names, given), estimator, 0)
    made = decode_all(model.engine, target, joint, estimator, 0)
    return [array for _, arrays in made for array in arrays]
