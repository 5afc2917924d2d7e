"""Every parameter of the node ``cmi``: the defaults of thresholds stand in their dataclasses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from mm_perception.fusion.health import FALLBACKS, NO_OUTPUT, Checks, Limits
from mm_perception.modalities import build_modality
from mm_perception.modalities.base import Thresholds
from mm_perception.ros.cmi.watchdog import REACTIONS, RESTART
from mm_perception.ros.codecs import codec_for
from mm_perception.ros.lifecycle import EXECUTORS
from mm_perception.ros.parameters import Parameters, ParameterSpec, field_specs, listed
from mm_perception.spec import DEVICES, ENGINES, PRECISIONS, ModalitySpec

LIMITS_OF_ALL = ('future_s', 'backwards_s')
"""Thresholds of a modality that are set for all at once."""
HEALTH_SPECS = (
    *field_specs(Limits, 'health', LIMITS_OF_ALL),
    *field_specs(Checks, 'health'),
    *field_specs(Thresholds, 'health'),
)


TRIGGER_TIMER, TRIGGER_ANY, TRIGGER_STAMP = 'timer', 'any', 'stamp'
SYNC_ANY, SYNC_COMPLETE = 'any', 'complete'
OLD_FALLBACK, UNSET = 'when_nothing', 'unset'
NODE_SPECS = (
    ParameterSpec(
        'bundle', 'mhd', 'Trained bundle: a name under models/, or a folder.', structural=True
    ),
    ParameterSpec('device', 'auto', 'Where inference runs.', structural=True, choices=DEVICES),
    ParameterSpec(
        'engine',
        'auto',
        'What runs the model; auto: the fastest; tensorrt, which builds for minutes the first'
        ' time, only if asked for.',
        structural=True,
        choices=ENGINES,
    ),
    ParameterSpec(
        'precision',
        'float32',
        'What matrix products are computed in: int8 (large layers, engine onnx) makes a CPU'
        ' faster, 16 bits are for GPUs. At configure the engine is compared with float32 on the'
        ' CPU, and refused if it differs too much.',
        structural=True,
        choices=PRECISIONS,
    ),
    ParameterSpec(
        'threads',
        1,
        'Processor threads of one inference. More are a little faster, but spin between two;'
        ' 0: as many as a small model can use.',
        structural=True,
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
        'What starts a fusion: timer (at rate_hz), any (every new value), stamp (once per stamp:'
        ' when all that belongs to it has arrived or is overdue), or the name of a modality; with'
        ' all but the first the timer still fires when nothing arrives.',
        structural=True,
    ),
    ParameterSpec(
        'stamp.wait_s',
        0.02,
        'With trigger stamp, how long after the first value of a stamp the others are waited for'
        ' (s); what was overdue is not waited for again until it comes.',
        span=(0.0, 10.0),
    ),
    ParameterSpec(
        'sync',
        SYNC_ANY,
        'What is fused: any (whatever sensors are there), or complete (nothing but values of all'
        ' enabled modalities whose stamps lie within sync_slop_s).',
        structural=True,
        choices=(SYNC_ANY, SYNC_COMPLETE),
    ),
    ParameterSpec(
        'sync_slop_s',
        0.1,
        'How far apart the stamps of a complete set may lie (s).',
        structural=True,
        span=(0.0, 60.0),
    ),
    ParameterSpec(
        'stalled.reaction',
        RESTART,
        'What follows when ticks cease: restart (another thread, and if that does not help exit),'
        ' exit (with code 70, for who respawns the process), or report alone.',
        choices=REACTIONS,
    ),
    ParameterSpec(
        'stalled.after_s',
        5.0,
        'Time without a finished tick before that (s); it is reported after 1 s or 3 periods.',
        span=(1.0, 3600.0),
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
        'publish.tensor',
        False,
        'Publish the latent as a tensor of tensor_msgs too, which ROS 2 has from Lyrical on.',
        structural=True,
    ),
    ParameterSpec(
        'memory',
        True,
        'Whether a lost modality is filled in from its last good value too, where the bundle has'
        ' a memory; else from the others alone.',
    ),
    ParameterSpec(
        'fallback',
        NO_OUTPUT,
        'What is published while no modality can be used: nothing but ~/status (silent), the last'
        ' latent with its old stamp (hold), or the prior, mean 0 and std 1 (prior).',
        choices=FALLBACKS,
    ),
    ParameterSpec(
        OLD_FALLBACK,
        UNSET,
        'Old name of fallback, which it overrides where it is set.',
        choices=(UNSET, *FALLBACKS),
    ),
    *HEALTH_SPECS,
)


def modality_specs(spec: ModalitySpec) -> tuple[ParameterSpec, ...]:
    """Parameters of one modality, with its defaults from the bundle."""
    prefix = f'modalities.{spec.name}'
    limits = {each.name: each for each in field_specs(Limits, prefix)}
    codec = codec_for(build_modality(spec))
    topic = codec.topic_of(spec)
    return (
        ParameterSpec(f'{prefix}.topic', topic, 'Topic of the sensor.', structural=True),
        ParameterSpec(f'{prefix}.message', codec.heard, 'Type of its messages.', structural=True),
        ParameterSpec(
            f'{prefix}.filters',
            (),
            'Classes of filters of your own before the sensor is read, package.module.Class each;'
            ' their code is run.',
            local=True,
        ),
        limits[f'{prefix}.enabled'],
        replace(limits[f'{prefix}.max_age_s'], default=spec.max_age_s),
        replace(limits[f'{prefix}.frozen_s'], default=spec.frozen_s),
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
    stamp_wait_s: float
    sample: bool
    memory: bool
    reconstruct_all: bool
    std_samples: int
    fallback: str
    stalled_reaction: str
    stalled_after_s: float
    limits: Mapping[str, Limits]
    checks: Checks


def read_settings(parameters: Parameters, names: Iterable[str]) -> NodeSettings:
    """Read what can change at run time, for these modalities."""
    old = parameters[OLD_FALLBACK]
    health = _health_values(parameters)
    thresholds = Thresholds(**_of(Thresholds, health))
    checks = {**_of(Checks, health), 'tolerate': frozenset(listed(health['tolerate']))}
    limits = {}
    for name in names:
        own = f'modalities.{name}'
        limits[name] = replace(
            Limits(**_of(Limits, health)),
            enabled=parameters[f'{own}.enabled'],
            max_age_s=float(parameters[f'{own}.max_age_s']),
            frozen_s=float(parameters[f'{own}.frozen_s']),
            hold=parameters[f'{own}.policy'] == 'hold',
        )
    return NodeSettings(
        rate_hz=float(parameters['rate_hz']),
        stamp_wait_s=float(parameters['stamp.wait_s']),
        sample=parameters['latent.sample'],
        memory=parameters['memory'],
        reconstruct_all=parameters['publish.reconstruct'] == 'all',
        std_samples=parameters['publish.std_samples'],
        fallback=parameters['fallback'] if old == UNSET else old,
        stalled_reaction=parameters['stalled.reaction'],
        stalled_after_s=float(parameters['stalled.after_s']),
        limits=limits,
        checks=Checks(**checks, thresholds=thresholds),
    )


def _health_values(parameters: Parameters) -> dict[str, Any]:
    """Values of ``health.*``; a whole number that was given for a float is one."""
    return {
        spec.name.removeprefix('health.'): type(spec.default)(parameters[spec.name])
        for spec in HEALTH_SPECS
    }


def _of(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    return {each.name: values[each.name] for each in fields(kind) if each.name in values}
