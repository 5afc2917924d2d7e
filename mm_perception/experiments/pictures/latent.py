"""The joint latent, two principal components, coloured by label."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap

from mm_perception.evaluation.generation import encode_all, fuse_all, presence
from mm_perception.evaluation.labels import label_indices
from mm_perception.experiments.pictures.canvas import (
    Model,
    models_of,
    new_figure,
    write_figure,
)
from mm_perception.experiments.runner import Outcome

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
