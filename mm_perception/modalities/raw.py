"""Raw sensor values, as they come from a message or a recording."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Waveform:
    """
    A piece of mono sound.

    :param samples: ``float32[n]`` in -1..1.
    :param rate_hz: samples per second.
    :param stream: the same object for overlapping pieces of one stream; None for a recording.
    :param start: position of the first sample in the stream.
    """

    samples: Array
    rate_hz: int
    stream: object = None
    start: int = 0

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return len(self.samples) / self.rate_hz


@dataclass(frozen=True)
class Motion:
    """
    A motion of a pen or an arm, or a piece of one.

    :param points: positions, ``float32[T, D]``, in the sensor's unit.
    :param times_s: seconds since the first point, ``float32[T]``, not decreasing.
    """

    points: Array
    times_s: Array


@dataclass(frozen=True)
class Stamped:
    """A raw value and the time at which it became complete (nanoseconds)."""

    raw: object
    stamp_ns: int
