"""Pictures of a table: files that a report shows, one function per sort of picture."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.figure
import numpy as np
from matplotlib.colors import ListedColormap

from mm_perception.data.dataset import Dataset
from mm_perception.engines.build import reference_engine
from mm_perception.engines.engine import Engine
from mm_perception.errors import ConfigError
from mm_perception.evaluation.generation import (
    decode_all,
    encode_all,
    fuse_all,
    joint_latents,
    presence,
)
from mm_perception.lab.tables.report import Figure, Line, lines_of, paper_figure
from mm_perception.lab.tables.runner import Results
from mm_perception.lab.tables.table import OTHERS, Table
from mm_perception.modalities import Modality, build_modality
from mm_perception.modalities.base import Array

INK, FAINT = '#2d2d2d', '#8a8a8a'
DPI = 110
NARROWEST = 6.0
CELL = 56  # pixels of a drawn array
PER_LABEL = 2
MAPPED_ROWS = 1000
Picture = tuple[str, str, Any]
"""Title, name of the file, and a figure of matplotlib."""


@dataclass(frozen=True)
class Model:
    """A trained model of a table, of its first seed, with its test data."""

    title: str
    engine: Engine
    test: Dataset
    modalities: Mapping[str, Modality[Any]]

    @property
    def label(self) -> str:
        """The modality whose data are labels."""
        return next(name for name, modality in self.modalities.items() if modality.classes)

    @property
    def texts(self) -> tuple[str, ...]:
        """The labels."""
        return self.modalities[self.label].classes

    def labels(self, rows: np.ndarray) -> np.ndarray:
        """Label index of some test rows, ``int64[N]``."""
        return np.argmax(self.test.rows(self.label, rows), axis=1)

    def rows_of_labels(self, count: int) -> np.ndarray:
        """The first test rows of every label, label by label."""
        labels = self.labels(np.arange(len(self.test)))
        return np.concatenate([np.flatnonzero(labels == k)[:count] for k in np.unique(labels)])

    def recorded(self, target: str, rows: np.ndarray) -> list[np.ndarray]:
        """Pictures of a modality's own data in some rows."""
        return self._drawn(target, self.test.rows(target, rows))

    def generated(
        self, given: tuple[str, ...], target: str, rows: np.ndarray, estimator: str
    ) -> list[np.ndarray]:
        """Pictures of what is generated for some rows."""
        codes = encode_all(self.engine, self.test.subset(rows))
        joint = joint_latents(self.engine, codes, presence(self.test.names, given), estimator, 0)
        made = decode_all(self.engine, target, joint, estimator, 0)
        return self._drawn(target, np.concatenate([arrays for _, arrays in made]))

    def _drawn(self, target: str, arrays: Array) -> list[np.ndarray]:
        return [self.modalities[target].draw(array, CELL) for array in arrays]


def models_of(results: Results, dataset: str) -> Iterator[Model]:
    """Models of the first seed, one after the other, in the order of the table."""
    for trial in results.trials:
        if trial.dataset == dataset and trial.seed == 0:
            bundle = trial.trained()
            modalities = {m.name: build_modality(m) for m in bundle.spec.modalities}
            title = results.table.variants[trial.variant].title
            yield Model(title, reference_engine(bundle, 'cpu'), trial.test(), modalities)


def first_models(results: Results) -> Iterator[tuple[str, Model]]:
    """The first model of each dataset, after the name of that."""
    for dataset in results.table.datasets:
        for model in itertools.islice(models_of(results, dataset), 1):
            yield dataset, model


def new_figure(title: str, width: float, height: float) -> Any:
    """An empty figure with a title, in inches."""
    figure = matplotlib.figure.Figure(figsize=(width, height), layout='constrained')
    figure.suptitle(title, fontsize=11, color=INK)
    return figure


def draw_grid(title: str, rows: Mapping[str, list[np.ndarray]], heads: list[str]) -> Any:
    """
    Arrange pictures in rows.

    :param rows: pictures by title, ``uint8[side, side, 3]`` each, BGR.
    :param heads: what stands above the columns; every picture of a row has one.
    """
    across = len(heads)
    figure = new_figure(title, max(1.6 + 0.52 * across, NARROWEST), 0.7 + 0.56 * len(rows))
    grid = figure.subplots(len(rows), across, squeeze=False)
    for line, (name, pictures) in zip(grid, rows.items()):
        for axes, picture in zip(line, pictures):
            axes.imshow(picture[..., ::-1])
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_edgecolor('#d0d0d0')
        line[0].set_ylabel(name, rotation=0, ha='right', va='center', fontsize=8, color=INK)
    for axes, head in zip(grid[0], heads):
        axes.set_title(head, fontsize=7, color=INK, rotation=30 if len(head) > 3 else 0)
    return figure


def draw_bars(results: Results) -> Iterator[Picture]:
    """Accuracy by the number of observed modalities, a panel per target; the paper's as marks."""
    table, lines = results.table, lines_of(results)
    keys = {
        column.count: key
        for key, column in table.columns.items()
        if column.metric == 'accuracy' and column.given == OTHERS and column.estimator != 'mean'
    }
    targets = list(dict.fromkeys(line.target for line in lines))
    if not lines:
        return
    title = f'{table.title}: accuracy of what is generated, by the number of modalities observed'
    figure = new_figure(title, 3.1 * len(targets), 3.9)
    panels = figure.subplots(1, len(targets), sharey=True, squeeze=False)[0]
    for panel, target in zip(panels, targets):
        chosen = [line for line in lines if line.target == target]
        for k, line in enumerate(chosen):
            _bars(panel, table, line, keys, (k - (len(chosen) - 1) / 2) * 0.8 / len(chosen))
        panel.set(xticks=sorted(keys), ylim=(0, 105))
        panel.set_title(target, fontsize=9)
        _finish(panel, 'modalities observed', 'accuracy (%)' if panel is panels[0] else '', 'y')
    panels[0].plot([], [], 'D', color=INK, markersize=4, label='the paper')
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center', ncols=5, fontsize=8)
    yield title, 'bars', figure


def draw_curve(results: Results) -> Iterator[Picture]:
    """Figures along the axis on which the variants stand, as Fig. A.21 of Vasco et al. 2022."""
    table, lines = results.table, lines_of(results)
    if not lines:
        return
    title = f'{table.title}, by the {table.curve}'
    metrics = list(dict.fromkeys(column.metric for column in table.columns.values()))
    figure = new_figure(title, 4.2 * len(metrics), 3.4)
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for panel, metric in zip(panels, metrics):
        columns = {k: c for k, c in table.columns.items() if c.metric == metric}
        for key, column in columns.items():
            known = [line for line in lines if key in line.figures]
            points = {table.variants[line.variant].x: line.figures[key] for line in known}
            form = {'marker': 'o', 'markersize': 3.5, 'capsize': 2}
            panel.errorbar(list(points), *_ends(points.values()), label=column.title, **form)
        unit = '%' if columns[next(iter(columns))].factor == 100 else 'lower is better'
        _finish(panel, table.curve, f'{metric} ({unit})', 'both')
        panel.legend(fontsize=8)
    yield title, 'curve', figure


def _bars(panel: Any, table: Table, line: Line, keys: dict[int, str], offset: float) -> None:
    position = list(table.variants).index(line.variant)
    known = {count: line.figures[key] for count, key in keys.items() if key in line.figures}
    means, spreads = _ends(known.values())
    panel.bar(
        [count + offset for count in known],
        means,
        0.8 / len(table.variants),
        yerr=spreads,
        error_kw={'elinewidth': 0.8, 'ecolor': FAINT},
        color=matplotlib.colormaps['tab10'](position % 10),
        label=table.variants[line.variant].title,
    )
    for count, key in keys.items():
        if reported := paper_figure(table, line, key):
            panel.plot(count + offset, reported[0], 'D', color=INK, markersize=3.5)


def _ends(figures: Collection[Figure]) -> tuple[list[float], list[float]]:
    """Means, and spreads where there are several seeds."""
    return [f[0] for f in figures], [f[1] if len(f) > 1 else 0.0 for f in figures]


def _finish(panel: Any, x: str, y: str, grid: str) -> None:
    panel.set_xlabel(x, fontsize=8)
    panel.set_ylabel(y, fontsize=8)
    panel.tick_params(labelsize=8)
    panel.grid(axis=grid, color='#e5e5e5')
    panel.set_axisbelow(True)


def draw_samples(results: Results) -> Iterator[Picture]:
    """Images from labels, a row per model, as in Fig. 17 and 18 of Vasco et al. 2022."""
    for dataset in results.table.datasets:
        rows: dict[str, list[np.ndarray]] = {}
        for model in models_of(results, dataset):
            target = next(name for name in model.modalities if name != model.label)
            chosen = model.rows_of_labels(PER_LABEL)
            heads = [model.texts[i] for i in model.labels(chosen)]
            rows.setdefault('recorded', model.recorded(target, chosen))
            rows[model.title] = model.generated((model.label,), target, chosen, 'sample')
        if rows:
            shown = [head if k % PER_LABEL == 0 else '' for k, head in enumerate(heads)]
            title = f'Images generated from the label alone ({dataset}, test data, sampled)'
            yield title, f'samples-{dataset}', draw_grid(title, rows, shown)


def draw_generated(results: Results) -> Iterator[Picture]:
    """Recorded data beside what the first model generates from each of the other sensors."""
    for dataset, model in first_models(results):
        chosen = model.rows_of_labels(1)
        heads = [model.texts[i] for i in model.labels(chosen)]
        for target in model.modalities:
            if target == model.label:
                continue
            others = tuple(name for name in model.modalities if name != target)
            rows = {'recorded': model.recorded(target, chosen)}
            for given in (*((name,) for name in others), others):
                name = f'from {given[0]}' if len(given) == 1 else f'from all {len(given)}'
                rows[name] = model.generated(given, target, chosen, 'mean')
            title = f'{model.title}: {target}, recorded and generated ({dataset}, test data)'
            yield title, f'generated-{dataset}-{target}', draw_grid(title, rows, heads)


def draw_latent_map(results: Results) -> Iterator[Picture]:
    """Means of the joint posterior of the first model, a panel per subset of inputs."""
    for dataset, model in first_models(results):
        title = f'{model.title}: joint latent by what is observed ({dataset}, test data)'
        yield title, f'latent-{dataset}', _latent_map(model, title)


def _latent_map(model: Model, title: str) -> Any:
    """Along the two directions in which the means given all modalities vary most."""
    rows = np.arange(min(MAPPED_ROWS, len(model.test)))
    names, texts = model.test.names, model.texts
    codes = encode_all(model.engine, model.test.subset(rows))
    shown = [*((name,) for name in names), names]
    means = [fuse_all(model.engine, codes, presence(names, given))[0] for given in shown]
    centre = means[-1].mean(0)
    _, _, directions = np.linalg.svd(means[-1] - centre, full_matrices=False)
    figure = new_figure(title, 2.6 * len(shown) + 0.6, 3.2)
    panels = figure.subplots(1, len(shown), sharex=True, sharey=True)
    colours = ListedColormap(matplotlib.colormaps['tab10'](range(len(texts))))
    colouring = {'c': model.labels(rows), 'cmap': colours, 'vmin': -0.5, 'vmax': len(texts) - 0.5}
    for panel, given, mean in zip(panels, shown, means):
        dots = panel.scatter(*((mean - centre) @ directions[:2].T).T, **colouring, s=5)
        panel.set_title('all' if given == names else f'{given[0]} alone', fontsize=9)
        panel.set_xlabel('first component', fontsize=8)
        panel.tick_params(labelsize=7)
    panels[0].set_ylabel('second component', fontsize=8)
    bar = figure.colorbar(dots, ax=panels, ticks=range(len(texts)))
    bar.ax.set_yticklabels(texts, fontsize=7)
    return figure


PICTURES: Mapping[str, Callable[[Results], Iterator[Picture]]] = {
    'bars': draw_bars,
    'curve': draw_curve,
    'generated': draw_generated,
    'latent_map': draw_latent_map,
    'samples': draw_samples,
}


def draw_pictures(results: Results, folder: Path) -> dict[str, Path]:
    """
    Draw all pictures that a table asks for.

    :param folder: for the files; made if it does not exist.
    :returns: files by title.
    :raises ConfigError: if the table asks for an unknown picture.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    for sort in results.table.pictures:
        if sort not in PICTURES:
            raise ConfigError(f'pictures: unknown "{sort}"; known: {", ".join(PICTURES)}')
        for title, name, figure in PICTURES[sort](results):
            files[title] = folder / f'{name}.png'
            form = {'facecolor': 'white', 'pil_kwargs': {'optimize': True}}
            figure.savefig(files[title], dpi=DPI, **form)
    return files
