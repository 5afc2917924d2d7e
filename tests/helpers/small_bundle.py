"""A bundle that is made in a moment: right shapes, small networks, random weights."""

from __future__ import annotations

from dataclasses import replace

import torch

from mm_perception.bundle import Bundle
from mm_perception.model.build import build_model
from mm_perception.spec import ModalitySpec, ModelSpec

LABELS = tuple('0123456789')
MAX_AGE_S = 0.9


def small_spec() -> ModelSpec:
    """The four modalities of MHD with networks of a few thousand weights."""
    small = {'type': 'dense', 'hidden': (16,)}
    modalities = (
        ModalitySpec(
            'image',
            'image',
            8,
            preprocessing={'invert': True},
            network={'type': 'convolution', 'channels': (4, 8), 'hidden': (16,)},
            max_age_s=MAX_AGE_S,
        ),
        ModalitySpec('trajectory', 'trajectory', 4, network=small, max_age_s=MAX_AGE_S),
        ModalitySpec(
            'sound',
            'sound',
            8,
            network={'type': 'temporal_convolution', 'channels': (8, 8)},
            topic='audio',
            max_age_s=MAX_AGE_S,
        ),
        ModalitySpec(
            'symbol',
            'symbol',
            4,
            preprocessing={'labels': LABELS},
            network=small,
            likelihood='categorical',
            max_age_s=MAX_AGE_S,
        ),
    )
    return ModelSpec(
        modalities,
        joint_latent_dim=8,
        message_dim=16,
        joint_hidden=(16,),
        decoder_hidden=(16,),
    )


def make_bundle(name: str = 'small', seed: int = 0, spec: ModelSpec | None = None) -> Bundle:
    """Make a bundle with random weights, not yet on disk."""
    torch.manual_seed(seed)
    spec = spec or small_spec()
    weights = {k: v.numpy() for k, v in build_model(spec).state_dict().items()}
    return Bundle(name, spec, weights)


def with_classifiers(bundle: Bundle) -> Bundle:
    """Add classifiers of ten labels with random weights."""
    from mm_perception.engines.torch_classifiers import TorchClassifiers
    from mm_perception.model.networks import Classifier

    readers = {
        spec.name: Classifier(spec, 10) for spec in bundle.spec.modalities if spec.kind != 'symbol'
    }
    return replace(bundle, classifiers=TorchClassifiers(readers).state())
