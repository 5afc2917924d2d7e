"""A table that trains in seconds: four small modalities that all show one of three labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from mm_perception.data.dataset import Dataset, save_dataset

LABELS = ('low', 'middle', 'high')
VALIDATION_ROWS = 24
CONFIG = {
    'name': 'tiny',
    'dataset': '',
    'validation_fraction': 0.1,
    'model': {
        'family': 'nexus',
        'joint_encoder': 'mean',
        'joint_latent_dim': 4,
        'message_dim': 8,
        'joint_hidden': [8],
        'decoder_hidden': [8],
        'modalities': [
            {
                'name': 'camera',
                'kind': 'image',
                'latent_dim': 4,
                'preprocessing': {'height': 8, 'width': 8},
                'network': {'type': 'dense', 'hidden': [16]},
            },
            {
                'name': 'pen',
                'kind': 'trajectory',
                'latent_dim': 3,
                'preprocessing': {'points': 6},
                'network': {'hidden': [16]},
            },
            {
                'name': 'voice',
                'kind': 'sound',
                'latent_dim': 4,
                'preprocessing': {'mels': 8, 'frames': 8},
                'network': {'channels': [8, 8]},
            },
            {
                'name': 'word',
                'kind': 'symbol',
                'latent_dim': 2,
                'preprocessing': {'labels': list(LABELS)},
                'network': {'hidden': [8]},
                'likelihood': 'categorical',
            },
        ],
    },
    'top': {'epochs': 2, 'batch_size': 32},
    'unimodal': {name: {'epochs': 2, 'batch_size': 32} for name in ('camera', 'pen', 'voice')}
    | {'word': {'epochs': 2, 'batch_size': 4}},
    'classifiers': {'epochs': 9, 'batch_size': 32},
}
TABLE = {
    'title': 'A tiny table',
    'source': 'nobody 1999, Table 1',
    'by_target': True,
    'curve': 'number',
    'variants': {
        'nexus': {'title': 'Nexus', 'x': 0.0},
        'nexus0': {
            'title': 'Nexus-0',
            'x': 1.0,
            'changes': {
                'model': {'family': 'nexus0', 'modalities': {'camera': {'latent_weight': 2}}}
            },
        },
        'mvae_flat': {
            'title': 'MVAE, one level',
            'x': 2.0,
            'changes': {'model': {'family': 'mvae_flat'}},
        },
    },
    'columns': {
        'one': {'title': 'from 1, %', 'metric': 'accuracy', 'count': 1, 'factor': 100},
        'own': {'title': 'from itself, %', 'metric': 'accuracy', 'given': 'own', 'factor': 100},
        'mfd': {'title': 'MFD', 'metric': 'mfd', 'count': 3, 'estimator': 'mean'},
    },
    'scales': {
        'default': {
            'seeds': 2,
            'rows': 80,
            'test_rows': 30,
            'evaluator_rows': 90,
            'evaluator_epochs': 2,
            'changes': {'top': {'epochs': 1}},
        }
    },
    'pictures': ['bars', 'curve', 'generated', 'latent_map', 'samples'],
    'notes': ['Nothing here means anything.'],
    'paper': {'tiny': {'nexus': {'camera': {'one': [84.9, 12.4], 'mfd': [203.9]}}}},
}


def write_tiny_data(folder: Path) -> Path:
    """Write the dataset; every modality is brighter or larger for a higher label."""
    generator = np.random.default_rng(0)
    shapes = {'camera': (1, 8, 8), 'pen': (12,), 'voice': (8, 8)}
    validation = dict.fromkeys(('validation', 'validation_speaker'), VALIDATION_ROWS)
    for split, count in {'train': 120, **validation, 'test': 60}.items():
        labels = np.arange(count) % len(LABELS)
        values = {
            name: (
                labels.reshape(-1, *[1] * len(shape)) / 3 + 0.3 * generator.random((count, *shape))
            ).astype(np.float32)
            for name, shape in shapes.items()
        }
        index = {name: np.arange(count) for name in shapes}
        names = (*shapes, 'word')
        dataset = Dataset(
            names=names,
            values={**values, 'word': np.eye(len(LABELS), dtype=np.float32)},
            index={**index, 'word': labels},
            present=np.ones((count, len(names)), bool),
        )
        save_dataset(folder, split, dataset)
    return folder


def write_tiny_table(folder: Path) -> Path:
    """Write dataset, configuration and table; returns the file of the table."""
    data = write_tiny_data(folder / 'data')
    config = folder / 'config.yaml'
    config.write_text(yaml.safe_dump({**CONFIG, 'dataset': data.as_posix()}, sort_keys=False))
    table = folder / 'tiny.yaml'
    content = {**TABLE, 'datasets': {'tiny': {'config': config.as_posix()}}}
    table.write_text(yaml.safe_dump(content, sort_keys=False))
    return table
