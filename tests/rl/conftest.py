"""A bundle of the pendulum's sensors that is made in a moment: random weights, small networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mm_perception.bundle import save_bundle
from mm_perception.config import load_training
from mm_perception.engines.export import with_graphs
from mm_perception.resources import share_directory
from tests.helpers.small_bundle import make_bundle


@pytest.fixture(scope='session')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the bundle."""
    spec = load_training(share_directory() / 'config' / 'pendulum.yaml').model
    sizes = {'camera': 8, 'microphones': 6, 'joints': 3}
    modalities = tuple(replace(m, latent_dim=sizes[m.name]) for m in spec.modalities)
    small = {'message_dim': 16, 'joint_hidden': (16,), 'decoder_hidden': (16,)}
    spec = replace(spec, modalities=modalities, joint_latent_dim=5, **small)
    path = tmp_path_factory.mktemp('models') / 'pendulum'
    return save_bundle(with_graphs(make_bundle('pendulum', spec=spec)), path, '').path
