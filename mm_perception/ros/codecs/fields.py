"""Any message whose numbers or label are named by path, or in a table here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from geometry_msgs.msg import TransformStamped
from numpy.typing import NDArray

from mm_perception.errors import ConfigError, InvalidInput
from mm_perception.fusion.gathering import Named
from mm_perception.modalities import Modality, Motion
from mm_perception.ros.codecs.base import (
    Decode,
    Draft,
    InputCodec,
    Relay,
    finite_vector,
    input_codec,
    message_name,
    register_later,
    restamped,
    stamp_of,
)
from mm_perception.ros.codecs.paths import Path, compile_path, joined
from mm_perception.ros.codecs.places import fields_of, find_place, import_message, is_number
from mm_perception.ros.codecs.transforms import LATCHED_TOPIC, NAME, TOPIC, Frames

SIZES = 8, 16, 32, 64
USUAL: dict[str, dict[str, tuple[str, ...]]] = {
    'vector': {
        'sensor_msgs/msg/Imu': ('angular_velocity', 'linear_acceleration'),
        'geometry_msgs/msg/WrenchStamped': ('wrench',),
        'geometry_msgs/msg/Twist': ('linear', 'angular'),
        'geometry_msgs/msg/TwistStamped': ('twist',),
        'geometry_msgs/msg/Pose': ('position', 'orientation'),
        'geometry_msgs/msg/PoseStamped': ('pose',),
        'geometry_msgs/msg/TransformStamped': ('transform',),
        'geometry_msgs/msg/Vector3Stamped': ('vector',),
        'nav_msgs/msg/Odometry': ('pose.pose', 'twist.twist'),
        'control_msgs/msg/GripperCommand': ('position', 'max_effort'),
        'sensor_msgs/msg/LaserScan': ('ranges',),
        'sensor_msgs/msg/Range': ('range',),
        'sensor_msgs/msg/NavSatFix': ('latitude', 'longitude', 'altitude'),
        'sensor_msgs/msg/BatteryState': ('voltage',),
        'sensor_msgs/msg/MagneticField': ('magnetic_field',),
        'sensor_msgs/msg/Temperature': ('temperature',),
        'std_msgs/msg/Float32': ('data',),
        'std_msgs/msg/Float64': ('data',),
        'std_msgs/msg/Float64MultiArray': ('data',),
    },
    'symbol': {
        f'std_msgs/msg/{kind}': ('data',)
        for kind in ('Bool', *(f'{sign}nt{size}' for sign in ('I', 'UI') for size in SIZES))
    },
}
"""Fields of types that are read so where none are named."""
DEPTH = {'vector': 10, 'trajectory': 200, 'symbol': 1}


def codec_for(modality: Modality[Any], message: str = '') -> InputCodec:
    """
    Find or make the codec of a sensor.

    :param message: its type; empty for that of the modality.
    :raises ConfigError: if that kind cannot come in that message, or a field does not exist.
    """
    modality = modality.single
    name = old_name(message or modality.spec.message)
    try:
        codec = _find(modality, name)
    except ConfigError as error:
        raise ConfigError(f'{modality.spec.name}: {error}') from error
    if codec.streamed and modality.options.window != 'sliding':
        return replace(codec, write=None)  # points that make a stroke are no motion by themselves
    return codec


def _find(modality: Modality[Any], name: str) -> InputCodec:
    kind, options = modality.spec.kind, modality.options
    if tf := getattr(options, 'tf', None):
        return _transform(tf, name)
    fields = tuple(getattr(options, 'fields', ()))
    if not fields and getattr(options, 'values', {}):
        fields = USUAL[kind].get(name, ('data',))
    if not fields:
        try:
            return input_codec(kind, name)
        except ConfigError as error:
            remedy = '; or name its fields in preprocessing.fields' if kind in DEPTH else ''
            raise ConfigError(f'{error}{remedy}') from error
    if not name:
        raise ConfigError(
            'preprocessing.fields needs the type of the message; set message, such as'
            ' nav_msgs/msg/Odometry'
        )
    return _build(kind, options, import_message(name), fields)


def _transform(tf: Mapping[str, str], name: str) -> InputCodec:
    """A TransformStamped made of what comes on /tf; what stands in for it is one too."""
    codec = input_codec('vector', message_name(TransformStamped))
    if name not in ('', NAME, codec.name):
        raise ConfigError(f'preprocessing.tf reads {NAME}, not {name}; leave message out')
    write = codec.write
    assert write is not None

    def framed(draft: Draft) -> Any:
        message = write(draft)
        message.header.frame_id, message.child_frame_id = tf['target'], tf['source']
        return message

    relay = Relay(NAME, TOPIC, LATCHED_TOPIC, lambda: Frames(tf['target'], tf['source']).take)
    return replace(codec, write=framed, relay=relay)


def old_name(name: str) -> str:
    """Name of a type as ROS 2 writes it, of one that may be written as ROS 1 did."""
    return name.replace('/', '/msg/') if name.count('/') == 1 else name


def _build(kind: str, options: Any, message_type: type, fields: Sequence[str]) -> InputCodec:
    name = message_name(message_type)
    if kind == 'symbol':
        label = _Label(message_type, fields, {} if options is None else options.values)
        decode, write = _with_stamp(message_type, label.read), label.write
        return InputCodec(name, message_type, decode, DEPTH[kind], write=write)
    paths = [compile_path(text, message_type) for text in fields]
    whole = joined(', '.join(fields), paths)
    if kind == 'trajectory' and whole.count != options.dimensions:
        raise ConfigError(
            f'fields give {whole.count or "any number of"} numbers; dimensions is'
            f' {options.dimensions}'
        )
    build = _point if kind == 'trajectory' else _itself
    named = any(path.name for path in paths)
    read = _named_reader(paths, build) if named else _plain_reader(whole, build)
    takes_std = any(each is not None for each in whole.variances)
    write = partial(_write, message_type, whole, _unknown(whole, message_type))
    decode, streamed = _with_stamp(message_type, read), kind == 'trajectory'
    return InputCodec(
        name, message_type, decode, DEPTH[kind], named, streamed, write, takes_std=takes_std
    )


def _with_stamp(message_type: type, read: Callable[[Any], Any]) -> Decode:
    if 'header' in fields_of(message_type):
        return lambda message, receipt_ns, modality: (
            read(message),
            stamp_of(message.header, receipt_ns),
        )
    return lambda message, receipt_ns, modality: (read(message), receipt_ns)


def _itself(values: NDArray[Any]) -> Any:
    return values


def _point(values: NDArray[Any]) -> Motion:
    return Motion(values[None], np.zeros(1, np.float32))


def _plain_reader(whole: Path, build: Callable[[NDArray[Any]], Any]) -> Callable[[Any], Any]:
    return lambda message: build(finite_vector(whole.read(message)))


def _named_reader(
    paths: Sequence[Path], build: Callable[[NDArray[Any]], Any]
) -> Callable[[Any], Any]:
    """Read what a message names of the elements; others may come in other messages."""
    sized = [(path, path.count or 0) for path in paths]
    if not all(count for _, count in sized):
        raise ConfigError('a sequence of any length cannot stand beside elements by name')
    each = {
        path.text: tuple(f'{path.text} {k}' if count > 1 else path.text for k in range(count))
        for path, count in sized
    }
    wanted = tuple(name for names in each.values() for name in names)

    def read(message: Any) -> Named:
        there = [p for p in paths if p.names_of is None or p.name in p.names_of(message)]
        if not any(path.name for path in there):
            names = next(p.names_of for p in paths if p.names_of is not None)(message)
            return Named(tuple(names), np.zeros(len(names)), wanted, len(wanted), build)
        values = finite_vector(np.concatenate([np.asarray(p.read(message), float) for p in there]))
        names = tuple(name for path in there for name in each[path.text])
        return Named(names, values, wanted, len(wanted), build)

    return read


def last_values(draft: Draft) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Values in the sensor's unit, of a motion its last point, and their std."""
    scale = np.broadcast_to(np.float32(draft.modality.unit_scale), draft.modality.shape)
    std = None if draft.std is None else draft.std * scale
    raw = draft.modality.from_model(draft.array)
    if not isinstance(raw, Motion):
        return raw, std
    point = raw.points[-1]
    return point, None if std is None else std.reshape(raw.points.shape)[-1]


def blank(message_type: type, draft: Draft) -> Any:
    """Copy of the last message with another stamp, or an empty one."""
    if draft.like is not None:
        return restamped(draft.like, draft.header.stamp)
    message = message_type()
    if hasattr(message, 'header'):
        message.header = draft.header
    return message


def _write(message_type: type, whole: Path, unknown: Sequence[str], draft: Draft) -> Any:
    values, std = last_values(draft)
    message = blank(message_type, draft)
    whole.write(message, values)
    if std is not None:
        _write_variances(message, whole, std)
    for name in unknown:
        getattr(message, name)[0] = -1.0
    return message


def _write_variances(message: Any, whole: Path, std: NDArray[Any]) -> None:
    """Squares of the std where the type has a place for them; no correlations are known."""
    cleared: set[tuple[int, str]] = set()
    for place, value in zip(whole.variances, std.tolist()):
        if place is None:
            continue
        get, name, at = place
        owner = get(message)
        if at is None:
            setattr(owner, name, value * value)
            continue
        matrix = getattr(owner, name)
        if (id(owner), name) not in cleared:
            cleared.add((id(owner), name))
            matrix[:] = np.diag(np.diag(matrix.reshape(int(len(matrix) ** 0.5), -1))).reshape(-1)
        matrix[at] = value * value


def _unknown(whole: Path, message_type: type) -> list[str]:
    """Covariances of what nothing is known of: their first element is -1, as ROS has it."""
    fields = fields_of(message_type)
    return [
        f'{name}_covariance'
        for name in fields
        if fields.get(f'{name}_covariance') == 'double[9]'
        and not re.search(rf'\b{name}\b', whole.text)
    ]


class _Label:
    """
    Reads one field as a label, and writes it.

    :param fields: its path, alone.
    :param values: label of each value.
    """

    def __init__(
        self, message_type: type, fields: Sequence[str], values: Mapping[Any, str]
    ) -> None:
        if len(fields) != 1:
            raise ConfigError(f'a symbol has one field; fields are {", ".join(fields)}')
        place = find_place(fields[0], fields[0], message_type)
        if not (is_number(place.kind) or place.kind.startswith('string')):
            raise place.refuse(f'{fields[0]} is {place.kind}, neither number nor text')
        self._type, self._text, self._name = message_type, fields[0], place.steps[-1][0]
        self._get, self._holder = place.value, place.holder
        self._labels = {self._value(place, key): label for key, label in values.items()}
        self._raws = {label: value for value, label in reversed(self._labels.items())}

    @staticmethod
    def _value(place: Any, key: Any) -> Any:
        """A value as the field has it, of what stands in the configuration."""
        text = str(key)
        if place.kind.startswith('string'):
            return text
        known = {'true': True, 'false': False}
        if text.lower() in known:
            return known[text.lower()]
        constant = getattr(place.owners[-1], text, None) if text.isidentifier() else None
        try:
            return int(text) if constant is None else constant
        except ValueError as error:
            raise ConfigError(
                f'values: {text!r} is neither a number nor a constant of'
                f' {place.owners[-1].__name__}'
            ) from error

    def read(self, message: Any) -> str:
        """Label of a message."""
        value = self._get(message)
        if not self._labels:
            return str(value).lower() if isinstance(value, bool) else str(value)
        label = self._labels.get(value)
        if label is None:
            known = ', '.join(f'{value} ({label})' for value, label in self._labels.items())
            raise InvalidInput(f'{self._text} is {str(value)[:32]}; known: {known}')
        return label

    def write(self, draft: Draft) -> Any:
        """Message of the most probable label."""
        message = blank(self._type, draft)
        label = draft.modality.from_model(draft.array)
        before = self._get(message)
        value = self._raws.get(label, label)
        if isinstance(before, bool):
            value = value in (True, 'true')
        elif not isinstance(before, str):
            value = type(before)(value)
        setattr(self._holder(message), self._name, value)
        return message


for _kind, _types in USUAL.items():
    for _name, _fields in _types.items():
        register_later(
            _kind,
            _name,
            partial(lambda k, n, f: _build(k, None, import_message(n), f), _kind, _name, _fields),
        )
