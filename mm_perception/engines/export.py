"""From a bundle's networks to ONNX graphs that carry no weights."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, cast

import numpy as np
import onnx
import torch
from onnx import helper
from torch import Tensor, nn
from torch.nn import functional

from mm_perception.bundle import Bundle
from mm_perception.engines.graph_check import CONTRIBUTED, IN_BLOCKS
from mm_perception.engines.onnx_engine import (
    BITS,
    BLOCK,
    BLOCKS,
    CLASSIFIERS,
    INDEX,
    LARGE,
    MODEL,
    PREFIX,
    SCALES,
    Fold,
    fold,
)
from mm_perception.engines.torch_classifiers import load_modules
from mm_perception.engines.torch_engine import fuse_statistics, load_model
from mm_perception.modalities import build_modality
from mm_perception.model.base import MultimodalModel
from mm_perception.model.joint_encoder import MeanAggregator
from mm_perception.model.nexus import Nexus

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


OPSET = 18
_OUTPUT_AXES = {
    nn.Linear: 0,
    nn.Conv1d: 0,
    nn.Conv2d: 0,
    nn.ConvTranspose1d: 1,
    nn.ConvTranspose2d: 1,
}


@dataclass(frozen=True)
class ExportedPart:
    """
    A part of the model that runs on its own.

    :param module: holds the parameters.
    :param function: of tensors, in the order of the inputs.
    :param inputs: examples of a batch of two, by name.
    :param outputs: names.
    """

    name: str
    module: nn.Module
    function: Callable[..., Tensor | tuple[Tensor, ...]]
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]


def with_graphs(bundle: Bundle) -> Bundle:
    """
    Add the graphs of a bundle's networks, classifiers included.

    :returns: the same bundle with graphs; nothing is written.
    :raises BundleError: if weights do not fit the spec.
    """
    model = load_model(bundle)
    readers = nn.ModuleDict(load_modules(bundle))
    folds = {MODEL: _fold_norms(model), CLASSIFIERS: _fold_norms(readers)}
    _merge_messages(model)
    fusing = fold(bundle.weights, folds[MODEL])
    reading = fold(bundle.classifiers, folds[CLASSIFIERS])
    parts = [(stage, fusing) for stage in _model_stages(model)]
    for name, reader in readers.items():
        data = torch.zeros(2, *build_modality(bundle.spec.modality(name)).shape)
        stage = ExportedPart(f'classify.{name}', readers, reader, {'data': data}, ('logits',))
        parts.append((stage, reading))
    graphs, needed = {}, {}
    for stage, weights in parts:
        graphs[stage.name], needed[stage.name] = _without_weights(_export(stage), weights)
        in_blocks = quantized_graph(graphs[stage.name], weights)
        if in_blocks and weights is fusing:
            graphs[PREFIX + stage.name], needed[PREFIX + stage.name] = in_blocks
    index = {
        'fuses': model.fuses,
        'draws': _draws_by_noise(model),
        'own_latents': model.own_latents,
        'noise_dims': model.noise_dims,
        'code_dims': model.code_dims,
        'weights': needed,
        'folds': {part: [asdict(each) for each in found] for part, found in folds.items()},
    }
    graphs[INDEX] = json.dumps(index).encode()
    return replace(bundle, graphs=graphs)


def _fold_norms(module: nn.Module) -> list[Fold]:
    """Take out each batch normalisation that follows a layer; the layer gets a bias."""
    folds = []
    for prefix, sequence in list(module.named_modules()):
        if not isinstance(sequence, nn.Sequential):
            continue
        for (name, layer), (following, norm) in pairwise(list(sequence.named_children())):
            axis = _OUTPUT_AXES.get(type(layer))
            if axis is None or not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                continue
            folds.append(Fold(f'{prefix}.{name}', f'{prefix}.{following}', axis, norm.eps))
            if layer.bias is None:
                # Its value comes with the folded weights; the exporter would merge equal ones.
                layer.bias = nn.Parameter(torch.full([norm.num_features], float(len(folds))))
            sequence[int(following)] = nn.Identity()
    return folds


class _Shift(nn.Module):
    """What is left of a linear layer whose weight the layers before it have taken."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.bias


def _merge_messages(model: MultimodalModel) -> None:
    """
    Put the first layer after a mean of messages into the layers that make the messages.

    All of them are linear: a tick has one layer less, an encoder none more.
    """
    if not isinstance(model, Nexus):
        return
    joint = cast(MeanAggregator, model.top.joint)
    if type(joint) is not MeanAggregator or not joint.hidden:
        return
    first = cast(nn.Linear, joint.hidden[0])

    def message(name: str, code: Tensor) -> Tensor:
        mapping = cast(nn.Linear, joint.mapping[name])
        return functional.linear(code, first.weight @ mapping.weight, first.weight @ mapping.bias)

    joint.message = message  # type: ignore[method-assign]
    joint.message_dim = first.out_features
    joint.hidden[0] = _Shift(first)


def _model_stages(model: MultimodalModel) -> Iterator[ExportedPart]:
    joint = torch.zeros(2, model.spec.joint_latent_dim)
    codes = {name: torch.zeros(2, size) for name, size in model.code_dims.items()}
    for modality in model.spec.modalities:
        name = modality.name
        data = torch.zeros(2, *build_modality(modality).shape)
        encode = partial(model.encode, name)
        yield ExportedPart(f'encode.{name}', model, encode, {'data': data}, ('code',))
        decode, latents = partial(model.decode, name), {'joint': joint}
        if name in model.noise_dims:
            latents['noise'] = torch.zeros(2, model.noise_dims[name])
        yield ExportedPart(f'decode.{name}', model, decode, latents, ('data',))
    fuse = partial(fuse_statistics, model)
    present = torch.ones(2, len(codes), dtype=torch.bool)
    yield ExportedPart('fuse', model, fuse, {'present': present, **codes}, ('mean', 'std'))


def _draws_by_noise(model: MultimodalModel) -> bool:
    """Whether samples below the joint latent, if any, come from the noise of ``decode``."""
    return type(model).decode_sample is MultimodalModel.decode_sample


class _Holder(nn.Module):
    """Names the parameters as a bundle does, whatever part of the model runs."""

    def __init__(self, stage: ExportedPart) -> None:
        super().__init__()
        self.held = stage.module
        self.function = stage.function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def _export(stage: ExportedPart) -> bytes:
    names = [*stage.inputs, *stage.outputs]
    file = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.onnx.export(
            _Holder(stage).eval(),
            tuple(stage.inputs.values()),
            file,  # type: ignore[arg-type]
            input_names=list(stage.inputs),
            output_names=list(stage.outputs),
            dynamic_axes={name: {0: 'batch'} for name in names},
            opset_version=OPSET,
            dynamo=False,  # the other exporter names weights anew
            training=torch.onnx.TrainingMode.PRESERVE,  # weights keep their names
            do_constant_folding=False,
        )
    return file.getvalue()


def _without_weights(content: bytes, weights: Mapping[str, np.ndarray]) -> tuple[bytes, list[str]]:
    """The graph with references in place of weights, and the names of those."""
    model = onnx.load_from_string(content)
    renamed = {}
    for tensor in model.graph.initializer:
        name = tensor.name.removeprefix('held.')
        if name in weights:
            renamed[tensor.name] = name
            shape = weights[name].shape or (1,)
            tensor.CopyFrom(reference(name, shape, weights[name].dtype.type))
    for node in model.graph.node:
        node.ClearField('doc_string')
        node.ClearField('metadata_props')
        node.input[:] = [renamed.get(value, value) for value in node.input]
    return model.SerializeToString(), sorted(renamed.values())
