"""Short stacks of values, and how any modality is built."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mm_perception.errors import ConfigError
from mm_perception.modalities.base import (
    Array,
    Fault,
    Modality,
    Stamped,
    Thresholds,
    Trace,
    Window,
    find_kind,
)
from mm_perception.spec import ModalitySpec

OFF = 0.6
"""How far a value may lie from where it is wanted, in strides."""
MOST_FRAMES = 64
LONGEST_S = 60.0


@dataclass(frozen=True)
class StackOptions:
    """
    Values of a moment ago beside the newest, so that velocities are known.

    :param frames: how many values make one; 1 for the newest alone.
    :param stride_s: time between them, in seconds.
    """

    frames: int = field(default=1, kw_only=True)
    stride_s: float = field(default=0.1, kw_only=True)


@dataclass(frozen=True)
class Stack:
    """
    Raw values of one sensor.

    :param raws: the oldest first, a stride apart.
    """

    raws: tuple[Any, ...]


class StackWindow(Window):
    """
    Every message completes a stack, once enough have come.

    :param options: how many values, and how far apart.
    """

    def __init__(self, options: StackOptions) -> None:
        super().__init__()
        self._frames, self._stride_ns = options.frames, options.stride_s * 1e9
        self._values: deque[Stamped] = deque()

    @property
    def pending(self) -> tuple[str, str]:
        """Say that values of a moment ago are lacking."""
        if self._latest is not None or not self._values:
            return '', ''
        return '', f'{self._frames} values {self._stride_ns * 1e-9:.3g} s apart are needed'

    def push(self, raw: Any, stamp_ns: int) -> None:
        """Take a value; without those before it, within their time, there is no stack."""
        values = self._values
        if values and stamp_ns < values[-1].stamp_ns:
            values.clear()
        values.append(Stamped(raw, stamp_ns))
        reach_ns = (self._frames - 1 + OFF) * self._stride_ns
        while stamp_ns - values[0].stamp_ns > reach_ns:
            values.popleft()
        wanted = [stamp_ns - k * self._stride_ns for k in reversed(range(self._frames))]
        found = [min(values, key=lambda v: abs(v.stamp_ns - at)) for at in wanted]
        off_ns = max(abs(value.stamp_ns - at) for value, at in zip(found, wanted))
        complete = off_ns <= OFF * self._stride_ns
        stack = Stack(tuple(value.raw for value in found))
        self._latest = Stamped(stack, stamp_ns) if complete else None

    def clear(self) -> None:
        """Forget all values."""
        super().clear()
        self._values.clear()


class Stacked(Modality[Any]):
    """
    A modality of another kind whose array holds several values, along the first axis.

    :param kind: that makes each of them.
    """

    def __init__(self, kind: Modality[Any]) -> None:
        self.spec, self.options, self.kind = kind.spec, kind.options, kind
        frames, stride_s = kind.options.frames, kind.options.stride_s
        if not (1 <= frames <= MOST_FRAMES and 0.0 < stride_s * frames <= LONGEST_S):
            raise ConfigError(
                f'{kind.spec.name}: frames must be 1 to {MOST_FRAMES}, and stride_s more than 0;'
                f' together up to {LONGEST_S:.0f} s'
            )
        self._frames = frames

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the kind, the first axis so many times as long."""
        first, *rest = self.kind.shape
        return first * self._frames, *rest

    def to_model(self, raw: Stack) -> Array:
        """Arrays of all values, the oldest first, along the first axis: ``float32[shape]``."""
        return np.concatenate([self.kind.to_model(each) for each in raw.raws])

    def from_model(self, array: Array) -> Any:
        """Raw value of the newest."""
        return self.kind.from_model(self.newest(array))

    @property
    def single(self) -> Modality[Any]:
        """The kind of each value."""
        return self.kind

    def newest(self, array: Array) -> Array:
        """The last values of the first axis."""
        return array[-self.kind.shape[0] :]

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the elements of one value."""
        return self.kind.labels

    @property
    def unit_scale(self) -> Array | float:
        """As of the kind, for all values."""
        scale = self.kind.unit_scale
        return np.tile(scale, self._frames) if isinstance(scale, np.ndarray) else scale

    @property
    def clips(self) -> bool:
        """As of the kind."""
        return self.kind.clips

    def error(self, array: Array, truth: Array) -> float:
        """As of the kind, of the newest values."""
        return self.kind.error(self.newest(array), self.newest(truth))

    def draw(self, array: Array, side: int) -> NDArray[Any]:
        """Draw the newest value."""
        return self.kind.draw(self.newest(array), side)

    @property
    def undecided(self) -> tuple[str, ...]:
        """As of the kind."""
        return self.kind.undecided

    def decide(self, raws: Sequence[Any]) -> dict[str, Any]:
        """Choose from values, or the newest of every stack."""
        return self.kind.decide([r.raws[-1] if isinstance(r, Stack) else r for r in raws])

    def new_window(self) -> Window:
        """Make the window that gathers values."""
        return StackWindow(self.options)

    def trace(self, raw: Any) -> Trace:
        """As of the kind: of what one message carried."""
        return self.kind.trace(raw)

    def find_fault(self, raw: Stack, array: Array, thresholds: Thresholds) -> Fault | None:
        """Judge the newest value."""
        return self.kind.find_fault(raw.raws[-1], self.newest(array), thresholds)


def build_modality(spec: ModalitySpec) -> Modality[Any]:
    """
    Build the transforms of a modality.

    :raises ConfigError: if the kind is unknown or an option is wrong.
    """
    kind = find_kind(spec)(spec)
    options = kind.options
    if isinstance(options, StackOptions) and options.frames != 1:
        return Stacked(kind)
    return kind


def complete_options(spec: ModalitySpec) -> Mapping[str, Any]:
    """All preprocessing options of a modality, with the defaults of its kind."""
    return build_modality(spec).plain_options()
