"""What all pictures share: figures that are written as small files, models to draw with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mm_perception.data.dataset import Dataset
from mm_perception.experiments.job import Job, find_bundle_of, load_test
from mm_perception.experiments.runner import Outcome
from mm_perception.inference.build import reference_engine
from mm_perception.inference.engine import Engine
from mm_perception.modalities import Modality, build_modality
from mm_perception.modalities.raw import Array
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
