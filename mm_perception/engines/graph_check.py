"""
What an ONNX graph may hold, read from its bytes before ONNX Runtime sees them.

The onnx package is not needed: of the encoding (Protocol Buffers) only fields and lengths are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

DOMAINS = {b'', b'ai.onnx'}
CONTRIBUTED, IN_BLOCKS = 'com.microsoft', 'MatMulNBits'
"""The one operator outside ONNX that a graph may hold, and its domain."""
WEIGHTS_LOCATION = b'weights'
EXTERNAL = 1
# Numbers of the fields in onnx.proto.
GRAPH, FUNCTIONS = 7, 25
NODE, INITIALIZER, SPARSE_INITIALIZER = 1, 5, 15
OPERATOR, ATTRIBUTE, DOMAIN = 4, 5, 7
TENSOR, SUBGRAPH, TENSORS, SUBGRAPHS, SPARSE_TENSOR, SPARSE_TENSORS = 5, 6, 10, 11, 22, 23
TENSOR_NAME, EXTERNAL_DATA, DATA_LOCATION = 8, 13, 14
KEY, VALUE = 1, 2
Field = tuple[int, int | memoryview]


def check_graph(content: bytes, weights: Collection[str]) -> None:
    """
    Refuse a graph that could read files, run code of others, or loop.

    :param weights: names of the arrays that it is given instead of files.
    :raises ValueError: saying what it holds.
    """
    for number, model in _fields(memoryview(content)):
        if number == FUNCTIONS:
            raise ValueError('holds functions of its own')
        if number != GRAPH:
            continue
        for part, value in _fields(_bytes(model)):
            if part == NODE:
                _check_node(_bytes(value))
            elif part == INITIALIZER:
                _check_tensor(_bytes(value), weights)
            elif part == SPARSE_INITIALIZER:
                raise ValueError('holds sparse arrays')


def _check_node(node: memoryview) -> None:
    operator = domain = b''
    for number, value in _fields(node):
        if number == OPERATOR:
            operator = bytes(_bytes(value))
        elif number == DOMAIN:
            domain = bytes(_bytes(value))
        elif number == ATTRIBUTE:
            for part, content in _fields(_bytes(value)):
                if part in (SUBGRAPH, SUBGRAPHS):
                    raise ValueError(f'{operator[:40]!r} holds a graph of its own')
                if part in (SPARSE_TENSOR, SPARSE_TENSORS):
                    raise ValueError('holds sparse arrays')
                if part in (TENSOR, TENSORS):
                    _check_tensor(_bytes(content), ())
    contributed = (domain, operator) == (CONTRIBUTED.encode(), IN_BLOCKS.encode())
    if domain not in DOMAINS and not contributed:
        raise ValueError(f'operator of the domain {domain[:40]!r}')


def _check_tensor(tensor: memoryview, weights: Collection[str]) -> None:
    name, external, places = '', False, []
    for number, value in _fields(tensor):
        if number == TENSOR_NAME:
            name = bytes(_bytes(value)).decode(errors='replace')
        elif number == DATA_LOCATION:
            external |= value == EXTERNAL
        elif number == EXTERNAL_DATA:
            external = True
            entry = dict(_fields(_bytes(value)))
            if bytes(_bytes(entry.get(KEY, memoryview(b'')))) == b'location':
                places.append(bytes(_bytes(entry.get(VALUE, memoryview(b'')))))
    if external and (places != [WEIGHTS_LOCATION] or name not in weights):
        raise ValueError(f'{name[:80]!r} refers to a file')


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError('a number where a message belongs')
    return value


def _fields(message: memoryview) -> Iterator[Field]:
    """Fields of a message: their number, and an integer or the bytes."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield number, value
            continue
        if kind == 2:
            length, position = _varint(message, position)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f'field of the unknown kind {kind}')
        if length > len(message) - position:
            raise ValueError('is cut short')
        yield number, message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ValueError('is cut short')
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError('holds a number that does not end')
