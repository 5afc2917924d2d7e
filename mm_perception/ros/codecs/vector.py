"""Vectors of numbers, labels and the joint posterior, and the arrays in which they leave."""

from __future__ import annotations

from array import array as typed_array
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import JointState, PointCloud2
from std_msgs.msg import Float32MultiArray, Header, MultiArrayDimension, String

from mm_perception.errors import InvalidInput
from mm_perception.fusion.gathering import Named
from mm_perception.modalities import Modality
from mm_perception.ros.codecs.base import (
    Draft,
    OutputCodec,
    as_sensor,
    finite_vector,
    register_input,
    register_output,
    register_write,
    stamp_of,
    table_message,
)
from mm_perception.ros.codecs.fields import blank, last_values

MAX_LABEL = 256


@register_input('symbol', String)
def decode_symbol(message: String, receipt_ns: int, modality: Modality[Any]) -> tuple[str, int]:
    """Read a label, without the spaces around it; its time is that of receipt."""
    label = message.data[: MAX_LABEL + 1].strip()
    if not (label and len(message.data) <= MAX_LABEL):
        raise InvalidInput(f'label has {len(message.data)} characters; expected 1 to {MAX_LABEL}')
    return label, receipt_ns


@register_input('vector', JointState, depth=10, shared=True)
def decode_joint_state(
    message: JointState, receipt_ns: int, modality: Modality[Any]
) -> tuple[Any, int]:
    """Read joint positions: those that the modality names, in its order, or all of the first."""
    # While an import looks for the range, the message tells the size.
    count = len(modality.labels or message.position) if modality.undecided else modality.shape[0]
    part = joint_positions(message, modality.labels, count, lambda values: values)
    return part, stamp_of(message.header, receipt_ns)


@register_write('symbol', String)
def _write_symbol(draft: Draft) -> String:
    return String(data=draft.modality.from_model(draft.array))


@register_write('vector', JointState)
def write_joints(draft: Draft) -> JointState:
    """
    Joint states with these positions, of a motion those of its last point.

    Names and their order, and what else it holds, are those of the last message.
    """
    message = blank(JointState, draft)
    values, _ = last_values(draft)
    names = tuple(draft.modality.options.names)
    if names and set(names) <= set(message.name) and len(message.name) == len(message.position):
        positions = np.asarray(message.position)
        positions[[message.name.index(name) for name in names]] = values
    else:
        positions = np.asarray(values, np.float64)
        if len(message.name) != len(values):
            message.name = list(names)
            message.velocity, message.effort = [], []
    message.position = typed_array('d', positions.tobytes())
    return message


def joint_positions(
    message: JointState,
    wanted: tuple[str, ...],
    count: int,
    build: Callable[[NDArray[Any]], Any],
) -> Any:
    """
    Positions of a message with the names of their joints, or as they are where it names none.

    :param wanted: names that make a value, in its order; empty: those seen first.
    :param count: how many positions make a value.
    :param build: positions in that order, ``float32[count]``, to the raw value.
    :raises InvalidInput: if names and positions do not belong together.
    """
    if not (message.name or wanted):
        positions = finite_vector(message.position)
        if len(positions) != count:
            raise InvalidInput(f'{len(positions)} joint positions; expected {count}')
        return build(positions)
    require_names(message.name, wanted)
    if len(message.name) != len(message.position):
        raise InvalidInput(f'{len(message.name)} names but {len(message.position)} positions')
    with np.errstate(over='ignore'):
        values = np.asarray(message.position, np.float32)
    return Named(tuple(message.name), values, wanted, count, build)


def require_names(names: Sequence[str], wanted: tuple[str, ...]) -> None:
    """
    Check that a message names its joints, where the modality wants them by name.

    :raises InvalidInput: if it names none.
    """
    if not names:
        raise InvalidInput(f'no names of joints in the message; expected {", ".join(wanted[:4])}')


@register_input('vector', Float32MultiArray)
def decode_array(
    message: Float32MultiArray, receipt_ns: int, modality: Modality[Any]
) -> tuple[NDArray[Any], int]:
    """Read all numbers; their time is that of receipt."""
    start = message.layout.data_offset
    return finite_vector(message.data[start:]), receipt_ns


@register_write('vector', Float32MultiArray)
def _write_array(draft: Draft) -> Float32MultiArray:
    message = blank(Float32MultiArray, draft)
    values, _ = last_values(draft)
    kept = message.data[: message.layout.data_offset]
    message.data = kept + typed_array('f', np.asarray(values, np.float32).tobytes())
    return message


def array_message(values: NDArray[Any], labels: Sequence[str]) -> Float32MultiArray:
    """
    Build an array message.

    :param values: ``float32[...]``.
    :param labels: one per dimension.
    """
    message = Float32MultiArray(
        data=typed_array('f', np.ascontiguousarray(values, np.float32).tobytes())
    )
    for k, label in enumerate(labels):
        size, stride = values.shape[k], int(np.prod(values.shape[k:]))
        message.layout.dim.append(MultiArrayDimension(label=label, size=size, stride=stride))
    return message


def _encode_vector(
    modality: Modality[Any], array: NDArray[Any], header: Header
) -> Float32MultiArray:
    return array_message(modality.from_model(array), [_label(modality)])


def _encode_plain(
    modality: Modality[Any], array: NDArray[Any], header: Header
) -> Float32MultiArray:
    return array_message(array, [_label(modality)])


def _encode_std(modality: Modality[Any], std: NDArray[Any], header: Header) -> Float32MultiArray:
    return array_message(std * modality.unit_scale, [_label(modality)])


def _label(modality: Modality[Any]) -> str:
    return ','.join(modality.labels) or modality.spec.name


def _decode_plain(modality: Modality[Any], message: Float32MultiArray) -> NDArray[Any]:
    return np.asarray(message.data, np.float32).reshape(modality.shape)


register_output(
    'vector',
    OutputCodec(
        _encode_vector,
        Float32MultiArray,
        as_sensor(decode_array),
        _encode_std,
        Float32MultiArray,
    ),
)
register_output(
    'symbol',
    OutputCodec(_encode_plain, Float32MultiArray, _decode_plain, _encode_plain, Float32MultiArray),
)


def latent_message(mean: NDArray[Any], std: NDArray[Any], header: Header) -> PointCloud2:
    """
    Build the message of a joint posterior.

    :param mean: ``float32[D]``.
    :param std: ``float32[D]``.
    """
    return table_message({'mean': mean, 'std': std}, header)


def latent_vector_message(mean: NDArray[Any], std: NDArray[Any]) -> Float32MultiArray:
    """Build the same as a bare array, ``float32[2, D]``: means, then standard deviations."""
    return array_message(np.stack((mean, std)), ['statistic', 'latent'])
