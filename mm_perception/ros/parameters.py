"""Every parameter of the node, in one table: declared, checked, read and documented from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from mm_perception.fusion.health import TOLERABLE, WHEN_NOTHING, WHEN_SILENT, Checks, Limits
from mm_perception.modalities.base import Thresholds
from mm_perception.ros.codecs import input_codec
from mm_perception.ros.lifecycle import EXECUTORS
from mm_perception.spec import DEVICES, ENGINES, PRECISIONS, ModalitySpec

Value = bool | int | float | str


@dataclass(frozen=True)
class ParameterSpec:
    """
    One parameter.

    :param default: its type is the parameter's; a float also takes whole numbers.
    :param read_only: part of the node's structure, set at start only.
    :param choices: the values that exist; empty if any will do.
    :param span: smallest and largest value of a number.
    :param several: a comma-separated list of choices, not one of them.
    """

    name: str
    default: Value
    description: str
    read_only: bool = False
    choices: tuple[str, ...] = ()
    span: tuple[float, float] | None = None
    several: bool = False

    @property
    def type_name(self) -> str:
        """Type as documentation writes it."""
        return type(self.default).__name__

    @property
    def constraint(self) -> str:
        """The choices in words; empty if anything will do."""
        kind = 'any of' if self.several else 'one of'
        return f'{kind}: {", ".join(self.choices)}' if self.choices else ''

    def check(self, value: Any) -> str:
        """Why a value cannot be set; empty if it can."""
        expected = (int, float) if isinstance(self.default, float) else type(self.default)
        if not isinstance(value, expected) or isinstance(value, bool) > isinstance(
            self.default, bool
        ):
            return f'{self.name}: expected {self.type_name}, got {value!r}'
        for part in listed(str(value)) if self.several else (value,):
            if self.choices and part not in self.choices:
                return f'{self.name}: "{part}" is not one of {", ".join(self.choices)}'
        if self.span and not self.span[0] <= float(value) <= self.span[1]:
            return f'{self.name}: {value} is not within {self.span[0]} to {self.span[1]}'
        return ''

    def descriptor(self) -> ParameterDescriptor:
        """Make the descriptor that ``ros2 param describe`` shows."""
        descriptor = ParameterDescriptor(
            description=self.description,
            read_only=self.read_only,
            additional_constraints=self.constraint,
            # So that a whole number is good for a float too.
            dynamic_typing=isinstance(self.default, float),
        )
        if self.span and isinstance(self.default, float):
            low, high = map(float, self.span)
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        elif self.span:
            low, high = map(int, self.span)
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
        return descriptor


def listed(text: str) -> tuple[str, ...]:
    """Parts of a comma-separated list."""
    return tuple(part.strip() for part in text.split(',') if part.strip())


HOUR_S = 3600.0
HEALTH_ROWS = (
    ParameterSpec(
        'health.future_s',
        0.5,
        'How far a stamp may lie in the future before its message is rejected (s).',
        span=(0.0, HOUR_S),
    ),
    ParameterSpec(
        'health.backwards_s',
        0.5,
        'How far a stamp may lie before the last one (s); beyond that, what was gathered is'
        ' forgotten.',
        span=(0.0, HOUR_S),
    ),
    ParameterSpec(
        'health.frozen_s',
        0.7,
        'How long a camera or microphone may repeat exactly the same data while another sensor'
        ' changes, or a streamed pen the same point (s); 0: for ever.',
        span=(0.0, HOUR_S),
    ),
    ParameterSpec(
        'health.silent_s',
        0.7,
        'How long a microphone may give nothing but digital zeros (s); 0: for ever.',
        span=(0.0, HOUR_S),
    ),
    ParameterSpec(
        'health.min_contrast',
        0.1,
        'Std of an image below which it is black or saturated, in parts of the std of the'
        ' training data.',
        span=(0.0, 1.0),
    ),
    ParameterSpec(
        'health.max_clipped',
        0.1,
        'Share of the samples of a sound that may be at full scale.',
        span=(0.0, 1.0),
    ),
    ParameterSpec(
        'health.range_margin',
        1.0,
        'How far a vector or a trajectory may lie outside of its configured range, in parts of'
        ' the range.',
        span=(0.0, 1e6),
    ),
    ParameterSpec(
        'health.max_invalid_fraction',
        0.5,
        'Share of the pixels of a float image that may be NaN or infinity.',
        span=(0.0, 1.0),
    ),
    ParameterSpec(
        'health.tolerate',
        '',
        'Faults that are reported but take no modality out, separated by commas.',
        choices=TOLERABLE,
        several=True,
    ),
    ParameterSpec(
        'health.flaps',
        5,
        'Dropouts within health.flap_s that hold a modality out until it is steady; 0: never.',
        span=(0, 1000),
    ),
    ParameterSpec(
        'health.flap_s',
        5.0,
        'Time within which dropouts are counted (s).',
        span=(0.1, HOUR_S),
    ),
    ParameterSpec(
        'health.steady_s',
        2.0,
        'How long a modality that was held out must be well before it is used again (s).',
        span=(0.0, HOUR_S),
    ),
    ParameterSpec(
        'health.agreement',
        True,
        'Whether the modalities are compared with each other; needs a bundle that is calibrated'
        ' for it.',
    ),
    ParameterSpec(
        'health.exclude_inconsistent',
        True,
        'Whether a modality that the others contradict is left out of the fusion.',
    ),
    ParameterSpec(
        'health.inconsistent_s',
        0.5,
        'How long the others must contradict a modality before it is inconsistent (s).',
        span=(0.0, HOUR_S),
    ),
)


class Values(Protocol):
    """Parameters by name."""

    def __getitem__(self, name: str) -> Any:
        """Value of a parameter."""
        ...


def read_checks(values: Values) -> Checks:
    """Read the thresholds that hold for all modalities."""
    read = {row.name.removeprefix('health.'): values[row.name] for row in HEALTH_ROWS}
    names = ('min_contrast', 'max_clipped', 'range_margin', 'max_invalid_fraction')
    return Checks(
        frozen_s=float(read['frozen_s']),
        silent_s=float(read['silent_s']),
        thresholds=Thresholds(**{name: float(read[name]) for name in names}),
        tolerate=frozenset(listed(read['tolerate'])),
        flaps=read['flaps'],
        flap_s=float(read['flap_s']),
        steady_s=float(read['steady_s']),
        agreement=read['agreement'],
        exclude_inconsistent=read['exclude_inconsistent'],
        inconsistent_s=float(read['inconsistent_s']),
    )


TRIGGER_TIMER, TRIGGER_ANY = 'timer', 'any'
NODE_ROWS = (
    ParameterSpec('bundle', 'mhd', 'Trained bundle: a name under models/, or a folder.', True),
    ParameterSpec('device', 'auto', 'Where inference runs.', True, choices=DEVICES),
    ParameterSpec(
        'engine',
        'auto',
        'What runs the model; auto: the fastest; tensorrt, which builds for minutes the first'
        ' time, only if asked for.',
        True,
        choices=ENGINES,
    ),
    ParameterSpec(
        'precision',
        'float32',
        'What matrix products are computed in: int8 (large layers, engine onnx) makes a CPU'
        ' faster, 16 bits are for GPUs. At configure the engine is compared with float32 on the'
        ' CPU, and refused if it differs too much.',
        True,
        choices=PRECISIONS,
    ),
    ParameterSpec(
        'threads',
        1,
        'Processor threads of one inference. More are a little faster, but spin between two;'
        ' 0: as many as a small model can use.',
        True,
        span=(0, 256),
    ),
    ParameterSpec(
        'executor',
        'auto',
        'What serves the node: events (EventsExecutor, less work per message), single'
        ' (SingleThreadedExecutor), or auto: events where rclpy has it.',
        True,
        choices=EXECUTORS,
    ),
    ParameterSpec(
        'trigger',
        TRIGGER_TIMER,
        'What starts a fusion: timer (at rate_hz), any (every new value), or the name of a'
        ' modality; with the latter two the timer still fires when nothing arrives.',
        True,
    ),
    ParameterSpec('autostart', False, 'Configure and activate without a lifecycle manager.', True),
    ParameterSpec('rate_hz', 10.0, 'Rate of the timer.', span=(0.1, 1000.0)),
    ParameterSpec(
        'latent.sample', False, 'Generate from a sample of the latent instead of its mean.'
    ),
    ParameterSpec(
        'publish.reconstruct',
        'missing',
        'Which modalities reconstruction/<modality> is published for.',
        choices=('missing', 'all'),
    ),
    ParameterSpec(
        'publish.std_samples',
        16,
        'Latent samples behind reconstruction/<modality>/std.',
        span=(2, 256),
    ),
    ParameterSpec(
        'when_nothing',
        WHEN_SILENT,
        'What is published while no modality can be used: nothing but ~/status (silent), the last'
        ' latent with its old stamp (hold), or the prior, mean 0 and std 1 (prior).',
        choices=WHEN_NOTHING,
    ),
    *HEALTH_ROWS,
)


def modality_rows(spec: ModalitySpec) -> tuple[ParameterSpec, ...]:
    """Parameters of one modality, with its defaults from the bundle."""
    prefix = f'modalities.{spec.name}'
    return (
        ParameterSpec(f'{prefix}.topic', spec.topic or spec.name, 'Topic of the sensor.', True),
        ParameterSpec(
            f'{prefix}.message',
            input_codec(spec.kind, spec.message).name,
            'Type of its messages.',
            True,
        ),
        ParameterSpec(
            f'{prefix}.enabled', True, 'Whether the modality may take part in the fusion.'
        ),
        ParameterSpec(
            f'{prefix}.max_age_s',
            spec.max_age_s,
            'Age by header time up to which a value is fresh (s).',
            span=(0.001, 86400.0),
        ),
        ParameterSpec(
            f'{prefix}.policy',
            'drop',
            'What becomes of a stale value: drop (the modality is missing) or hold (used still).',
            choices=('drop', 'hold'),
        ),
    )


@dataclass(frozen=True)
class NodeSettings:
    """All parameters that can change while the node runs, read at once."""

    rate_hz: float
    sample: bool
    reconstruct_all: bool
    std_samples: int
    when_nothing: str
    limits: Mapping[str, Limits]
    checks: Checks


class Parameters:
    """
    Declares rows on a node, and answers for them.

    :param node: the node; its checks of new values are installed here.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._rows: dict[str, ParameterSpec] = {}
        node.add_on_set_parameters_callback(self._check)

    def declare(self, rows: Iterable[ParameterSpec]) -> None:
        """
        Declare parameters that are not declared yet.

        :raises rclpy.exceptions.ParameterException: if a value given at start is wrong.
        """
        for row in rows:
            if row.name in self._rows:
                continue
            self._rows[row.name] = row
            self._node.declare_parameter(row.name, row.default, row.descriptor())

    def __getitem__(self, name: str) -> Any:
        """Value of a parameter."""
        return self._node.get_parameter(name).value

    def settings(self, names: Iterable[str]) -> NodeSettings:
        """Read what can change at run time, for these modalities."""
        future_s, backwards_s = (
            float(self[f'health.{key}']) for key in ('future_s', 'backwards_s')
        )
        return NodeSettings(
            rate_hz=float(self['rate_hz']),
            sample=self['latent.sample'],
            reconstruct_all=self['publish.reconstruct'] == 'all',
            std_samples=self['publish.std_samples'],
            when_nothing=self['when_nothing'],
            checks=read_checks(self),
            limits={
                name: Limits(
                    enabled=self[f'modalities.{name}.enabled'],
                    max_age_s=float(self[f'modalities.{name}.max_age_s']),
                    hold=self[f'modalities.{name}.policy'] == 'hold',
                    future_s=future_s,
                    backwards_s=backwards_s,
                )
                for name in names
            },
        )

    def _check(self, parameters: list[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            row = self._rows.get(parameter.name)
            reason = row.check(parameter.value) if row else ''
            if reason:
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)
