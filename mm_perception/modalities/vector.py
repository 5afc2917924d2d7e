"""Vectors of numbers: joint states, force, IMU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mm_perception.errors import ConfigError, InvalidInput
from mm_perception.modalities.base import (
    Array,
    Fault,
    Modality,
    Thresholds,
    beyond_range,
    register_kind,
    require_finite,
)
from mm_perception.spec import ModalitySpec


@dataclass(frozen=True)
class VectorOptions:
    """
    Range of each element in the sensor's unit, mapped to 0..1.

    :param low: value that becomes 0, one per element.
    :param high: value that becomes 1, one per element.
    :param names: of the elements, as in ``JointState.name``; may be empty.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    names: tuple[str, ...] = ()


@register_kind('vector')
class VectorModality(Modality[VectorOptions]):
    """Raw: ``float32[n]`` in the sensor's unit."""

    options_type = VectorOptions

    def __init__(self, spec: ModalitySpec) -> None:
        super().__init__(spec)
        self._low = np.asarray(self.options.low, np.float32)
        self._span = np.asarray(self.options.high, np.float32) - self._low
        if self._span.shape != self._low.shape or not (self._span > 0).all():
            raise ConfigError(f'{spec.name}: low and high need one pair low < high per element')

    @property
    def shape(self) -> tuple[int, ...]:
        """One element per number."""
        return self._low.shape

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the elements, where given."""
        return self.options.names

    def to_model(self, raw: Array) -> Array:
        """Scaled to 0..1 over the range, clipped: ``float32[n]``."""
        values = require_finite(raw, 'vector')
        if values.shape != self.shape:
            raise InvalidInput(f'vector has {values.size} elements; expected {self.shape[0]}')
        return np.clip((values - self._low) / self._span, 0.0, 1.0)

    def find_fault(self, raw: Array, array: Array, thresholds: Thresholds) -> Fault | None:
        """Find elements far outside of their range."""
        return beyond_range(np.asarray(raw), self._low, self._low + self._span, thresholds)

    @property
    def unit_scale(self) -> Array:
        """The span of each element."""
        return self._span

    def from_model(self, array: Array) -> Array:
        """Back in the sensor's unit, ``float32[n]``."""
        return np.asarray(array, np.float32) * self._span + self._low
