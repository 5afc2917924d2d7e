"""Model specifications that several tests share."""

from __future__ import annotations

from dataclasses import replace

from mm_perception.model.build import FAMILIES
from mm_perception.spec import ModalitySpec, ModelSpec
from tests.helpers.small_bundle import small_spec

LABELS = tuple('0123456789')


def mhd_spec(**changes: object) -> ModelSpec:
    """The four modalities of MHD, as in the Nexus paper."""
    modalities = (
        ModalitySpec('image', 'image', 64, preprocessing={'invert': True}),
        ModalitySpec('trajectory', 'trajectory', 16),
        ModalitySpec('sound', 'sound', 128, likelihood='optimal_sigma', topic='audio'),
        ModalitySpec(
            'symbol',
            'symbol',
            5,
            preprocessing={'labels': LABELS},
            network={'hidden': (128, 128, 128)},
            likelihood='categorical',
        ),
    )
    sizes = {
        'joint_latent_dim': 32,
        'message_dim': 512,
        'joint_hidden': (512, 512),
        'decoder_hidden': (512, 512, 512),
    }
    return ModelSpec(modalities, **{**sizes, **changes})  # type: ignore[arg-type]


def arm_spec() -> ModelSpec:
    """Another robot: two cameras, force, a joint motion, a steady sound."""
    small = {'hidden': (32,)}
    modalities = (
        ModalitySpec(
            'front',
            'image',
            8,
            preprocessing={'height': 16, 'width': 24, 'channels': 3, 'square': False},
        ),
        ModalitySpec('rear', 'image', 8, preprocessing={'height': 8, 'width': 8}),
        ModalitySpec(
            'force',
            'vector',
            3,
            preprocessing={'low': (-1.0, -1.0, -5.0), 'high': (1.0, 1.0, 5.0)},
            network={'type': 'linear'},
        ),
        ModalitySpec(
            'joints',
            'trajectory',
            6,
            preprocessing={
                'points': 20,
                'dimensions': 3,
                'spacing': 'time',
                'low': (-3.2,) * 3,
                'high': (3.2,) * 3,
                'window': 'sliding',
            },
            network=small,
        ),
        ModalitySpec(
            'motor',
            'sound',
            8,
            preprocessing={'window': 'sliding', 'mels': 16, 'frames': 16, 'rate_hz': 16000},
            network={'channels': (8, 8)},
        ),
    )
    return ModelSpec(modalities, joint_latent_dim=8, message_dim=32, joint_hidden=(32,))


def every_kind() -> dict[str, ModelSpec]:
    """A small model of every family, joint encoder and posterior, and of another robot."""
    return {family: family_spec(family) for family in FAMILIES} | {
        'calibrated': family_spec('nexus', calibrated=True),
        'attention': family_spec('nexus', joint_encoder='attention'),
        'skip': family_spec('nexus', joint_encoder='skip', calibrated=True),
        'weighed': family_spec('nexus', joint_encoder='weighed', calibrated=True),
        'surrogates': family_spec('nexus', joint_encoder='surrogates'),
        'shared': shared_spec('weighed'),
        'shared_skip': shared_spec('skip'),
        'laplace': family_spec('mmvae', options={'posterior': 'laplace'}),
        'deep': family_spec('hmvae', options={'depth': 3}),
        'arm': arm_spec(),
    }


PAIRS = ('avae', 'jmvae')
"""Families that take exactly two modalities."""


def family_spec(family: str, **changes: object) -> ModelSpec:
    """A small model of a family: four modalities, or two where it takes no more."""
    spec = small_spec()
    modalities = (spec.modalities[0], spec.modalities[3]) if family in PAIRS else spec.modalities
    return replace(spec, family=family, modalities=modalities, **changes)  # type: ignore[arg-type]


def shared_spec(joint_encoder: str) -> ModelSpec:
    """A small model whose sound tells of the others beside its latent."""
    spec = family_spec('nexus', joint_encoder=joint_encoder, calibrated=True)
    network = {'type': 'spectral_convolution', 'channels': (4, 8)}
    image, trajectory, sound, symbol = spec.modalities
    sound = replace(sound, shared_dim=3, shared_network=network)
    return replace(spec, modalities=(image, trajectory, sound, symbol))
