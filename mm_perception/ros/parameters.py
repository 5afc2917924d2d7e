"""Every parameter of the node, in one table: declared, checked, read and documented from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from mm_perception.inference.build import DEVICES, ENGINES, PRECISIONS
from mm_perception.ros.checks import WHEN_NOTHING, WHEN_SILENT, Checks, Limits
from mm_perception.ros.codecs import input_codec
from mm_perception.ros.health_parameters import HEALTH_ROWS, read_checks
from mm_perception.ros.lifecycle import EXECUTORS
from mm_perception.ros.rows import Row
from mm_perception.spec import ModalitySpec

TRIGGER_TIMER, TRIGGER_ANY = 'timer', 'any'


NODE_ROWS = (
    Row('bundle', 'mhd', 'Trained bundle: a name under models/, or a folder.', True),
    Row('device', 'auto', 'Where inference runs.', True, choices=DEVICES),
    Row(
        'engine',
        'auto',
        'What runs the model; auto: the fastest; tensorrt, which builds for minutes the first'
        ' time, only if asked for.',
        True,
        choices=ENGINES,
    ),
    Row(
        'precision',
        'float32',
        'What matrix products are computed in: int8 (large layers, engine onnx) makes a CPU'
        ' faster, 16 bits are for GPUs. At configure the engine is compared with float32 on the'
        ' CPU, and refused if it differs too much.',
        True,
        choices=PRECISIONS,
    ),
    Row(
        'threads',
        1,
        'Processor threads of one inference. More are a little faster, but spin between two;'
        ' 0: as many as a small model can use.',
        True,
        span=(0, 256),
    ),
    Row(
        'executor',
        'auto',
        'What serves the node: events (EventsExecutor, less work per message), single'
        ' (SingleThreadedExecutor), or auto: events where rclpy has it.',
        True,
        choices=EXECUTORS,
    ),
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
        'when_nothing',
        WHEN_SILENT,
        'What is published while no modality can be used: nothing but ~/status (silent), the last'
        ' latent with its old stamp (hold), or the prior, mean 0 and std 1 (prior).',
        choices=WHEN_NOTHING,
    ),
    *HEALTH_ROWS,
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
        future_s, backwards_s = (
            float(self[f'health.{key}']) for key in ('future_s', 'backwards_s')
        )
        return Settings(
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
