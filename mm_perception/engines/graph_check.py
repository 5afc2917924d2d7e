"""
What an ONNX graph may hold, read from its bytes before ONNX Runtime sees them.

The onnx package is not needed: the encoding (Protocol Buffers) is read by tables of the fields
that :mod:`mm_perception.engines.export` writes. Everything else is refused, for what another
reader of the same bytes takes it for is not known.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

CONTRIBUTED, IN_BLOCKS = 'com.microsoft', 'MatMulNBits'
"""The one operator outside ONNX that a graph may hold, and its domain."""
_OPERATORS = (
    'Abs Add ArgMax ArgMin BatchNormalization Cast Clip Concat Constant ConstantOfShape Conv'
    ' ConvTranspose Div Equal Exp Expand Flatten Gather GatherElements Gemm Greater LeakyRelu Log'
    ' MatMul Mul Neg Not Or ReduceMax ReduceMin ReduceSum Relu Reshape Round Shape Sigmoid Slice'
    ' Softmax Split Sqrt Sub Tanh Transpose Unsqueeze Where'
)
OPERATORS = frozenset(_OPERATORS.split())
"""Of ONNX: those that the exporter writes; none reads files, runs code of others, or loops."""
_EXTERNAL = 1
_NUMBER, _BYTES, _FLOAT = 0, 2, 5
"""Wire types."""


class _Message(NamedTuple):
    """
    Fields of a message of onnx.proto: their numbers, names, and wire types or messages.

    :param repeated: names of those that may occur more than once.
    """

    fields: dict[int, tuple[str, Any]]
    repeated: tuple[str, ...] = ()


_ENTRY = _Message({1: ('key', _BYTES), 2: ('value', _BYTES)})
_TENSOR = _Message(
    {
        1: ('dims', _NUMBER),
        2: ('data_type', _NUMBER),
        8: ('name', _BYTES),
        9: ('raw_data', _BYTES),
        13: ('external_data', _ENTRY),
        14: ('data_location', _NUMBER),
    },
    ('dims', 'external_data'),
)
_ATTRIBUTE = _Message(
    {
        1: ('name', _BYTES),
        2: ('f', _FLOAT),
        3: ('i', _NUMBER),
        4: ('s', _BYTES),
        5: ('t', _TENSOR),
        8: ('ints', _NUMBER),
        20: ('type', _NUMBER),
    },
    ('ints',),
)
_NODE = _Message(
    {
        1: ('input', _BYTES),
        2: ('output', _BYTES),
        4: ('op_type', _BYTES),
        5: ('attribute', _ATTRIBUTE),
        7: ('domain', _BYTES),
    },
    ('input', 'output', 'attribute'),
)
_DIMENSION = _Message({1: ('dim_value', _NUMBER), 2: ('dim_param', _BYTES)})
_SHAPE = _Message({1: ('dim', _DIMENSION)}, ('dim',))
_TENSOR_TYPE = _Message({1: ('elem_type', _NUMBER), 2: ('shape', _SHAPE)})
_VALUE = _Message({1: ('name', _BYTES), 2: ('type', _Message({1: ('tensor', _TENSOR_TYPE)}))})
_GRAPH = _Message(
    {
        1: ('node', _NODE),
        2: ('name', _BYTES),
        5: ('initializer', _TENSOR),
        11: ('input', _VALUE),
        12: ('output', _VALUE),
    },
    ('node', 'initializer', 'input', 'output'),
)
_MODEL = _Message(
    {
        1: ('ir_version', _NUMBER),
        2: ('producer_name', _BYTES),
        3: ('producer_version', _BYTES),
        7: ('graph', _GRAPH),
        8: ('opset_import', _Message({1: ('domain', _BYTES), 2: ('version', _NUMBER)})),
    },
    ('opset_import',),
)


def check_graph(content: bytes, file: str, weights: Collection[str]) -> list[str]:
    """
    Refuse a graph that holds anything but what is exported.

    :param file: the only one that its weights may lie in.
    :param weights: names of the arrays there, which it is given in place of the file.
    :returns: the names of those that it needs.
    :raises ValueError: saying what it holds.
    """
    graph = _parse(content, 0, len(content), _MODEL, 'model').get('graph', {})
    for node in graph.get('node', ()):
        kind, domain = (_text(node.get(key, b'')) for key in ('op_type', 'domain'))
        contributed = (domain, kind) == (CONTRIBUTED, IN_BLOCKS)
        if not contributed and (domain or kind not in OPERATORS):
            raise ValueError(f'operator {kind[:40]!r} of the domain {domain[:40]!r}')
        if any(_is_external(attribute.get('t', {})) for attribute in node.get('attribute', ())):
            raise ValueError('a constant refers to a file')
    needed = []
    for tensor in filter(_is_external, graph.get('initializer', ())):
        name = _text(tensor.get('name', b''))
        entries = [(e.get('key'), e.get('value')) for e in tensor.get('external_data', ())]
        place = dict(entries)
        expected = len(entries) == len(place) and set(place) == {b'location', b'offset', b'length'}
        expected &= tensor.get('data_location') == _EXTERNAL
        if not expected or place[b'location'] != file.encode() or name not in weights:
            raise ValueError(f'{name[:80]!r} refers to a file that is not its own')
        needed.append(name)
    return needed


def _is_external(tensor: Collection[str]) -> bool:
    return 'external_data' in tensor or 'data_location' in tensor


def _text(value: bytes) -> str:
    return value.decode(errors='replace')


def _parse(
    content: bytes, position: int, end: int, message: _Message, where: str
) -> dict[str, Any]:
    """Values of a message by the names of its fields; lists of those that may be repeated."""
    found: dict[str, Any] = {}
    fields, repeated = message
    value: Any
    while position < end:
        tag, position = _varint(content, position, end)
        name, expected = fields.get(tag >> 3, ('', None))
        inner = isinstance(expected, _Message)
        if expected is None or tag & 7 != (_BYTES if inner else expected):
            raise ValueError(f'{where} holds the strange field {tag >> 3} of kind {tag & 7}')
        if expected == _FLOAT:
            number = 4
        else:
            number, position = _varint(content, position, end)
        if expected == _NUMBER:
            value = number
        else:
            start, position = position, position + number
            if position > end:
                raise ValueError(f'{where} is cut short')
            value = content[start:position]
            if inner:
                value = _parse(content, start, position, expected, name)
        if name in repeated:
            found.setdefault(name, []).append(value)
        elif name in found:
            raise ValueError(f'{where} holds {name} twice')
        else:
            found[name] = value
    return found


def _varint(content: bytes, position: int, end: int) -> tuple[int, int]:
    if position < end and content[position] < 0x80:
        return content[position], position + 1
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise ValueError('is cut short')
        byte = content[position]
        position += 1
        if byte < 0x80:
            value |= byte << shift
            if value >> 64 or (shift and not byte):
                break
            return value, position
        value |= (byte & 0x7F) << shift
    raise ValueError('holds a number that is too long')
