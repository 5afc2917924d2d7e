"""Vectors of numbers: joint states, force, IMU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mm_perception.errors import ConfigError, InvalidInput
from mm_perception.modalities.base import (
    Array,
    Fault,
    Modality,
    Thresholds,
    beyond_range,
    check_names,
    register_kind,
    require_finite,
)
from mm_perception.modalities.stacking import StackOptions
from mm_perception.spec import ModalitySpec

RARE = 0.001
MARGIN = 0.5


@dataclass(frozen=True)
class VectorOptions(StackOptions):
    """
    Range of each element in the sensor's unit, mapped to 0..1.

    :param low: value that becomes 0, one per element; empty, like high: the import of the
        training data chooses.
    :param high: value that becomes 1, one per element.
    :param names: of the elements, as in ``JointState.name``; may be empty.
    :param fields: of the message, by path, which give the elements; empty: as its type is read.
    :param tf: ``target`` and ``source``, two frames: the elements are the transform that takes
        what is told in source into target, its translation and its rotation as 6 numbers.
    """

    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    tf: Mapping[str, str] = field(default_factory=dict)


@register_kind('vector')
class VectorModality(Modality[VectorOptions]):
    """Raw: ``float32[n]`` in the sensor's unit."""

    options_type = VectorOptions

    def __init__(self, spec: ModalitySpec) -> None:
        super().__init__(spec)
        self._low = np.asarray(self.options.low, np.float32)
        high = np.asarray(self.options.high, np.float32)
        if high.shape != self._low.shape or not (high > self._low).all():
            raise ConfigError(f'{spec.name}: low and high need one pair low < high per element')
        self._span = high - self._low
        check_names(spec.name, self.options.names, len(self._low) or len(self.options.names))
        tf = self.options.tf
        if tf and not (tf.keys() == {'target', 'source'} and len(set(tf.values()) - {''}) == 2):
            raise ConfigError(
                f'{spec.name}: preprocessing.tf is {dict(tf)}; give target and source, two frames'
            )
        if tf and (self.options.names or self.options.fields):
            raise ConfigError(f'{spec.name}: preprocessing.tf stands alone: no names, no fields')

    @property
    def shape(self) -> tuple[int, ...]:
        """
        One element per number.

        :raises ConfigError: while the range is undecided.
        """
        if self.undecided:
            raise ConfigError(
                f'{self.spec.name}: low and high are not known; import the split train, which'
                ' chooses them, or set them in preprocessing'
            )
        return self._low.shape

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the elements, where given, or their fields if each gives one."""
        fields = self.options.fields
        return self.options.names or (fields if len(fields) == len(self._low) else ())

    @property
    def undecided(self) -> tuple[str, ...]:
        """The range, where none is configured."""
        return () if self._low.size else ('low', 'high')

    def decide(self, raws: Sequence[Any]) -> dict[str, Any]:
        """Choose the range that the training data need: :func:`usual_range`."""
        sizes = {np.size(raw) for raw in raws}
        if len(sizes) > 1:
            raise InvalidInput(
                f'vectors have {" or ".join(map(str, sorted(sizes)))} elements; pick some with'
                ' names in preprocessing'
            )
        values = np.stack([np.asarray(raw, np.float64) for raw in raws])
        low, high = usual_range(values[np.isfinite(values).all(axis=1)])
        return {
            'low': tuple(float(f'{x:.6g}') for x in low),
            'high': tuple(float(f'{x:.6g}') for x in high),
        }

    def to_model(self, raw: Array) -> Array:
        """Scaled to 0..1 over the range, clipped: ``float32[n]``."""
        values = require_finite(raw, 'vector')
        if values.shape != self.shape:
            raise InvalidInput(f'vector has {values.size} elements; expected {self.shape[0]}')
        return np.clip((values - self._low) / self._span, 0.0, 1.0)

    def to_models(self, raws: Sequence[Any] | NDArray[Any]) -> Array:
        """Scaled and clipped, all at once where they are one array: ``float32[N, n]``."""
        if not isinstance(raws, np.ndarray) or raws.shape[1:] != self.shape:
            return super().to_models(raws)
        values = require_finite(raws, 'vector')
        return np.clip((values - self._low) / self._span, 0.0, 1.0)

    def find_fault(self, raw: Array, array: Array, thresholds: Thresholds) -> Fault | None:
        """Find elements far outside of their range."""
        return beyond_range(np.asarray(raw), self._low, self._low + self._span, thresholds)

    @property
    def clips(self) -> bool:
        """At the ends of the range."""
        return True

    @property
    def unit_scale(self) -> Array:
        """The span of each element."""
        return self._span

    def from_model(self, array: Array) -> Array:
        """Back in the sensor's unit, ``float32[n]``."""
        return np.asarray(array, np.float32) * self._span + self._low


def usual_range(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """
    Range of each element with a margin of half of it on either side.

    What lies farther from the middle 99.8 % than these are wide is taken for a glitch. An
    element that never changes gets the widest range of the others, so that noise on it stays
    small.

    :param values: ``float[N, n]``, finite.
    :returns: low and high, ``float[n]``.
    :raises InvalidInput: if there are no values.
    """
    if not len(values):
        raise InvalidInput('no finite vector to choose the range from')
    least, most = np.quantile(values, (RARE, 1.0 - RARE), axis=0)
    low = np.maximum(values.min(axis=0), least - (most - least))
    high = np.minimum(values.max(axis=0), most + (most - least))
    span = high - low
    constant = span <= 1e-6 * np.maximum(1.0, np.abs(high))
    widest = 1.0 if constant.all() else span[~constant].max()
    margin = np.where(constant, widest / 2.0, MARGIN * span)
    return low - margin, high + margin
