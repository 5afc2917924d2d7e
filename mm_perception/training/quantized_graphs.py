"""Graphs whose large dense layers are in 8 bits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper

from mm_perception.inference.graph_check import CONTRIBUTED, IN_BLOCKS
from mm_perception.inference.quantization import BITS, BLOCK, BLOCKS, LARGE, SCALES

_EIGHT_BIT_ACTIVATIONS = 4


def quantized_graph(
    content: bytes, weights: Mapping[str, np.ndarray]
) -> tuple[bytes, list[str]] | None:
    """
    Make a graph compute its large dense layers in 8 bits.

    :param content: a graph that refers to weights, as it is exported.
    :param weights: by name.
    :returns: the graph, and the names of the weights that it needs; None if no layer is large.
    """
    model = onnx.load_from_string(content)
    graph = model.graph
    large = [node for node in graph.node if _is_large(node, weights)]
    if not large:
        return None
    for weight in sorted({node.input[1] for node in large}):
        outputs, inputs = weights[weight].shape
        count = -(-inputs // BLOCK)
        graph.initializer.append(reference(weight + BLOCKS, (outputs, count, BLOCK), np.uint8))
        graph.initializer.append(reference(weight + SCALES, (outputs, count), np.float32))
    for node in large:
        node.CopyFrom(_in_blocks(node, weights[node.input[1]].shape))
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    model.opset_import.append(helper.make_opsetid(CONTRIBUTED, 1))
    needed = sorted(t.name for t in kept if t.data_location == onnx.TensorProto.EXTERNAL)
    return model.SerializeToString(), needed


def reference(name: str, shape: tuple[int, ...], kind: type[np.generic]) -> onnx.TensorProto:
    """An array that is given to a graph when it is loaded."""
    tensor = onnx.TensorProto(
        name=name, dims=shape, data_type=helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    )
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key='location', value='weights')
    return tensor


def _in_blocks(layer: onnx.NodeProto, shape: tuple[int, ...]) -> onnx.NodeProto:
    data, weight, *bias = layer.input
    return helper.make_node(
        IN_BLOCKS,
        [data, weight + BLOCKS, weight + SCALES, '', '', *bias],
        layer.output,
        domain=CONTRIBUTED,
        K=shape[1],
        N=shape[0],
        bits=BITS,
        block_size=BLOCK,
        accuracy_level=_EIGHT_BIT_ACTIVATIONS,
    )


def _is_large(node: onnx.NodeProto, weights: Mapping[str, np.ndarray]) -> bool:
    if node.op_type != 'Gemm' or node.input[1] not in weights:
        return False
    attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    plain = {'alpha': 1.0, 'beta': 1.0, 'transA': 0} | attributes
    return plain == {'alpha': 1.0, 'beta': 1.0, 'transA': 0, 'transB': 1} and (
        weights[node.input[1]].size >= LARGE
    )
