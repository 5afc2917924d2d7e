"""What the policies of the comparison read: the fused latent, and what stands beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mm_perception.fusion.perception import Perception
from mm_perception.lab.policies.contrastive import Contrastive, train_contrastive
from mm_perception.modalities.base import Array
from mm_perception.rl.agents import Observing, widened
from mm_perception.rl.baselines import OwnLatents, RawSensors
from mm_perception.rl.observation import Observer, Values
from mm_perception.rl.pendulum import CAMERA, JOINTS, MICROPHONES, RATE_HZ
from mm_perception.rl.policy import DEFAULT_PARTS, MEAN

OURS = 'latent'
SENSORS = CAMERA, JOINTS, MICROPHONES


@dataclass(frozen=True)
class Material:
    """
    What observers are made of.

    :param loaded: a bundle at work; ``sensors``: spaces of the sensors by name.
    :param dataset: that the bundle learned from.
    """

    loaded: Perception
    sensors: Mapping[str, spaces.Box]
    dataset: Path


Maker = Callable[[Material], Observing]


@dataclass(frozen=True)
class Variant:
    """
    Something that a policy may read.

    :param title: in words.
    :param family: of the bundle that it needs.
    :param observe: makes what makes observers.
    :param sensors: that it reads; what else fails does not matter.
    """

    title: str
    observe: Maker
    family: str = 'nexus'
    sensors: tuple[str, ...] = SENSORS


def _fused(parts: tuple[str, ...], material: Material) -> Observing:
    return widened(material.loaded, RATE_HZ, parts=parts)


def _own(material: Material) -> Observing:
    return partial(OwnLatents, material.loaded.engine, material.loaded.modalities)


def _raw(held: bool, material: Material) -> Observing:
    return lambda count: RawSensors(material.sensors, count, held)


def _single(name: str, material: Material) -> Observing:
    loaded = material.loaded
    modality = {name: loaded.modalities[name]}
    return lambda count: OwnLatents(loaded.engine, modality, count, held=True)


def _true(material: Material) -> Observing:
    return lambda count: RawSensors({JOINTS: material.sensors[JOINTS]}, count)


def _contrastive(material: Material) -> Observing:
    encoders = train_contrastive(material.loaded, material.dataset)
    return lambda count: Contrastive(material.loaded, encoders, count)


VARIANTS = {
    OURS: Variant('fused latent of Nexus: mean, std, mask', partial(_fused, DEFAULT_PARTS)),
    'latent_mean': Variant('fused latent of Nexus: mean', partial(_fused, (MEAN,))),
    'own': Variant('own latents side by side, zeros for what is missing', _own),
    'raw_zeros': Variant('raw values, zeros for what is missing', partial(_raw, False)),
    'raw_held': Variant('raw values, the last for what is missing', partial(_raw, True)),
    'mvae': Variant('fused latent of MVAE', partial(_fused, DEFAULT_PARTS), 'mvae'),
    'mmvae': Variant('fused latent of MMVAE', partial(_fused, DEFAULT_PARTS), 'mmvae'),
    'gmc': Variant('mean of contrastive encoders (GMC)', _contrastive),
    **{
        f'only_{name}': Variant(f'{name} alone, held', partial(_single, name), sensors=(name,))
        for name in SENSORS
    },
    'true_state': Variant('true state', _true, sensors=()),
}
"""In the order of the table."""


class Together:
    """
    One observer of several, each of which sees some of the environments.

    :param observers: with the number of environments of each; shorter observations get zeros.
    """

    def __init__(self, observers: Sequence[tuple[Observer, int]]) -> None:
        self._observers = observers
        self.size = max(observer.size for observer, _ in observers)

    def begin(self, rows: Iterable[int]) -> None:
        """Forget what was before."""
        chosen = np.array(sorted(rows), int)
        for observer, first, count in self._parts():
            observer.begin((chosen[(chosen >= first) & (chosen < first + count)] - first).tolist())

    def observe(self, values: Values, present: Mapping[str, NDArray[Any]]) -> Array:
        """Observe all."""
        parts = []
        for observer, first, count in self._parts():
            rows = slice(first, first + count)
            seen = observer.observe(
                {name: each[rows] for name, each in values.items()},
                {name: each[rows] for name, each in present.items()},
            )
            parts.append(padded(seen, self.size))
        return np.concatenate(parts)

    def _parts(self) -> Iterable[tuple[Observer, int, int]]:
        first = 0
        for observer, count in self._observers:
            yield observer, first, count
            first += count


def padded(seen: Array, size: int) -> Array:
    """Observations with zeros behind them: ``float32[N, size]``."""
    return np.pad(seen, ((0, 0), (0, size - seen.shape[1])))
