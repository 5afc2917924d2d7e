"""What every kind of modality offers: raw values, windows, faults, and the registry of kinds."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from mm_perception.config import described, from_plain
from mm_perception.errors import ConfigError, InvalidInput
from mm_perception.modalities.drawing import draw_bars
from mm_perception.spec import ModalitySpec

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


FROZEN, STILL, SILENT = 'frozen', 'still', 'silent'
BLACK, SATURATED, CLIPPED = 'black', 'saturated', 'clipped'
NOISY = 'noisy'
HOLES, OUT_OF_RANGE = 'holes', 'out_of_range'
SAMPLED_ROWS = 60
CONSTANT_STD = 1e-4
"""Standard deviation, of values in 0..1, up to which an element counts as constant."""


@dataclass(frozen=True)
class Trace:
    """
    What stays exactly equal from message to message while a sensor is stuck.

    :param mark: equal for equal data.
    :param fault: what it is called if it stays equal for too long; empty: normal.
    :param alone: a fault even if no other sensor changes meanwhile.
    """

    mark: bytes
    fault: str = ''
    alone: bool = False


@dataclass(frozen=True)
class Fault:
    """
    Something wrong with one complete value.

    :param name: one of the constants of this module.
    :param reason: one line with the figure.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Thresholds:
    """From where on a complete value is faulty; ``usual_std`` is that of the training data."""

    min_contrast: float = described(
        0.1,
        'Std of an image below which it is black or saturated, in parts of the std of the'
        ' training data.',
        0.0,
        1.0,
    )
    max_clipped: float = described(
        0.1, 'Share of the samples of a sound that may be at full scale.', 0.0, 1.0
    )
    range_margin: float = described(
        1.0,
        'How far a vector or a trajectory may lie outside of its configured range, in parts of'
        ' the range.',
        0.0,
        1e6,
    )
    max_invalid_fraction: float = described(
        0.5, 'Share of the pixels of a float image that may be NaN or infinity.', 0.0, 1.0
    )
    usual_std: float = 0.25


def sampled_rows(values: NDArray[Any]) -> NDArray[Any]:
    """View of some 60 whole rows, evenly spread."""
    return values[:: max(1, len(values) // SAMPLED_ROWS)]


def beyond_range(
    values: NDArray[Any], low: NDArray[Any], high: NDArray[Any], thresholds: Thresholds
) -> Fault | None:
    """
    Find values far outside of the range that is configured for them.

    :param values: ``float[..., n]``.
    :param low: ``float[n]``.
    :param high: ``float[n]``.
    """
    excess = np.maximum(low - values, values - high) / (high - low)
    worst = float(excess.max())
    if worst <= thresholds.range_margin:
        return None
    element = int(np.unravel_index(excess.argmax(), excess.shape)[-1])
    return Fault(
        OUT_OF_RANGE,
        f'element {element} lies {worst:.3g} spans outside of its range'
        f' {low[element]:.4g} to {high[element]:.4g}',
    )


def check_names(where: str, names: Sequence[str], count: int) -> None:
    """
    Check that every element has a name of its own, or none has one.

    :raises ConfigError: if not.
    """
    if names and (len(names) != count or len(set(names)) != count):
        raise ConfigError(f'{where}: names are {len(names)}; give {count} different ones or none')


Options = TypeVar('Options')


class Window(ABC):
    """How live data of one modality accumulates until a complete value is there."""

    def __init__(self) -> None:
        self._latest: Stamped | None = None

    @property
    def latest(self) -> Stamped | None:
        """The newest complete raw value, or None before the first."""
        return self._latest

    @property
    def pending(self) -> tuple[str, str]:
        """What the next value waits for: a fault, if it is one, and why; empty if unknown."""
        return '', ''

    @abstractmethod
    def push(self, raw: Any, stamp_ns: int) -> None:
        """
        Take what one message carried.

        :param stamp_ns: time of the message's header, nanoseconds.
        """

    def advance(self, now_ns: int) -> None:  # noqa: B027 - most windows need no time
        """Let time pass: a value that only silence can end becomes complete."""

    def clear(self) -> None:
        """Forget everything, as after a jump in time."""
        self._latest = None

    def resume(self, latest: Stamped | None) -> None:
        """Go on with the newest value of a window before."""
        self._latest = latest


class LatestWindow(Window):
    """Every message is a complete value."""

    def push(self, raw: Any, stamp_ns: int) -> None:
        """Keep the value, replacing the last."""
        self._latest = Stamped(raw, stamp_ns)


class Modality(ABC, Generic[Options]):
    """
    One kind of modality, configured: raw sensor value to model array and back.

    :param spec: the modality; its ``preprocessing`` holds options of the kind.
    :raises ConfigError: on unknown or wrong options.
    """

    options_type: ClassVar[type]

    def __init__(self, spec: ModalitySpec) -> None:
        self.spec = spec
        self.options: Options = from_plain(
            self.options_type, spec.preprocessing, f'{spec.name}.preprocessing'
        )

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one model array."""

    @abstractmethod
    def to_model(self, raw: Any) -> Array:
        """
        Turn a raw value into the model's array: the one transform of training and live.

        :returns: ``float32[shape]``.
        :raises InvalidInput: if the value cannot be used; says why.
        """

    def to_models(self, raws: Sequence[Any] | NDArray[Any]) -> Array:
        """
        Turn many raw values into model arrays, as :meth:`to_model` does each.

        :param raws: at least one.
        :returns: ``float32[N, *shape]``.
        :raises InvalidInput: if one of them cannot be used.
        """
        return np.stack([self.to_model(raw) for raw in raws])

    @abstractmethod
    def from_model(self, array: Array) -> Any:
        """
        Turn a model array back into a raw value.

        :param array: ``float32[shape]``.
        """

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the elements of the array; empty where they have none."""
        return ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Labels of which the array is one, one-hot; empty where the data are no label."""
        return ()

    @property
    def single(self) -> Modality[Any]:
        """What makes the value of one message: itself, but of a stack the kind of each."""
        return self

    def newest(self, array: Array) -> Array:
        """What of an array, or of its std, :attr:`single` would have made: all but of a stack."""
        return array

    @property
    def clips(self) -> bool:
        """Whether the array ends where a range in the sensor's unit does: beyond it is cut off."""
        return False

    @property
    def unit_scale(self) -> Array | float:
        """Sensor units per unit of the model's array; 1 where errors are told in the latter."""
        return 1.0

    def error(self, array: Array, truth: Array) -> float:
        """
        How far off a generated array is: root mean square, in the unit of :attr:`unit_scale`.

        :param array: ``float32[shape]``; ``truth``: what the sensor gave meanwhile.
        """
        return float(np.sqrt(np.square((array - truth) * self.unit_scale).mean()))

    def draw(self, array: Array, side: int) -> NDArray[Any]:
        """
        Draw a model array as a person can judge it; by default its values as bars.

        :param array: ``float32[shape]``.
        :param side: of the picture in pixels.
        :returns: ``uint8[side, side, 3]``, BGR.
        """
        return draw_bars(array, self.labels, side)

    @property
    def undecided(self) -> tuple[str, ...]:
        """Options that the configuration leaves to the training data; none of most kinds."""
        return ()

    def decide(self, raws: Sequence[Any]) -> dict[str, Any]:
        """
        Choose the :attr:`undecided` options.

        :param raws: raw values of the training data, at least one.
        :raises InvalidInput: if nothing can be chosen from them; says why.
        """
        return {}

    def new_window(self) -> Window:
        """Make the window through which live data of this modality arrives."""
        return LatestWindow()

    def trace(self, raw: Any) -> Trace:
        """
        What of a message's data would stay equal if the sensor were stuck.

        :param raw: what one message carried. Of this kind, equal data is no fault.
        """
        return Trace(np.asarray(raw).tobytes())

    def find_fault(self, raw: Any, array: Array, thresholds: Thresholds) -> Fault | None:
        """
        Find what is wrong with a complete value that can be read.

        :param array: what :meth:`to_model` made of it.
        """
        return None

    def plain_options(self) -> dict[str, Any]:
        """All options, defaults filled in, as plain data."""
        plain: dict[str, Any] = dataclasses.asdict(self.options)  # type: ignore[call-overload]
        return plain


_KINDS: dict[str, type[Modality[Any]]] = {}


def register_kind(name: str) -> Callable[[type[Modality[Any]]], type[Modality[Any]]]:
    """Make a kind of modality known under a name."""

    def keep(kind: type[Modality[Any]]) -> type[Modality[Any]]:
        _KINDS[name] = kind
        return kind

    return keep


def kinds() -> tuple[str, ...]:
    """Names of all registered kinds."""
    return tuple(_KINDS)


def find_kind(spec: ModalitySpec) -> type[Modality[Any]]:
    """
    Find the kind of a modality.

    :raises ConfigError: if there is none of that name.
    """
    if spec.kind not in _KINDS:
        raise ConfigError(
            f'{spec.name}: unknown kind "{spec.kind}"; known kinds: {", ".join(_KINDS)}'
        )
    return _KINDS[spec.kind]


def require_finite(values: NDArray[Any], what: str) -> Array:
    """
    Check that a value has elements, all of them finite.

    :raises InvalidInput: if it is empty or holds NaN or infinity.
    """
    array = np.asarray(values, dtype=np.float32)
    if array.size == 0:
        raise InvalidInput(f'{what} is empty')
    if not np.isfinite(array).all():
        raise InvalidInput(f'{what} holds NaN or infinity')
    return array
