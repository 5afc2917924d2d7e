"""What a policy may read instead of the joint latent, to compare with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mm_perception.engines.engine import Engine
from mm_perception.modalities import Modality
from mm_perception.modalities.base import Array
from mm_perception.rl.observation import Values

SMALL = 8
"""Sides of the images that a policy reads raw."""


class SideBySide(ABC):
    """
    Observer that puts features of all sensors one beside the other, and the mask.

    :param sizes: how many features each sensor has.
    :param held: what is missing keeps its last value; else it is zero.
    """

    def __init__(self, sizes: Mapping[str, int], count: int = 1, held: bool = False) -> None:
        self._held = held
        self._features = {n: np.zeros((count, size), np.float32) for n, size in sizes.items()}
        self.size = sum(sizes.values()) + len(sizes)

    @abstractmethod
    def features(self, name: str, values: Sequence[Any] | NDArray[Any]) -> Array:
        """Features of what a sensor gave, ``float32[B, size]``."""

    def begin(self, rows: Iterable[int]) -> None:
        """Forget what was before."""
        for k in rows:
            for features in self._features.values():
                features[k] = 0.0

    def observe(self, values: Values, present: Mapping[str, NDArray[Any]]) -> Array:
        """Features and mask, ``float32[N, size]``."""
        for name, features in self._features.items():
            rows = np.flatnonzero(present[name])
            if not self._held:
                features[:] = 0.0
            if len(rows):
                given = values[name]
                chosen = given[rows] if isinstance(given, np.ndarray) else [given[k] for k in rows]
                features[rows] = self.features(name, chosen)
        mask = np.stack([present[name] for name in self._features], -1).astype(np.float32)
        return np.concatenate([*self._features.values(), mask], -1)


class RawSensors(SideBySide):
    """
    Sensors' own values, brought from their range to -1 to 1; images at 8 by 8 pixels.

    :param sensors: their spaces by name.
    """

    def __init__(
        self, sensors: Mapping[str, spaces.Box], count: int = 1, held: bool = False
    ) -> None:
        self._sensors = dict(sensors)
        sizes = {
            name: SMALL * SMALL * space.shape[2] if len(space.shape) == 3 else space.shape[0]
            for name, space in sensors.items()
        }
        super().__init__(sizes, count, held)

    def features(self, name: str, values: Sequence[Any] | NDArray[Any]) -> Array:
        """Values scaled by the range of their space."""
        space, array = self._sensors[name], np.asarray(values, np.float32)
        low, high = space.low.astype(np.float32), space.high.astype(np.float32)
        scaled = (array - low) / (high - low) * 2.0 - 1.0
        if scaled.ndim == 4:
            sides = SMALL, SMALL
            small = [cv2.resize(each, sides, interpolation=cv2.INTER_AREA) for each in scaled]
            scaled = np.stack(small)
        return np.asarray(scaled.reshape(len(scaled), -1), np.float32)


class OwnLatents(SideBySide):
    """
    The latent that each modality has of its own, not fused.

    :param engine: of a bundle with such latents.
    :param modalities: of the bundle, by name.
    """

    def __init__(
        self,
        engine: Engine,
        modalities: Mapping[str, Modality[Any]],
        count: int = 1,
        held: bool = False,
    ) -> None:
        self._engine, self._modalities = engine, modalities
        self._own = {name: m.spec.latent_dim for name, m in modalities.items()}
        super().__init__(self._own, count, held)

    def features(self, name: str, values: Sequence[Any] | NDArray[Any]) -> Array:
        """Standardised mean of the modality's own latent."""
        code = self._engine.encode(name, self._modalities[name].to_models(values))
        return code[:, : self._own[name]]
