"""Vectors of numbers, labels and the joint posterior, and the arrays in which they leave."""

from __future__ import annotations

import re
from array import array as typed_array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
    as_bytes,
    as_sensor,
    finite_vector,
    load_messages,
    make_header,
    read_table,
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


@register_input('vector', PointCloud2)
def decode_stamped_array(
    message: PointCloud2, receipt_ns: int, modality: Modality[Any]
) -> tuple[NDArray[Any], int]:
    """Read an array that has a stamp: all of its FLOAT32 fields, one after the other."""
    columns = list(read_table(message).values())
    if not columns:
        raise InvalidInput('no FLOAT32 fields; an array has at least one')
    return finite_vector(np.concatenate(columns)), stamp_of(message.header, receipt_ns)


@register_write('vector', Float32MultiArray)
def _write_array(draft: Draft) -> Float32MultiArray:
    message = blank(Float32MultiArray, draft)
    values, _ = last_values(draft)
    kept = message.data[: message.layout.data_offset]
    message.data = kept + typed_array('f', np.asarray(values, np.float32).tobytes())
    return message


def array_message(
    values: NDArray[Any], labels: Sequence[str], header: Header | None = None
) -> Float32MultiArray:
    """
    Build an array message.

    :param values: ``float32[...]``.
    :param labels: one per dimension.
    :param header: what :func:`array_header` finds: it goes into the label of one more dimension,
        of size 1, so that the numbers stay where they are.
    """
    message = Float32MultiArray(
        data=typed_array('f', np.ascontiguousarray(values, np.float32).tobytes())
    )
    for k, label in enumerate(labels):
        size, stride = values.shape[k], int(np.prod(values.shape[k:]))
        message.layout.dim.append(MultiArrayDimension(label=label, size=size, stride=stride))
    if header is not None:
        label = f'{STAMPED} {header.stamp.sec}.{header.stamp.nanosec:09d} {header.frame_id}'
        message.layout.dim.append(MultiArrayDimension(label=label, size=1, stride=1))
    return message


STAMPED = 'stamp'


def array_header(message: Float32MultiArray) -> Header:
    """
    Stamp and frame of an array that this package sent.

    :raises InvalidInput: if it has none.
    """
    label = message.layout.dim[-1].label if message.layout.dim else ''
    found = re.fullmatch(rf'{STAMPED} (-?\d+)\.(\d{{9}}) (.*)', label)
    if found is None:
        raise InvalidInput(f'the last dimension is {label[:32]!r}; expected {STAMPED} and a time')
    return make_header(int(found[1]) * 1_000_000_000 + int(found[2]), found[3])


def _encode_vector(
    modality: Modality[Any], array: NDArray[Any], header: Header
) -> Float32MultiArray:
    return array_message(modality.from_model(array), [_label(modality)], header)


def _encode_plain(
    modality: Modality[Any], array: NDArray[Any], header: Header
) -> Float32MultiArray:
    return array_message(array, [_label(modality)], header)


def _encode_std(modality: Modality[Any], std: NDArray[Any], header: Header) -> Float32MultiArray:
    return array_message(std * modality.unit_scale, [_label(modality)], header)


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


NEVER_S = -1.0
"""Age of a modality that has never given a value, in ``latent``."""
_USED, _AGE = 'used_', 'age_'


@dataclass(frozen=True)
class Latent:
    """
    What ``latent`` carries.

    :param mean: ``float32[D]``.
    :param std: ``float32[D]``.
    :param used: modality to whether it took part, in the order of the bundle.
    :param ages_s: modality to the age of its newest value; ``NEVER_S`` before the first.
    :param stamp_ns: of the newest value that took part.
    :param frame_id: ``latent/<bundle>@<hash>``.
    """

    mean: NDArray[Any]
    std: NDArray[Any]
    used: Mapping[str, bool]
    ages_s: Mapping[str, float]
    stamp_ns: int
    frame_id: str


def latent_message(
    mean: NDArray[Any],
    std: NDArray[Any],
    header: Header,
    used: Mapping[str, bool] | None = None,
    ages_s: Mapping[str, float | None] | None = None,
) -> PointCloud2:
    """
    Build the message of a joint posterior.

    :param mean: ``float32[D]``.
    :param std: ``float32[D]``.
    :param used: modality to whether it took part; the same for all D points.
    :param ages_s: modality to the age of its newest value; None before the first.
    """
    columns = {'mean': mean, 'std': std}
    for name, flag in (used or {}).items():
        columns[f'{_USED}{name}'] = np.full(len(mean), flag, np.float32)
    for name, age_s in (ages_s or {}).items():
        columns[f'{_AGE}{name}'] = np.full(
            len(mean), NEVER_S if age_s is None else age_s, np.float32
        )
    return table_message(columns, header)


def read_latent(message: PointCloud2) -> Latent:
    """
    Read the message of a joint posterior.

    :raises InvalidInput: if it is none, or holds no finite numbers.
    """
    table = read_table(message)
    if not table.keys() >= {'mean', 'std'}:
        raise InvalidInput(f'fields are {", ".join(table)[:80]}; expected mean and std')
    if not all(np.isfinite(column).all() for column in table.values()):
        raise InvalidInput('latent holds NaN or infinity')
    facts = {name: float(column[0]) for name, column in table.items()}
    return Latent(
        table['mean'].astype(np.float32),
        table['std'].astype(np.float32),
        {n[len(_USED) :]: v > 0.5 for n, v in facts.items() if n.startswith(_USED)},
        {n[len(_AGE) :]: v for n, v in facts.items() if n.startswith(_AGE)},
        stamp_of(message.header, 0),
        message.header.frame_id,
    )


def latent_vector_message(
    mean: NDArray[Any], std: NDArray[Any], header: Header
) -> Float32MultiArray:
    """Build the same as an array, ``float32[2, D]``: means, then standard deviations."""
    return array_message(np.stack((mean, std)), ['statistic', 'latent'], header)


def latent_joints_message(mean: NDArray[Any], std: NDArray[Any], header: Header) -> JointState:
    """Build the same as names and numbers: the one standard type that has both, and a header."""
    names = [f'{kind}_{k}' for kind in ('mean', 'std') for k in range(len(mean))]
    values = np.concatenate((mean, std)).astype(np.float64)
    return JointState(header=header, name=names, position=typed_array('d', values.tobytes()))


def tensor_type() -> type:
    """
    Message type of a tensor as DLPack lays it out, in ROS 2 from Lyrical on.

    :raises MissingDependency: if it is not there.
    """
    messages = load_messages('tensor_msgs', 'ExperimentalTensor', 'publish.tensor')
    kind: type = messages.ExperimentalTensor
    return kind


def latent_tensor_message(mean: NDArray[Any], std: NDArray[Any]) -> Any:
    """Build the same as a tensor, ``float32[2, D]``, row by row."""
    values = np.stack((mean, std)).astype('<f4')
    floating, bits, lanes = 2, 32, 1  # DLPack's DLDataType
    return tensor_type()(
        dtype_code=floating,
        dtype_bits=bits,
        dtype_lanes=lanes,
        shape=list(values.shape),
        data=as_bytes(values),
    )
