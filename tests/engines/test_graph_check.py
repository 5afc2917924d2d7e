"""What an ONNX graph of a bundle may hold: no files, no code of others, no loops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('onnx', reason='onnx is not installed')

import onnx
from onnx import TensorProto, helper, numpy_helper

from mm_perception.bundle import Bundle, load_bundle, save_bundle
from mm_perception.engines.build import build_engine
from mm_perception.engines.export import with_graphs
from mm_perception.engines.graph_check import check_graph
from mm_perception.engines.onnx_engine import read_index
from mm_perception.errors import BundleError
from tests.helpers.small_bundle import make_bundle


def model_of(*nodes: onnx.NodeProto, tensors: tuple[TensorProto, ...] = ()) -> bytes:
    places = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in ('x', 'y')]
    graph = helper.make_graph(list(nodes), 'g', places[:1], places[1:], list(tensors))
    content: bytes = helper.make_model(graph).SerializeToString()
    return content


def weight_in(place: str, name: str = 'w') -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(1, np.float32), name)
    tensor.ClearField('raw_data')
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key='location', value=place)
    return tensor


def branch() -> onnx.NodeProto:
    inner = helper.make_graph(
        [helper.make_node('Identity', ['x'], ['z'])],
        'inner',
        [],
        [helper.make_tensor_value_info('z', TensorProto.FLOAT, [1])],
    )
    return helper.make_node('If', ['x'], ['y'], then_branch=inner, else_branch=inner)


ADD = helper.make_node('Add', ['x', 'w'], ['y'])
HIDDEN = helper.make_node('Constant', [], ['y'], value=weight_in('weights'))
REFUSED = {
    'absolute file': (model_of(ADD, tensors=(weight_in('/etc/passwd'),)), "'w' refers to a file"),
    'file above': (model_of(ADD, tensors=(weight_in('../secret'),)), 'refers to a file'),
    'weight that the bundle lacks': (
        model_of(ADD, tensors=(weight_in('weights', 'other'),)),
        "'other' refers to a file",
    ),
    'file in a constant': (model_of(HIDDEN), 'refers to a file'),
    'branches': (model_of(branch()), "b'If' holds a graph of its own"),
    'operators of others': (
        model_of(helper.make_node('Run', ['x'], ['y'], domain='evil')),
        "operator of the domain b'evil'",
    ),
    'other operators of ONNX Runtime': (
        model_of(helper.make_node('Tokenizer', ['x'], ['y'], domain='com.microsoft')),
        "operator of the domain b'com.microsoft'",
    ),
    'an operator of ONNX Runtime elsewhere': (
        model_of(helper.make_node('MatMulNBits', ['x'], ['y'], domain='evil')),
        "operator of the domain b'evil'",
    ),
    'cut': (model_of(ADD)[:-3], 'is cut short'),
    'noise': (b'\xff' * 40, 'number that does not end'),
    'unknown encoding': (b'\x0b\x00', 'unknown kind'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_graph_check_refuses(case: str) -> None:
    content, reason = REFUSED[case]
    with pytest.raises(ValueError, match=reason):
        check_graph(content, {'w'})


def test_graph_check_takes_weights_of_the_bundle() -> None:
    check_graph(model_of(ADD, tensors=(weight_in('weights'),)), {'w'})


@pytest.fixture(scope='module')
def exported(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return with_graphs(save_bundle(make_bundle(), tmp_path_factory.mktemp('b') / 'small', ''))


def test_graph_check_takes_what_is_exported(exported: Bundle) -> None:
    needed = read_index(exported)['weights']
    assert needed
    for name, weights in needed.items():
        check_graph(exported.graphs[name], weights)


def test_graph_that_refers_to_a_file_is_refused_by_the_engine(
    exported: Bundle, tmp_path: Path
) -> None:
    pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
    name = next(name for name in exported.graphs if name.startswith('encode.'))
    graph = onnx.load_from_string(exported.graphs[name])
    for tensor in graph.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == 'location':
                entry.value = '/etc/passwd'
    graphs = {**exported.graphs, name: graph.SerializeToString()}
    forged = save_bundle(replace(exported, graphs=graphs), tmp_path / 'forged', '')
    with pytest.raises(BundleError, match='refers to a file') as error:
        build_engine(load_bundle(forged.path), 'cpu', 'onnx')
    assert '\n' not in str(error.value)
