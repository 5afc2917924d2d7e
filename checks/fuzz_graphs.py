"""
ONNX graphs broken by field of Protocol Buffers: none that is taken holds what ours do not.

``python -m checks.fuzz_graphs --tries 100000 --json docs/fuzz_graphs.json``. What the check lets
through is read again by the library of ONNX: operators, subgraphs and references to files have to
be those that the check believes that it saw.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')

import onnx
from google.protobuf.message import DecodeError

from mm_perception.bundle import WEIGHTS, Graphs
from mm_perception.engines.export import with_graphs
from mm_perception.engines.graph_check import CONTRIBUTED, IN_BLOCKS, OPERATORS, check_graph
from tests.helpers.small_bundle import make_bundle

MAX_S = 0.2
Field = tuple[int, int, bytes | int]
"""Number, wire type, and value."""
ODD_NUMBERS = (0, 1, 5, 6, 10, 11, 15, 20, 26, 99, 1 << 28, (1 << 29) + 1, 1 << 33, (1 << 60) + 7)
ODD_VALUES = (0, 1, 2, 127, 128, 1 << 31, 1 << 32, (1 << 63) - 1, (1 << 64) - 1)
ODD_WORDS = (b'Loop', b'If', b'Scan', b'Identity', b'ai.onnx.ml', b'/etc/passwd', b'', b'location')


def varint(value: int) -> bytes:
    """A number as Protocol Buffers write it."""
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def read(content: bytes) -> list[Field] | None:
    """Fields of a message; None if the bytes are none."""
    fields: list[Field] = []
    position = 0
    try:
        while position < len(content):
            tag, position = _number(content, position)
            number, wire = tag >> 3, tag & 7
            value: bytes | int
            if wire == 0:
                value, position = _number(content, position)
            else:
                length = {1: 8, 5: 4}.get(wire, -1)
                if wire == 2:
                    length, position = _number(content, position)
                value = content[position : position + length]
                position += length
                if length < 0 or position > len(content) or not number:
                    return None
            fields.append((number, wire, value))
    except IndexError:
        return None
    return fields


def _number(content: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def write(fields: list[Field]) -> bytes:
    """Bytes of a message."""
    parts = []
    for number, wire, value in fields:
        parts.append(varint(number << 3 | wire))
        if isinstance(value, int):
            parts.append(varint(value))
        else:
            parts.append(varint(len(value)) + value if wire == 2 else value)
    return b''.join(parts)


def breaks(content: bytes, rng: random.Random, depth: int = 0) -> bytes:
    """Break one field, on any level."""
    fields = read(content)
    if not fields:
        return content + rng.randbytes(rng.randint(1, 8))
    k = rng.randrange(len(fields))
    number, wire, value = fields[k]
    if isinstance(value, bytes) and wire == 2 and depth < 8 and rng.random() < 0.75:
        inner = read(value)
        if inner:
            fields[k] = number, wire, breaks(value, rng, depth + 1)
            return write(fields)
    how = rng.randrange(7)
    if how == 0:
        fields[k] = rng.choice(ODD_NUMBERS), wire, value
    elif how == 1:
        odd = rng.choice(ODD_WORDS) if wire == 2 else rng.choice(ODD_VALUES)
        fields[k] = number, wire, odd if isinstance(value, int) == isinstance(odd, int) else value
    elif how == 2:
        del fields[k]
    elif how == 3:
        fields.insert(rng.randrange(len(fields) + 1), fields[k])
    elif how == 4:
        fields.insert(k, (rng.choice(ODD_NUMBERS), 2, rng.choice((content[:200], *ODD_WORDS))))
    elif how == 5 and isinstance(value, bytes) and value:
        at = rng.randrange(len(value))
        fields[k] = number, wire, value[:at] + rng.randbytes(1) + value[at + 1 :]
    else:
        other = rng.randrange(len(fields))
        fields[k], fields[other] = fields[other], fields[k]
    return write(fields)


def broken(graphs: Graphs, count: int, seed: int) -> Iterator[bytes]:
    """Broken graphs."""
    rng = random.Random(seed)
    contents = sorted(graphs.content.values(), key=len)[:8]
    for _ in range(count):
        content = rng.choice(contents)
        for _ in range(rng.randint(1, 2)):
            content = breaks(content, rng)
        yield content


def hidden(content: bytes) -> str:
    """What the library of ONNX finds in a graph that was taken, and should not be there."""
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError:
        return ''  # ONNX Runtime refuses it too
    if model.functions or model.training_info:
        return 'functions'
    for node in model.graph.node:
        if node.op_type not in OPERATORS and (node.domain, node.op_type) != (
            CONTRIBUTED,
            IN_BLOCKS,
        ):
            return f'operator {node.op_type}'
        for attribute in node.attribute:
            if attribute.HasField('g') or attribute.graphs:
                return 'subgraph'
    entries = [entry for tensor in model.graph.initializer for entry in tensor.external_data]
    files = {entry.value for entry in entries if entry.key == 'location'}
    return f'files {files}' if files - {WEIGHTS} else ''


def main() -> int:
    """Fuzz; exit code 1 if anything was let through, escaped or took long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--tries', type=int, default=5000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--json', type=Path)
    args = parser.parse_args()
    bundle = with_graphs(make_bundle())
    assert bundle.graphs is not None
    counts = {'tries': 0, 'taken': 0, 'refused': 0}
    wrong, longest_s = [], 0.0
    for content in broken(bundle.graphs, args.tries, args.seed):
        counts['tries'] += 1
        begin_s = time.thread_time()
        try:
            check_graph(content, WEIGHTS, bundle.weights)
        except ValueError:
            counts['refused'] += 1
            continue
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            wrong.append(f'{error!r}: {content[:2000].hex()}')
            continue
        finally:
            longest_s = max(longest_s, time.thread_time() - begin_s)
        counts['taken'] += 1
        found = hidden(content)
        if found:
            wrong.append(f'{found} was let through: {content[:2000].hex()}')
    print(*wrong, sep='\n')
    report = {**counts, 'wrong': len(wrong), 'longest (ms)': round(longest_s * 1e3, 1)}
    report['peak memory (MiB)'] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(json.dumps(report))
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + '\n')
    return int(bool(wrong) or longest_s > MAX_S)


if __name__ == '__main__':
    sys.exit(main())
