"""Motions of a pen or an arm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mm_perception.errors import ConfigError, InvalidInput
from mm_perception.modalities.base import (
    STILL,
    Array,
    Fault,
    Modality,
    Motion,
    Stamped,
    Thresholds,
    Trace,
    Window,
    beyond_range,
    check_names,
    register_kind,
    require_finite,
)
from mm_perception.modalities.drawing import draw_curves, draw_path
from mm_perception.spec import ModalitySpec

MAX_POINTS = 10_000
LONG_STROKE_S = 2.0


@dataclass(frozen=True)
class TrajectoryOptions:
    """
    How a motion becomes an array.

    :param points: number of points after resampling.
    :param dimensions: coordinates per point.
    :param spacing: ``arc_length`` (shape only) or ``time`` (speed matters).
    :param low: per coordinate the value that becomes 0; empty: the motion's own bounding
        box fills the unit cube, aspect kept, centred.
    :param high: per coordinate the value that becomes 1.
    :param window: ``stroke`` (ends with a pause) or ``sliding`` (the last ``seconds``).
    :param pause_s: silence that ends a stroke of streamed points.
    :param merge_s: longest silence between two strokes of one motion, such as those of a 4.
    :param seconds: length of the sliding window.
    :param names: of the coordinates, in their order, as messages name them; may be empty.
    :param fields: of the message, by path, which give a point; empty: as its type is read.
    """

    points: int = 100
    dimensions: int = 2
    spacing: str = 'arc_length'
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    window: str = 'stroke'
    pause_s: float = 0.15
    merge_s: float = 0.5
    seconds: float = 2.0
    names: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()


@register_kind('trajectory')
class TrajectoryModality(Modality[TrajectoryOptions]):
    """Raw: a :class:`Motion` of ``float32[T, dimensions]``."""

    options_type = TrajectoryOptions

    def __init__(self, spec: ModalitySpec) -> None:
        super().__init__(spec)
        options = self.options
        for key, value, known in (
            ('spacing', options.spacing, ('arc_length', 'time')),
            ('window', options.window, ('stroke', 'sliding')),
        ):
            if value not in known:
                raise ConfigError(f'{spec.name}: {key} is "{value}"; known: {", ".join(known)}')
        if {len(options.low), len(options.high)} not in ({0}, {options.dimensions}):
            raise ConfigError(f'{spec.name}: low and high need {options.dimensions} values each')
        check_names(spec.name, options.names, options.dimensions)

    @property
    def shape(self) -> tuple[int]:
        """All coordinates of all points, point by point."""
        return (self.options.points * self.options.dimensions,)

    def to_model(self, raw: Motion) -> Array:
        """Resampled, scaled to 0..1, flat: ``float32[points * dimensions]``."""
        points = require_finite(raw.points, 'trajectory')
        if points.ndim != 2 or points.shape[1] != self.options.dimensions:
            raise InvalidInput(
                f'trajectory has shape {points.shape}; expected [T, {self.options.dimensions}]'
            )
        if not 2 <= len(points) <= MAX_POINTS:
            raise InvalidInput(f'trajectory has {len(points)} points; expected 2 to {MAX_POINTS}')
        position = self._position(points, raw)
        targets = np.linspace(0.0, position[-1], self.options.points)
        resampled = np.stack([np.interp(targets, position, column) for column in points.T], axis=1)
        return self._scale(resampled).astype(np.float32).reshape(-1)

    def from_model(self, array: Array) -> Motion:
        """A motion of ``points`` points over one second; in 0..1 unless a range is given."""
        points: Array = np.asarray(array, np.float32).reshape(-1, self.options.dimensions)
        if self.options.low:
            low = np.asarray(self.options.low, np.float32)
            points = low + points * (np.asarray(self.options.high, np.float32) - low)
        return Motion(points, np.linspace(0.0, 1.0, len(points), dtype=np.float32))

    @property
    def unit_scale(self) -> Array | float:
        """The span of each coordinate of each point, where a range is given."""
        span = np.subtract(self.options.high, self.options.low)
        return np.tile(span.astype(np.float32), self.options.points) if span.size else 1.0

    def draw(self, array: Array, side: int) -> NDArray[Any]:
        """The path in the plane; in other than two dimensions a curve per coordinate."""
        points = np.asarray(array, np.float64).reshape(-1, self.options.dimensions)
        draw = draw_path if self.options.dimensions == 2 else draw_curves
        return draw(points, side)

    def trace(self, raw: Motion) -> Trace:
        """A point of a stream that does not move; a whole motion may come again and again."""
        rests = len(raw.points) == 1 and self.options.spacing == 'arc_length'
        return Trace(raw.points.tobytes(), STILL if rests else '', alone=rests)

    def find_fault(self, raw: Motion, array: Array, thresholds: Thresholds) -> Fault | None:
        """Find points far outside of the range, where one is configured."""
        if not self.options.low:
            return None
        low, high = np.asarray(self.options.low), np.asarray(self.options.high)
        return beyond_range(raw.points, low, high, thresholds)

    @property
    def clips(self) -> bool:
        """At the ends of the range, where one is configured."""
        return bool(self.options.low)

    def new_window(self) -> Window:
        """A window that gathers streamed points, or takes whole motions as they are."""
        if self.options.window == 'sliding':
            return SlidingWindow(self.options.seconds)
        return StrokeWindow(self.options.pause_s, self.options.merge_s)

    def _position(self, points: Array, raw: Motion) -> NDArray[Any]:
        if self.options.spacing == 'time':
            times = require_finite(raw.times_s, 'trajectory times')
            if times.shape != (len(points),) or (np.diff(times) < 0).any():
                raise InvalidInput('trajectory times must be one per point and not decrease')
            position = times.astype(np.float64) - float(times[0])
        else:
            steps = np.linalg.norm(np.diff(points.astype(np.float64), axis=0), axis=1)
            position = np.concatenate(([0.0], np.cumsum(steps)))
        if position[-1] <= 0:
            raise InvalidInput('trajectory does not move', STILL)
        return position

    def _scale(self, points: NDArray[Any]) -> NDArray[Any]:
        if self.options.low:
            low, high = np.asarray(self.options.low), np.asarray(self.options.high)
            scaled = (points - low) / (high - low)
        else:
            low, high = points.min(axis=0), points.max(axis=0)
            scaled = (points - (low + high) / 2) / (high - low).max() + 0.5
        return np.asarray(np.clip(scaled, 0.0, 1.0))


class _PointsWindow(Window):
    """Common part: whole motions pass through, single points gather."""

    def __init__(self, span_s: float) -> None:
        super().__init__()
        self._span_ns = int(span_s * 1e9)
        self._points: list[NDArray[Any]] = []
        self._stamps: list[int] = []

    def push(self, raw: Motion, stamp_ns: int) -> None:
        """Take a whole motion, or one point of a stream."""
        if len(raw.points) > 1:
            self._latest = Stamped(raw, stamp_ns)
            return
        if self._stamps and stamp_ns < self._stamps[-1]:
            self.clear()
        self.advance(stamp_ns)
        self._points.append(np.asarray(raw.points[0], np.float32))
        self._stamps.append(stamp_ns)
        self._drop(len(self._stamps) - MAX_POINTS)

    def clear(self) -> None:
        """Forget the points of a motion that is under way, and the last value."""
        super().clear()
        self._points.clear()
        self._stamps.clear()

    def _drop(self, count: int) -> None:
        """Forget the oldest points, if ``count`` is above 0."""
        del self._points[: max(count, 0)], self._stamps[: max(count, 0)]

    def _complete(self) -> None:
        if len(self._points) > 1:
            times = (np.asarray(self._stamps) - self._stamps[0]) * 1e-9
            motion = Motion(np.stack(self._points), times.astype(np.float32))
            self._latest = Stamped(motion, self._stamps[-1])


class StrokeWindow(_PointsWindow):
    """
    A pen's motion: complete once the pen has paused for ``span_s``.

    A stroke that begins soon after another belongs to the same motion, as the second stroke of a
    4 does: both together are the value then.

    :param merge_s: longest pause within a motion.
    """

    def __init__(self, span_s: float, merge_s: float = 0.0) -> None:
        super().__init__(span_s)
        self._merge_ns = int(merge_s * 1e9)
        self._told = 0  # points of the motion that are part of the value already
        self._lone = False

    @property
    def pending(self) -> tuple[str, str]:
        """Say that the pen never pauses, or pauses after every point."""
        lasts_s = (self._stamps[-1] - self._stamps[self._told]) * 1e-9 if self._under_way else 0.0
        if lasts_s > LONG_STROKE_S:
            return '', (
                f'a stroke has gone on for {lasts_s:.3g} s without a pause of'
                f' {self._span_ns * 1e-9:.3g} s (pause_s); send points only while the pen is down,'
                ' or train with window: sliding'
            )
        if self._lone:
            return '', (
                f'its points come more than {self._span_ns * 1e-9:.3g} s apart (pause_s), so that'
                ' each ends a stroke; send them faster, or train with a longer pause_s'
            )
        return '', ''

    def clear(self) -> None:
        """Forget the strokes of a motion that is under way, and the last value."""
        super().clear()
        self._told, self._lone = 0, False

    def advance(self, now_ns: int) -> None:
        """End the stroke if the pen has paused, and the motion if it has paused for long."""
        if not self._stamps:
            return
        paused_ns = now_ns - self._stamps[-1]
        if paused_ns > self._span_ns and self._under_way:
            self._lone = len(self._stamps) - self._told == 1
            self._complete()
            self._told = len(self._stamps)
        if paused_ns > max(self._span_ns, self._merge_ns):
            self._points.clear()
            self._stamps.clear()
            self._told = 0

    def _drop(self, count: int) -> None:
        super()._drop(count)
        self._told = max(0, self._told - max(count, 0))

    @property
    def _under_way(self) -> bool:
        return len(self._stamps) > self._told


class SlidingWindow(_PointsWindow):
    """The last ``span_s`` of a continuous motion."""

    def push(self, raw: Motion, stamp_ns: int) -> None:
        """Take a whole motion, or one point of a stream, which moves the window on."""
        super().push(raw, stamp_ns)
        self._complete()

    def advance(self, now_ns: int) -> None:
        """Drop points that have left the window."""
        self._drop(sum(now_ns - stamp > self._span_ns for stamp in self._stamps))
