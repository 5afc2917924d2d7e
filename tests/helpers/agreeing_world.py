"""Sensors that all show one of three labels, and an engine that averages what they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mm_perception.bundle import Health
from mm_perception.data.dataset import Dataset
from mm_perception.errors import NothingObserved
from mm_perception.fusion.consistency import ClassHead
from mm_perception.modalities.base import Array
from mm_perception.spec import ModalitySpec, ModelSpec

NAMES = ('a', 'b', 'c', 'd')
LABELS = ('left', 'middle', 'right')
CENTRES = 2.0 * np.eye(3, dtype=np.float32)
NOISE = 0.3


def world_spec(names: tuple[str, ...] = NAMES, labelled: bool = False) -> ModelSpec:
    """Vectors of three numbers; with labels, the last one is a symbol."""
    limits = {'low': (-1.0,) * 3, 'high': (3.0,) * 3}
    vectors = [ModalitySpec(name, 'vector', 3, preprocessing=limits) for name in names]
    if labelled:
        preprocessing = {'labels': LABELS}
        vectors[-1] = ModalitySpec(names[-1], 'symbol', 3, preprocessing=preprocessing)
    return ModelSpec(tuple(vectors), joint_latent_dim=3)


def world(count: int, seed: int = 0, names: tuple[str, ...] = NAMES) -> Dataset:
    """Every modality shows the row's label, with noise of its own."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, count)
    values = {
        name: CENTRES[labels] + NOISE * generator.standard_normal((count, 3)).astype(np.float32)
        for name in names
    }
    index = {name: np.arange(count) for name in names}
    return Dataset(names, values, index, np.ones((count, len(names)), bool))


class AveragingEngine:
    """The joint posterior's mean is that of the present data; nothing is random."""

    name, device, precision, reason = 'averaging', 'cpu', 'float32', 'a test'
    own_latents, fuses, draws = False, True, True

    def __init__(self, names: tuple[str, ...] = NAMES) -> None:
        self.noise_dims: dict[str, int] = {}
        self.code_dims = dict.fromkeys(names, 3)
        self.fused = 0

    def encode(self, name: str, data: Array) -> Array:
        return data

    def fuse(self, codes: Mapping[str, Array], present: np.ndarray) -> tuple[Array, Array]:
        if not present.any(axis=1).all():
            raise NothingObserved('no modality is present')
        self.fused += 1
        shown = np.stack([codes[name] for name in self.code_dims], axis=1) * present[:, :, None]
        mean = shown.sum(1) / present.sum(1, keepdims=True)
        return mean.astype(np.float32), np.full_like(mean, 0.1, dtype=np.float32)

    def fuse_sample(self, codes: Mapping[str, Array], present: np.ndarray, seed: int) -> Array:
        return self.fuse(codes, present)[0]

    def decode(self, name: str, joint: Array) -> Array:
        return joint

    def decode_sample(self, name: str, joint: Array, seed: int) -> Array:
        return joint


def exact_head() -> ClassHead:
    """Tells the three labels as the world's own Bayes rule does."""
    slopes = CENTRES / NOISE**2
    positive = np.concatenate([np.eye(3), -np.eye(3)], axis=1).astype(np.float32)
    # x = leaky(x) - leaky(-x), but for the slope below 0.
    output = np.concatenate([slopes, -slopes]) / 1.01
    return ClassHead((positive, np.zeros(6)), (output, np.zeros(3)), np.log(0.1), 1.0)


def exact_health(names: tuple[str, ...] = NAMES, threshold: float = 4.0) -> Health:
    """Calibration that knows the world."""
    return health_of(dict.fromkeys(names, exact_head()), threshold)


def health_of(heads: Mapping[str, ClassHead], threshold: float) -> Health:
    """Calibration of class heads, with one threshold."""
    return Health(
        {f'{name}.{key}': part for name, h in heads.items() for key, part in h.arrays().items()},
        usual={name: float(head.usual) for name, head in heads.items()},
        spread={name: float(head.spread) for name, head in heads.items()},
        thresholds={str(n): threshold for n in range(2, len(heads) + 1)},
        false_alarm=0.01,
        rows=0,
    )


def plain(health: Health | None) -> object:
    """All of a calibration, to compare."""
    assert health is not None
    heads = {name: (part.dtype, part.tolist()) for name, part in health.class_heads.items()}
    return replace(health, class_heads={}), heads
