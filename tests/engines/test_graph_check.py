"""What an ONNX graph of a bundle may hold: no files, no code of others, no loops."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('onnx', reason='onnx is not installed')

import onnx
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from mm_perception.bundle import CLASSIFIERS, WEIGHTS, Bundle, load_bundle, save_bundle
from mm_perception.engines.build import build_engine
from mm_perception.engines.export import with_graphs
from mm_perception.engines.graph_check import OPERATORS, check_graph
from mm_perception.errors import BundleError
from tests.helpers.small_bundle import make_bundle

ROOT = Path(__file__).parents[2]
TRIES = os.environ.get('FUZZ_GRAPHS', '1000')


def model_of(*nodes: onnx.NodeProto, tensors: tuple[TensorProto, ...] = ()) -> bytes:
    places = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in ('x', 'y')]
    graph = helper.make_graph(list(nodes), 'g', places[:1], places[1:], list(tensors))
    content: bytes = helper.make_model(graph).SerializeToString()
    return content


def weight_in(place: str, name: str = 'w', **more: str) -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(1, np.float32), name)
    tensor.ClearField('raw_data')
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {'location': place, 'offset': '8', 'length': '4', **more}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def branch() -> onnx.NodeProto:
    inner = helper.make_graph(
        [helper.make_node('Identity', ['x'], ['z'])],
        'inner',
        [],
        [helper.make_tensor_value_info('z', TensorProto.FLOAT, [1])],
    )
    return helper.make_node('If', ['x'], ['y'], then_branch=inner, else_branch=inner)


def field(number: int, content: bytes) -> bytes:
    """A field of bytes as Protocol Buffers write it, whatever its number."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def hidden_under_a_large_tag() -> bytes:
    """
    A second graph, with branches, that readers see which keep 32 bits of a tag.

    The first one, which all see, is harmless.
    """
    hidden = onnx.load_from_string(model_of(branch())).graph.SerializeToString()
    tag = varint((1 << 32) + (7 << 3 | 2))
    return model_of(ADD) + tag + varint(len(hidden)) + hidden


ADD = helper.make_node('Add', ['x', 'w'], ['y'])
HIDDEN = helper.make_node('Constant', [], ['y'], value=weight_in(WEIGHTS))
OUTSIDE = 'refers to a file that is not its own'
REFUSED = {
    'absolute file': (model_of(ADD, tensors=(weight_in('/etc/passwd'),)), f"'w' {OUTSIDE}"),
    'file above': (model_of(ADD, tensors=(weight_in('../secret'),)), OUTSIDE),
    'file of other weights': (model_of(ADD, tensors=(weight_in(CLASSIFIERS),)), OUTSIDE),
    'two files': (
        model_of(ADD, tensors=(weight_in(WEIGHTS), weight_in('/etc/passwd', 'v'))),
        f"'v' {OUTSIDE}",
    ),
    'a key of others': (model_of(ADD, tensors=(weight_in(WEIGHTS, checksum='0'),)), OUTSIDE),
    'weight that the bundle lacks': (
        model_of(ADD, tensors=(weight_in(WEIGHTS, 'other'),)),
        f"'other' {OUTSIDE}",
    ),
    'file in a constant': (model_of(HIDDEN), 'a constant refers to a file'),
    'branches': (model_of(branch()), 'attribute holds the strange field 6'),
    'loops': (model_of(helper.make_node('Loop', ['x'], ['y'])), "operator 'Loop'"),
    'operators of others': (
        model_of(helper.make_node('Run', ['x'], ['y'], domain='evil')),
        "operator 'Run' of the domain 'evil'",
    ),
    'other operators of ONNX Runtime': (
        model_of(helper.make_node('Tokenizer', ['x'], ['y'], domain='com.microsoft')),
        "operator 'Tokenizer' of the domain 'com.microsoft'",
    ),
    'an operator of ONNX Runtime elsewhere': (
        model_of(helper.make_node('MatMulNBits', ['x'], ['y'], domain='evil')),
        "operator 'MatMulNBits' of the domain 'evil'",
    ),
    'functions of its own': (model_of(ADD) + field(25, b''), 'model holds the strange field 25'),
    'a tag beyond 32 bits': (
        hidden_under_a_large_tag(),
        'model holds the strange field 536870919',
    ),
    'two graphs': (model_of(ADD) + field(7, b''), 'model holds graph twice'),
    'a number of another length': (model_of(ADD) + b'\x08\x88\x00', 'number that is too long'),
    'cut': (model_of(ADD)[:-3], 'is cut short'),
    'noise': (b'\xff' * 40, 'number that is too long'),
    'unknown encoding': (b'\x0b\x00', 'strange field 1 of kind 3'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_graph_check_refuses(case: str) -> None:
    content, reason = REFUSED[case]
    with pytest.raises(ValueError, match=reason):
        check_graph(content, WEIGHTS, {'w', 'v'})


def test_graph_check_takes_weights_of_the_bundle() -> None:
    content = model_of(ADD, tensors=(weight_in(WEIGHTS),))
    assert check_graph(content, WEIGHTS, {'w'}) == ['w']
    with pytest.raises(ValueError, match='not its own'):
        check_graph(content, CLASSIFIERS, {'w'})


@pytest.fixture(scope='module')
def exported(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return with_graphs(save_bundle(make_bundle(), tmp_path_factory.mktemp('b') / 'small', ''))


def forged(bundle: Bundle, name: str, content: bytes) -> Bundle:
    assert bundle.graphs is not None
    graphs = replace(bundle.graphs, content={**bundle.graphs.content, name: content})
    return replace(bundle, graphs=graphs)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_graph_check_refuses_what_is_altered(exported: Bundle, data: st.DataObject) -> None:
    """No other exception, and nothing that onnx's own reader would take for another graph."""
    assert exported.graphs is not None
    content = bytearray(exported.graphs.content['encode.symbol'])
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] = data.draw(st.integers(0, 255))
    try:
        check_graph(bytes(content), WEIGHTS, exported.weights)
    except ValueError:
        return
    try:
        model = onnx.load_from_string(bytes(content))
    except DecodeError:
        return
    for node in model.graph.node:
        assert node.op_type in OPERATORS and not node.domain
        assert not any(attribute.HasField('g') for attribute in node.attribute)
    for tensor in model.graph.initializer:
        assert all(e.value == WEIGHTS for e in tensor.external_data if e.key == 'location')


def test_graph_that_refers_to_a_file_is_refused_by_the_engine(
    exported: Bundle, tmp_path: Path
) -> None:
    pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
    assert exported.graphs is not None
    graph = onnx.load_from_string(exported.graphs.content['encode.image'])
    for tensor in graph.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == 'location':
                entry.value = '/etc/passwd'
    bad = forged(exported, 'encode.image', graph.SerializeToString())
    path = save_bundle(bad, tmp_path / 'forged', '').path
    with pytest.raises(BundleError, match='refers to a file') as error:
        build_engine(load_bundle(path), 'cpu', 'onnx')
    assert '\n' not in str(error.value)


def test_graph_that_looks_like_a_file_of_onnx_runtime_is_read_as_onnx(exported: Bundle) -> None:
    """Of bytes 4 to 7 ONNX Runtime would take the other reader, and what that finds, unchecked."""
    pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
    assert exported.graphs is not None
    content = exported.graphs.content['encode.image']
    model = onnx.load_from_string(content)
    model.ClearField('producer_name')
    disguised = field(2, b'xxORTM') + model.SerializeToString()
    assert disguised[4:8] == b'ORTM'
    engine = build_engine(forged(exported, 'encode.image', disguised), 'cpu', 'onnx')
    data = np.ones((1, 1, 28, 28), np.float32)
    expected = build_engine(exported, 'cpu', 'onnx').encode('image', data)
    np.testing.assert_array_equal(engine.encode('image', data), expected)


def test_graph_broken_by_field_hides_nothing_from_the_check(tmp_path: Path) -> None:
    report = tmp_path / 'fuzz.json'
    command = [sys.executable, '-m', 'checks.fuzz_graphs', '--tries', TRIES, '--json', str(report)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = json.loads(report.read_text())
    assert found['wrong'] == 0 and min(found['taken'], found['refused']) > int(TRIES) / 20
