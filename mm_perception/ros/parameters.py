"""Every parameter of the node, in one table: declared, checked, read and documented from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from mm_perception.inference.engine import DEVICES
from mm_perception.ros.codecs import input_codec
from mm_perception.ros.health import Limits
from mm_perception.spec import ModalitySpec

Value = bool | int | float | str
TRIGGER_TIMER, TRIGGER_ANY = 'timer', 'any'


@dataclass(frozen=True)
class Row:
    """
    One parameter.

    :param default: its type is the parameter's; a float also takes whole numbers.
    :param read_only: part of the node's structure, set at start only.
    :param choices: the values that exist; empty if any will do.
    :param span: smallest and largest value of a number.
    """

    name: str
    default: Value
    description: str
    read_only: bool = False
    choices: tuple[str, ...] = ()
    span: tuple[float, float] | None = None

    @property
    def type_name(self) -> str:
        """Type as documentation writes it."""
        return type(self.default).__name__

    def check(self, value: Any) -> str:
        """Why a value cannot be set; empty if it can."""
        expected = (int, float) if isinstance(self.default, float) else type(self.default)
        if not isinstance(value, expected) or isinstance(value, bool) > isinstance(
            self.default, bool
        ):
            return f'{self.name}: expected {self.type_name}, got {value!r}'
        if self.choices and value not in self.choices:
            return f'{self.name}: "{value}" is not one of {", ".join(self.choices)}'
        if self.span and not self.span[0] <= float(value) <= self.span[1]:
            return f'{self.name}: {value} is not within {self.span[0]} to {self.span[1]}'
        return ''

    def descriptor(self) -> ParameterDescriptor:
        """Make the descriptor that ``ros2 param describe`` shows."""
        descriptor = ParameterDescriptor(
            description=self.description,
            read_only=self.read_only,
            additional_constraints=f'one of: {", ".join(self.choices)}' if self.choices else '',
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


NODE_ROWS = (
    Row('bundle', 'mhd', 'Trained bundle: a name under models/, or a folder.', True),
    Row('device', 'auto', 'Where inference runs.', True, choices=DEVICES),
    Row(
        'trigger',
        TRIGGER_TIMER,
        'What starts a fusion: timer (at rate_hz), any (every new value), or the name of a'
        ' modality; with the latter two the timer still fires when nothing arrives.',
        True,
    ),
    Row('autostart', False, 'Configure and activate without a lifecycle manager.', True),
    Row('rate_hz', 10.0, 'Rate of the timer.', span=(0.1, 1000.0)),
    Row('latent.sample', False, 'Generate from a sample of the latent instead of its mean.'),
    Row(
        'publish.reconstruct',
        'missing',
        'Which modalities reconstruction/<modality> is published for.',
        choices=('missing', 'all'),
    ),
    Row(
        'publish.std_samples',
        16,
        'Latent samples behind reconstruction/<modality>/std.',
        span=(2, 256),
    ),
    Row(
        'health.future_s',
        0.5,
        'How far a stamp may lie in the future before its message is rejected (s).',
        span=(0.0, 3600.0),
    ),
)


def modality_rows(spec: ModalitySpec) -> tuple[Row, ...]:
    """Parameters of one modality, with its defaults from the bundle."""
    prefix = f'modalities.{spec.name}'
    return (
        Row(f'{prefix}.topic', spec.topic or spec.name, 'Topic of the sensor.', True),
        Row(
            f'{prefix}.message',
            input_codec(spec.kind, spec.message).name,
            'Type of its messages.',
            True,
        ),
        Row(f'{prefix}.enabled', True, 'Whether the modality may take part in the fusion.'),
        Row(
            f'{prefix}.max_age_s',
            spec.max_age_s,
            'Age by header time up to which a value is fresh (s).',
            span=(0.001, 86400.0),
        ),
        Row(
            f'{prefix}.policy',
            'drop',
            'What becomes of a stale value: drop (the modality is missing) or hold (used still).',
            choices=('drop', 'hold'),
        ),
    )


@dataclass(frozen=True)
class Settings:
    """All parameters that can change while the node runs, read at once."""

    rate_hz: float
    sample: bool
    reconstruct_all: bool
    std_samples: int
    limits: Mapping[str, Limits]


class Parameters:
    """
    Declares rows on a node, and answers for them.

    :param node: the node; its checks of new values are installed here.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._rows: dict[str, Row] = {}
        node.add_on_set_parameters_callback(self._check)

    def declare(self, rows: Iterable[Row]) -> None:
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

    def settings(self, names: Iterable[str]) -> Settings:
        """Read what can change at run time, for these modalities."""
        future_s = float(self['health.future_s'])
        return Settings(
            rate_hz=float(self['rate_hz']),
            sample=self['latent.sample'],
            reconstruct_all=self['publish.reconstruct'] == 'all',
            std_samples=self['publish.std_samples'],
            limits={
                name: Limits(
                    enabled=self[f'modalities.{name}.enabled'],
                    max_age_s=float(self[f'modalities.{name}.max_age_s']),
                    hold=self[f'modalities.{name}.policy'] == 'hold',
                    future_s=future_s,
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
