"""Models and data that nobody recorded: right shapes, random values."""

from __future__ import annotations

import numpy as np

from mm_perception.bundle import Bundle
from mm_perception.data.dataset import Dataset
from mm_perception.modalities import build_modality
from mm_perception.spec import ModalitySpec, ModelSpec

ELEMENTS = 32
"""Numbers per synthetic modality: joint positions, velocities and efforts of a small arm."""


def vector_spec(count: int) -> ModelSpec:
    """A model of ``count`` vector modalities, networks of the default sizes."""
    ranges = {'low': (-1.0,) * ELEMENTS, 'high': (1.0,) * ELEMENTS}
    modalities = tuple(ModalitySpec(f'sensor_{k}', 'vector', 16, ranges) for k in range(count))
    return ModelSpec(modalities)


def random_bundle(count: int) -> Bundle:
    """A model of :func:`vector_spec` with random weights, ready for every engine."""
    import torch

    from mm_perception.model.build import build_model
    from mm_perception.training.export import with_graphs

    torch.manual_seed(0)
    spec = vector_spec(count)
    weights = {k: v.numpy() for k, v in build_model(spec).state_dict().items()}
    return with_graphs(Bundle(f'synthetic_{count}', spec, weights))


def random_dataset(spec: ModelSpec, rows: int) -> Dataset:
    """Random values of the right shapes, every row with values of its own."""
    rng = np.random.default_rng(0)
    shapes = {m.name: build_modality(m).shape for m in spec.modalities}
    return Dataset(
        names=spec.names,
        values={name: rng.random((rows, *shape), np.float32) for name, shape in shapes.items()},
        index={name: np.arange(rows) for name in shapes},
        present=np.ones((rows, len(shapes)), bool),
    )
