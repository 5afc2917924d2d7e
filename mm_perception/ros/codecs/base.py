"""Tables of codecs by (kind of modality, message type), and what they share."""

from __future__ import annotations

import copy
import importlib
from array import array
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from mm_perception.errors import ConfigError, InvalidInput, MissingDependency
from mm_perception.fusion.gathering import complete
from mm_perception.modalities import Modality
from mm_perception.spec import ModalitySpec

Decode = Callable[[Any, int, Modality[Any]], tuple[Any, int]]
Encode = Callable[[Modality[Any], NDArray[Any], Header], Any]
ReadBack = Callable[[Modality[Any], Any], NDArray[Any]]
Write = Callable[['Draft'], Any]


@dataclass(frozen=True)
class Draft:
    """
    What a sensor's message is to be made of.

    :param modality: of the sensor.
    :param array: of the model, ``float32[shape]``.
    :param header: stamp of the message; its frame counts where the sensor never sent anything.
    :param like: last good message of the sensor, or None; never changed.
    :param std: of the array, or None.
    """

    modality: Any
    array: NDArray[Any]
    header: Header
    like: Any = None
    std: NDArray[Any] | None = None

    def stamped(self) -> Header:
        """Header of the message: the stamp, and the frame that the sensor had."""
        frame = self.header.frame_id if self.like is None else self.like.header.frame_id
        return Header(stamp=self.header.stamp, frame_id=frame)


@dataclass(frozen=True)
class Relay:
    """
    Messages of another type, of which a sensor's are made.

    :param name: of that type.
    :param topic: where they usually come.
    :param latched_topic: of those that hold for ever, sent once.
    :param begin: gives what takes a message, and whether it holds for ever, and makes the sensor's
        message of all so far; None if it tells nothing new; raises InvalidInput.
    """

    name: str
    topic: str
    latched_topic: str
    begin: Callable[[], Callable[[Any, bool], Any]]


@dataclass(frozen=True)
class InputCodec:
    """
    One message type as the input of one kind of modality.

    :param name: the message type as ROS writes it, ``package/msg/Type``.
    :param decode: (message, time of receipt in ns, modality) to (raw value, stamp in ns), the
        raw value :class:`Named` where elements have names; raises InvalidInput.
    :param depth: queue depth of the subscription.
    :param shared: several publishers may share a topic, since messages name what they hold.
    :param streamed: messages are points of a motion.
    :param write: makes the message that the sensor would have sent; None where none can be made.
    :param takes_std: whether the message holds variances, which ``write`` takes from the std.
    :param relay: what the messages are made of, where others come.
    """

    name: str
    message_type: type
    decode: Decode
    depth: int = 1
    shared: bool = False
    streamed: bool = False
    write: Write | None = None
    takes_std: bool = False
    relay: Relay | None = None

    @property
    def heard(self) -> str:
        """Type of the messages that come."""
        return self.relay.name if self.relay else self.name

    def topic_of(self, spec: ModalitySpec) -> str:
        """Topic of the sensor, as its configuration says or usually."""
        return spec.topic or (self.relay.topic if self.relay else spec.name)


@dataclass(frozen=True)
class OutputCodec:
    """
    How model arrays of one kind leave the node.

    :param encode: (modality, array, header) to a message.
    :param message_type: of what ``encode`` makes.
    :param decode: (modality, message) back to the array; raises InvalidInput if the message holds
        nothing usable, such as a stroke of no length.
    :param encode_std: the same for standard deviations, in model units.
    :param std_type: of what ``encode_std`` makes.
    :param encode_native: a second form as the sensor sends it (sound: the waveform), or None.
    :param native_type: of what ``encode_native`` makes.
    """

    encode: Encode
    message_type: type
    decode: ReadBack
    encode_std: Encode
    std_type: type
    encode_native: Encode | None = None
    native_type: type | None = None


_INPUTS: dict[tuple[str, str], InputCodec] = {}
_MADE_WHEN_ASKED: dict[tuple[str, str], Callable[[], InputCodec]] = {}
_OUTPUTS: dict[str, OutputCodec] = {}


def register_input(
    kind: str,
    message_type: type,
    depth: int = 1,
    shared: bool = False,
    streamed: bool = False,
) -> Callable[[Decode], Decode]:
    """Make a decoder known for a kind and a message type; the first of a kind is its default."""
    name = message_name(message_type)

    def keep(decode: Decode) -> Decode:
        _INPUTS[kind, name] = InputCodec(name, message_type, decode, depth, shared, streamed)
        return decode

    return keep


def register_write(kind: str, message_type: type) -> Callable[[Write], Write]:
    """Make known how a message that is an input is made of what the model gives."""
    key = kind, message_name(message_type)

    def keep(write: Write) -> Write:
        _INPUTS[key] = replace(_INPUTS[key], write=write)
        return write

    return keep


def register_later(kind: str, name: str, make: Callable[[], InputCodec]) -> None:
    """Make a codec known by name that is made when it is asked for: its type may be missing."""
    _MADE_WHEN_ASKED[kind, name] = make


def as_sensor(decode: Decode) -> ReadBack:
    """Read output back by the decoder of the sensor that could have sent it."""
    return lambda modality, message: modality.to_model(complete(decode(message, 0, modality)[0]))


def register_output(kind: str, codec: OutputCodec) -> None:
    """Make the output codec of a kind known."""
    _OUTPUTS[kind] = codec


def input_codec(kind: str, message: str = '') -> InputCodec:
    """
    Find the codec of a message type.

    :param message: ``package/msg/Type``; empty for the kind's default.
    :raises ConfigError: if that kind cannot come in that message, or it is not installed.
    """
    known = input_names(kind)
    name = message or (known[0] if known else '')
    if (kind, name) in _MADE_WHEN_ASKED and (kind, name) not in _INPUTS:
        _INPUTS[kind, name] = _MADE_WHEN_ASKED[kind, name]()
    if (kind, name) not in _INPUTS:
        raise ConfigError(
            f'no codec from "{name}" to {kind}; known for {kind}: {", ".join(known) or "none"}'
        )
    return _INPUTS[kind, name]


def input_names(kind: str) -> tuple[str, ...]:
    """Names of the message types that a kind can come in; the first is its default."""
    names = [name for of_kind, name in (*_INPUTS, *_MADE_WHEN_ASKED) if of_kind == kind]
    return tuple(dict.fromkeys(names))


def output_codec(kind: str) -> OutputCodec:
    """
    Find the codec by which arrays of a kind leave the node.

    :raises ConfigError: if the kind has none.
    """
    if kind not in _OUTPUTS:
        raise ConfigError(f'no output codec for kind "{kind}"; known: {", ".join(_OUTPUTS)}')
    return _OUTPUTS[kind]


def filled_type(kind: str, codec: InputCodec) -> type:
    """Type of ``filled/<modality>``: that of its sensor, or an array where none can be made."""
    return output_codec(kind).message_type if codec.write is None else codec.message_type


def read_output(modality: Modality[Any], codec: InputCodec, message: Any) -> NDArray[Any]:
    """
    Model array of a message of ``reconstruction/`` or ``filled/``: ``float32[shape]``.

    :param codec: of the modality's sensor.
    :raises InvalidInput: if the message holds nothing usable.
    """
    output = output_codec(modality.spec.kind)
    if isinstance(message, output.message_type):
        return output.decode(modality, message)
    return as_sensor(codec.decode)(modality, message)


def load_messages(package: str, message: str, parameter: str) -> ModuleType:
    """
    Import messages that not every ROS 2 has.

    :param message: one that the module must have.
    :param parameter: that asks for them.
    :raises MissingDependency: if they are not there, or other ones of that name are.
    """
    apt = f'sudo apt-get install ros-$ROS_DISTRO-{package.replace("_", "-")}'
    try:
        messages = importlib.import_module(f'{package}.msg')
    except ImportError as error:
        raise MissingDependency(f'{parameter} needs {package}: {apt}') from error
    if not hasattr(messages, message):
        raise MissingDependency(
            f'{parameter}: another package is called {package} too: it has no {message}; {apt}'
        )
    return messages


def message_name(message_type: type) -> str:
    """Name of a message type as ROS writes it, such as ``std_msgs/msg/String``."""
    package, sub_package = message_type.__module__.split('.')[:2]
    return f'{package}/{sub_package}/{message_type.__name__}'


def time_message(stamp_ns: int) -> Time:
    """Time message of a time in nanoseconds."""
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    return Time(sec=seconds, nanosec=nanoseconds)


def make_header(stamp_ns: int, frame_id: str = '') -> Header:
    """Header of a time in nanoseconds and a frame."""
    return Header(stamp=time_message(stamp_ns), frame_id=frame_id)


def stamp_of(header: Header, receipt_ns: int) -> int:
    """Time of a header in nanoseconds; that of receipt if the sender left it out."""
    stamp = header.stamp
    return stamp.sec * 1_000_000_000 + stamp.nanosec or receipt_ns


def restamped(message: Any, stamp: Time) -> Any:
    """Copy of a message with another stamp, where it has one."""
    other = copy.deepcopy(message)
    if hasattr(other, 'header'):
        other.header.stamp = stamp
    return other


def finite_vector(values: Any) -> NDArray[np.float32]:
    """
    Numbers of a message as ``float32[n]``.

    :raises InvalidInput: if there are none, or one is NaN or infinity.
    """
    with np.errstate(over='ignore'):
        vector = np.asarray(values, np.float32)
    if vector.size == 0:
        raise InvalidInput('vector is empty')
    if not np.isfinite(vector).all():
        raise InvalidInput('vector holds NaN or infinity')
    return vector


def as_bytes(values: NDArray[Any]) -> array[int]:
    """Bytes of an array in the form that ``uint8[]`` fields take without a copy per element."""
    data = array('B')
    data.frombytes(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return data


# A column costs memory when it is used, but a field that lies over another costs the sender none.
MAX_FIELDS = 64


def table_message(columns: dict[str, NDArray[Any]], header: Header) -> PointCloud2:
    """
    Build a point cloud of height 1 with one FLOAT32 field per column.

    :param columns: name to ``float32[n]``, all of one length.
    """
    table = np.stack([np.asarray(column, '<f4') for column in columns.values()], axis=1)
    fields = [
        PointField(name=name, offset=4 * k, datatype=PointField.FLOAT32, count=1)
        for k, name in enumerate(columns)
    ]
    step = 4 * len(columns)
    return PointCloud2(
        header=header,
        height=1,
        width=len(table),
        fields=fields,
        is_bigendian=False,
        point_step=step,
        row_step=step * len(table),
        data=as_bytes(table),
        is_dense=True,
    )


def read_table(message: PointCloud2) -> dict[str, NDArray[Any]]:
    """
    View the FLOAT32 columns of a point cloud of height 1, without a copy.

    :returns: field name to ``float32[width]``.
    :raises InvalidInput: if the layout contradicts itself.
    """
    width, step = message.width, message.point_step
    if message.height != 1:
        raise InvalidInput(f'height is {message.height}; expected 1 (one row of samples)')
    if width == 0:
        raise InvalidInput('no points in the message')
    if len(message.fields) > MAX_FIELDS:
        raise InvalidInput(f'{len(message.fields)} fields; at most {MAX_FIELDS} are read')
    if len(message.data) != width * step:
        raise InvalidInput(
            f'data has {len(message.data)} bytes; width {width} x point_step {step}'
            f' = {width * step}'
        )
    dtype = '>f4' if message.is_bigendian else '<f4'
    columns: dict[str, NDArray[Any]] = {}
    for field in message.fields:
        if field.datatype != PointField.FLOAT32 or field.count != 1:
            raise InvalidInput(f'field {field.name[:32]!r} is not one FLOAT32')
        if field.offset + 4 > step:
            raise InvalidInput(f'field {field.name[:32]!r} lies outside point_step {step}')
        columns[field.name] = np.ndarray(
            (width,), dtype, memoryview(message.data), field.offset, (step,)
        )
    return columns
