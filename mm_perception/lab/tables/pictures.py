"""Pictures of a table: files that a report shows, one function per sort of picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from mm_perception.data.dataset import Dataset
from mm_perception.engines.build import reference_engine
from mm_perception.engines.engine import Engine
from mm_perception.errors import ConfigError
from mm_perception.evaluation.generation import (
    decode_all,
    encode_all,
    fuse_all,
    joint_latents,
    label_indices,
    presence,
)
from mm_perception.lab.tables.report import Estimate, Line, lines_of, paper_figure
from mm_perception.lab.tables.runner import Outcome
from mm_perception.lab.tables.table import OTHERS, Column
from mm_perception.lab.tables.trial import Job, find_bundle_of, load_test
from mm_perception.modalities import Modality, build_modality
from mm_perception.modalities.base import Array
from mm_perception.spec import ModelSpec

INK, FAINT = '#2d2d2d', '#8a8a8a'
DPI = 110
NARROWEST = 6.0


@dataclass(frozen=True)
class Model:
    """A trained model of a table, of its first seed, with its test data."""

    title: str
    spec: ModelSpec
    engine: Engine
    job: Job

    @property
    def test(self) -> Dataset:
        """What the model is measured on."""
        return load_test(self.job)

    @property
    def modalities(self) -> dict[str, Modality[Any]]:
        """Modalities by name."""
        return {m.name: build_modality(m) for m in self.spec.modalities}


def models_of(outcome: Outcome, dataset: str) -> Iterator[Model]:
    """Models of the first seed, one after the other, in the order of the table."""
    for job in outcome.jobs:
        if job.unit.dataset == dataset and job.unit.seed == 0:
            bundle = find_bundle_of(job)
            title = outcome.plan.table.variants[job.unit.variant].title
            yield Model(title, bundle.spec, reference_engine(bundle, 'cpu'), job)


def new_figure(title: str, width: float, height: float) -> Figure:
    """An empty figure with a title, in inches."""
    figure = Figure(figsize=(width, height), layout='constrained')
    figure.suptitle(title, fontsize=11, color=INK)
    return figure


def write_figure(figure: Figure, folder: Path, name: str) -> Path:
    """Write a figure as PNG; returns the file."""
    file = folder / f'{name}.png'
    figure.savefig(file, dpi=DPI, facecolor='white', pil_kwargs={'optimize': True})
    return file


def draw_grid(
    title: str,
    rows: Mapping[str, tuple[str, list[Array]]],
    heads: list[str],
    modalities: Mapping[str, Modality[Any]],
) -> Figure:
    """
    Draw data in rows, a cell per array.

    :param rows: by title: the modality and its arrays.
    :param heads: what stands above the columns; every array of a row has one.
    """
    across = len(heads)
    figure = new_figure(title, max(1.6 + 0.52 * across, NARROWEST), 0.7 + 0.56 * len(rows))
    grid = figure.subplots(len(rows), across, squeeze=False)
    for line, (name, (modality, arrays)) in zip(grid, rows.items()):
        for axes, array in zip(line, arrays):
            PAINTERS[modalities[modality].spec.kind](axes, modalities[modality], array)
            axes.set_xticks([])
            axes.set_yticks([])
            for side in axes.spines.values():
                side.set_edgecolor('#d0d0d0')
        line[0].set_ylabel(name, rotation=0, ha='right', va='center', fontsize=8, color=INK)
    for axes, head in zip(grid[0], heads):
        axes.set_title(head, fontsize=7, color=INK, rotation=30 if len(head) > 3 else 0)
    return figure


def _paint_image(axes: Any, modality: Modality[Any], array: Array) -> None:
    picture = np.moveaxis(array, 0, -1).clip(0.0, 1.0)
    axes.imshow(picture.squeeze(), cmap='gray_r', vmin=0.0, vmax=1.0)


def _paint_spectrogram(axes: Any, modality: Modality[Any], array: Array) -> None:
    axes.imshow(array, origin='lower', aspect='auto', cmap='magma', vmin=0.0, vmax=1.0)


def _paint_stroke(axes: Any, modality: Modality[Any], array: Array) -> None:
    points = modality.from_model(array).points
    axes.plot(points[:, 0], points[:, 1], color='#1f5fa8', linewidth=1.4)
    axes.plot(points[0, 0], points[0, 1], 'o', color='#d1495b', markersize=2.5)
    axes.set_aspect('equal', adjustable='datalim')


Painter = Callable[[Any, Modality[Any], Array], None]
PAINTERS: Mapping[str, Painter] = {
    'image': _paint_image,
    'sound': _paint_spectrogram,
    'trajectory': _paint_stroke,
}
LEGENDS: Mapping[str, str] = {
    'image': '28 x 28 pixels',
    'sound': 'spectrograms: time from left to right, mel bands upwards, level 0 to 1',
    'trajectory': 'strokes from the red dot on, both coordinates 0 to 1',
}


def draw_bars(outcome: Outcome, folder: Path) -> dict[str, Path]:
    """Accuracy by the number of observed modalities, a panel per target; the paper's as marks."""
    table, lines = outcome.plan.table, lines_of(outcome)
    keys = {
        column.count: key
        for key, column in table.columns.items()
        if column.metric == 'accuracy' and column.given == OTHERS and column.estimator != 'mean'
    }
    targets = list(dict.fromkeys(line.target for line in lines))
    if not lines:
        return {}
    title = f'{table.title}: accuracy of what is generated, by the number of modalities observed'
    figure = new_figure(title, 3.1 * len(targets), 3.9)
    panels = figure.subplots(1, len(targets), sharey=True, squeeze=False)[0]
    for panel, target in zip(panels, targets):
        chosen = [line for line in lines if line.target == target]
        for k, line in enumerate(chosen):
            _bars(panel, outcome, line, keys, (k - (len(chosen) - 1) / 2) * 0.8 / len(chosen))
        panel.set_title(target, fontsize=9)
        panel.set_xlabel('modalities observed', fontsize=8)
        panel.set_xticks(sorted(keys))
        panel.set_ylim(0, 105)
        panel.tick_params(labelsize=8)
        panel.grid(axis='y', color='#e5e5e5')
        panel.set_axisbelow(True)
    panels[0].set_ylabel('accuracy (%)', fontsize=8)
    panels[0].plot([], [], 'D', color=INK, markersize=4, label='the paper')
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center', ncols=5, fontsize=8)
    return {title: write_figure(figure, folder, 'bars')}


def draw_curve(outcome: Outcome, folder: Path) -> dict[str, Path]:
    """Figures along the axis on which the variants stand, as Fig. A.21 of Vasco et al. 2022."""
    table, lines = outcome.plan.table, lines_of(outcome)
    if not lines:
        return {}
    title = f'{table.title}, by the {table.curve}'
    metrics = list(dict.fromkeys(column.metric for column in table.columns.values()))
    figure = new_figure(title, 4.2 * len(metrics), 3.4)
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for panel, metric in zip(panels, metrics):
        columns = {k: c for k, c in table.columns.items() if c.metric == metric}
        for key, column in columns.items():
            _curve(panel, outcome, lines, key, column)
        panel.set_xlabel(table.curve, fontsize=8)
        unit = '%' if columns[next(iter(columns))].factor == 100 else 'lower is better'
        panel.set_ylabel(f'{metric} ({unit})', fontsize=8)
        panel.legend(fontsize=8)
        panel.tick_params(labelsize=8)
        panel.grid(color='#e5e5e5')
    return {title: write_figure(figure, folder, 'curve')}


def _bars(panel: Any, outcome: Outcome, line: Line, keys: dict[int, str], offset: float) -> None:
    table = outcome.plan.table
    position = list(table.variants).index(line.variant)
    width = 0.8 / len(table.variants)
    known = {count: line.figures[key] for count, key in keys.items() if key in line.figures}
    panel.bar(
        [count + offset for count in known],
        [figure.mean for figure in known.values()],
        width,
        yerr=[figure.spread or 0.0 for figure in known.values()],
        error_kw={'elinewidth': 0.8, 'ecolor': FAINT},
        color=matplotlib.colormaps['tab10'](position % 10),
        label=table.variants[line.variant].title,
    )
    for count, key in keys.items():
        reported = paper_figure(table, line, key)
        if reported is not None:
            panel.plot(count + offset, reported.mean, 'D', color=INK, markersize=3.5)


def _curve(panel: Any, outcome: Outcome, lines: Sequence[Line], key: str, column: Column) -> None:
    points: dict[float, Estimate] = {
        outcome.plan.table.variants[line.variant].x: line.figures[key]
        for line in lines
        if key in line.figures
    }
    panel.errorbar(
        list(points),
        [figure.mean for figure in points.values()],
        [figure.spread or 0.0 for figure in points.values()],
        marker='o',
        markersize=3.5,
        capsize=2,
        label=column.title,
    )


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


ROWS = 1000


def draw_latent_map(outcome: Outcome, folder: Path) -> dict[str, Path]:
    """Means of the joint posterior of the first model, a panel per subset of inputs."""
    files = {}
    for dataset in outcome.plan.table.datasets:
        model = next(models_of(outcome, dataset), None)
        if model is not None:
            title = f'{model.title}: joint latent by what is observed ({dataset}, test data)'
            files[title] = _draw(model, title, folder, f'latent-{dataset}')
    return files


def principal_axes(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Centre and the two directions of largest variance.

    :param points: ``[N, D]``.
    :returns: ``[D]`` and ``[D, 2]``.
    """
    centre = points.mean(0)
    _, _, directions = np.linalg.svd(points - centre, full_matrices=False)
    return centre, directions[:2].T


def _draw(model: Model, title: str, folder: Path, name: str) -> Path:
    test = model.test.subset(np.arange(min(ROWS, len(model.test))))
    labels = label_indices(test, model.spec)
    assert labels is not None  # tables are about data with labels
    codes = encode_all(model.engine, test)
    names = test.names
    shown = [*((n,) for n in names), names]
    means = [fuse_all(model.engine, codes, presence(names, given))[0] for given in shown]
    centre, axes = principal_axes(means[-1])
    figure = new_figure(title, 2.6 * len(shown) + 0.6, 3.2)
    panels = figure.subplots(1, len(shown), sharex=True, sharey=True)
    texts = next(m.labels for m in model.modalities.values() if m.labels)
    colours = ListedColormap(matplotlib.colormaps['tab10'](range(len(texts))))
    colouring = {'c': labels, 'cmap': colours, 'vmin': -0.5, 'vmax': len(texts) - 0.5}
    for panel, given, mean in zip(panels, shown, means):
        flat = (mean - centre) @ axes
        dots = panel.scatter(*flat.T, **colouring, s=5)
        panel.set_title('all' if given == names else f'{given[0]} alone', fontsize=9)
        panel.set_xlabel('first component', fontsize=8)
        panel.tick_params(labelsize=7)
    panels[0].set_ylabel('second component', fontsize=8)
    bar = figure.colorbar(dots, ax=panels, ticks=range(len(texts)))
    bar.ax.set_yticklabels(texts, fontsize=7)
    return write_figure(figure, folder, name)


Draw = Callable[[Outcome, Path], dict[str, Path]]
PICTURES: Mapping[str, Draw] = {
    'bars': draw_bars,
    'curve': draw_curve,
    'generated': draw_generated,
    'latent_map': draw_latent_map,
    'samples': draw_samples,
}


def draw_pictures(outcome: Outcome, folder: Path) -> dict[str, Path]:
    """
    Draw all pictures that a table asks for.

    :param folder: for the files; made if it does not exist.
    :returns: files by title.
    :raises ConfigError: if the table asks for an unknown picture.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    for name in outcome.plan.table.pictures:
        if name not in PICTURES:
            raise ConfigError(f'pictures: unknown "{name}"; known: {", ".join(PICTURES)}')
        files |= PICTURES[name](outcome, folder)
    return files
