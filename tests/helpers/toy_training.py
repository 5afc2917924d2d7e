"""A small synthetic robot that a model is trained for in seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from mm_perception.data.dataset import Dataset
from mm_perception.spec import ModalitySpec, ModelSpec, StageSpec, TrainingSpec

LABELS = ('left', 'middle', 'right')
ROWS = 600


def robot() -> ModelSpec:
    dense = {'type': 'dense', 'hidden': (32, 32)}
    return ModelSpec(
        modalities=(
            ModalitySpec(
                'camera',
                'image',
                4,
                preprocessing={'height': 8, 'width': 8},
                network=dense,
                likelihood='optimal_sigma',
            ),
            ModalitySpec(
                'arm',
                'vector',
                3,
                preprocessing={'low': (0.0,) * 4, 'high': (1.0,) * 4},
                network=dense,
                likelihood='optimal_sigma',
            ),
            ModalitySpec(
                'word',
                'symbol',
                2,
                preprocessing={'labels': LABELS},
                network=dense,
                likelihood='categorical',
                likelihood_weight=50.0,
                latent_weight=5.0,
            ),
        ),
        joint_latent_dim=4,
        message_dim=32,
        joint_hidden=(32,),
        decoder_hidden=(32,),
        dropout=0.6,
    )


def recordings(seed: int, missing: float = 0.0) -> Dataset:
    """A bright bar, an arm and a word that say the same: left, middle or right."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, ROWS)
    image = generator.random((ROWS, 1, 8, 8), dtype=np.float32) * 0.2
    for row, label in enumerate(labels):
        image[row, 0, :, 3 * label : 3 * label + 2] += 0.7
    arm = np.eye(4, dtype=np.float32)[labels] * 0.6 + generator.random((ROWS, 4)) * 0.2
    index = np.arange(ROWS)
    present = generator.random((ROWS, 3)) >= missing
    present[:, 0] |= ~present.any(1)
    return Dataset(
        names=('camera', 'arm', 'word'),
        values={
            'camera': (image * 255).astype(np.uint8),
            'arm': arm.astype(np.float32),
            'word': np.eye(3, dtype=np.float32),
        },
        index={'camera': index, 'arm': index, 'word': labels},
        present=present,
    )


def configuration(folder: Path, **changes: object) -> TrainingSpec:
    stage = StageSpec(epochs=15, batch_size=32, warm_up_epochs=3)
    spec = TrainingSpec(
        name='robot',
        dataset=str(folder / 'data'),
        model=robot(),
        top=replace(stage, epochs=30),
        unimodal={
            'camera': stage,
            'arm': stage,
            'word': StageSpec(epochs=200, batch_size=32, warm_up_epochs=40),
        },
        classifiers=StageSpec(epochs=20, batch_size=32),
    )
    return replace(spec, **changes)  # type: ignore[arg-type]
