"""From a bundle's networks to ONNX graphs, whose weights lie in the bundle's safetensors files."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, cast

import onnx
import torch
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd

from mm_perception.bundle import CLASSIFIERS, WEIGHTS, Bundle, Graphs, serialize
from mm_perception.engines.graph_check import CONTRIBUTED, IN_BLOCKS
from mm_perception.engines.onnx_engine import EIGHT_BITS
from mm_perception.engines.torch_classifiers import load_modules
from mm_perception.engines.torch_engine import fuse_statistics, load_model
from mm_perception.modalities import build_modality
from mm_perception.model.base import MultimodalModel
from mm_perception.model.joint_encoder import MeanAggregator
from mm_perception.model.nexus import Nexus

OPSET = 18
LARGE = 2**16
"""Layers with fewer weights stay in float32: they cost little, and latents pass through them."""
BITS, BLOCK = 8, 32
_MIDDLE = 2 ** (BITS - 1)
_EIGHT_BIT_ACTIVATIONS = 4

Places = Mapping[str, tuple[int, int]]
"""Where an array begins in a file, and its length, in bytes."""


def with_graphs(bundle: Bundle) -> Bundle:
    """
    Add the graphs of a bundle's networks, classifiers included.

    What a normalisation does is in the weights of the layer before it, and large layers are in
    8 bits in graphs of their own; both are worked out in the graph, from the trained weights,
    which ONNX Runtime does once, when it loads the graph.

    :returns: the same bundle with graphs; nothing is written.
    :raises BundleError: if weights do not fit the spec.
    """
    model = load_model(bundle)
    classifiers = nn.ModuleDict(load_modules(bundle))
    content = {}
    places = _places(bundle, WEIGHTS, bundle.weights)
    for eight_bits in (False, True):
        _prepare(model, eight_bits)
        _merge_messages(model)
        for part in _model_parts(model):
            graph = _export(part, WEIGHTS, places)
            if not eight_bits:
                content[part.name] = graph
            elif CONTRIBUTED.encode() in graph:
                content[EIGHT_BITS + part.name] = graph
    _prepare(classifiers)
    places = _places(bundle, CLASSIFIERS, bundle.classifiers)
    for name, classifier in classifiers.items():
        data = torch.zeros(2, *build_modality(bundle.spec.modality(name)).shape)
        part = _Part(f'classify.{name}', classifiers, classifier, {'data': data}, ('logits',))
        content[part.name] = _export(part, CLASSIFIERS, places)
    graphs = Graphs(
        content,
        fuses=model.fuses,
        # Whether samples below the joint latent, if any, come from the noise of ``decode``.
        draws=type(model).decode_sample is MultimodalModel.decode_sample,
        own_latents=model.own_latents,
        code_dims=model.code_dims,
        noise_dims=model.noise_dims,
    )
    return replace(bundle, graphs=graphs)


def _places(bundle: Bundle, file: str, arrays: Mapping[str, NDArray[Any]]) -> Places:
    """Where arrays lie in a file of the bundle, or will when it is saved."""
    if not arrays:
        return {}
    saved = bundle.path / file
    content = saved.read_bytes() if bundle.hash else serialize(arrays)
    start = 8 + int.from_bytes(content[:8], 'little')
    header = json.loads(content[8:start])
    header.pop('__metadata__', None)
    offsets = {name: entry['data_offsets'] for name, entry in header.items()}
    return {name: (start + begin, end - begin) for name, (begin, end) in offsets.items()}


def _prepare(module: nn.Module, eight_bits: bool = False) -> None:
    """
    Write layers and the batch normalisations after them such that ONNX Runtime makes one of both.

    It does that itself for convolutions, and for products without a bias.

    :param eight_bits: whether large dense layers are rounded.
    """
    norms: dict[nn.Module, _BatchNorm] = {}
    for sequence in module.modules():
        if isinstance(sequence, nn.Sequential):
            norms |= {a: b for a, b in pairwise(sequence) if isinstance(b, _BatchNorm)}
    forward: Callable[[Tensor], Tensor]
    for layer in module.modules():
        norm = norms.get(layer)
        if isinstance(layer, nn.Linear) and eight_bits and layer.weight.numel() >= LARGE:
            forward = partial(_rounded, layer, norm)
        elif isinstance(layer, nn.Linear) and norm:
            forward = partial(_product_and_norm, norm, weight=layer.weight, bias=layer.bias)
        elif isinstance(layer, _ConvTransposeNd) and norm:
            forward = partial(_folded_convolution, layer, norm)
        else:
            continue
        layer.forward = forward  # type: ignore[method-assign]
        if norm:
            norm.forward = _nothing  # type: ignore[method-assign]


def _nothing(input: Tensor) -> Tensor:
    return input


def _product_and_norm(norm: _BatchNorm, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    assert norm.running_mean is not None
    parameters = norm.running_mean - bias, norm.running_var, norm.weight, norm.bias
    return functional.batch_norm(inputs @ weight.t(), *parameters, eps=norm.eps)


def _folded_convolution(layer: Any, norm: _BatchNorm, inputs: Tensor) -> Tensor:
    scale, shift = _scale_and_shift(norm, layer.bias)
    weight = layer.weight * scale.reshape(1, -1, *[1] * (layer.weight.dim() - 2))
    convolve = {3: functional.conv_transpose1d, 4: functional.conv_transpose2d}[weight.dim()]
    where = layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation
    return convolve(inputs, weight, shift, *where)


def _scale_and_shift(norm: _BatchNorm, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """What a normalisation multiplies by and adds, after a layer with some bias."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    mean = norm.running_mean if bias is None else norm.running_mean - bias
    return scale, norm.bias - mean * scale


def _rounded(layer: nn.Linear, norm: _BatchNorm | None, inputs: Tensor) -> Tensor:
    blocks, scales = in_blocks(layer.weight)
    bias: Tensor = layer.bias
    if norm:
        scale, bias = _scale_and_shift(norm, bias)
        scales = scales * scale[:, None]
    sizes = layer.out_features, layer.in_features
    made = _InBlocks.apply(inputs, blocks, scales, bias, *sizes)  # type: ignore[no-untyped-call]
    return cast(Tensor, made)


def in_blocks(weight: Tensor) -> tuple[Tensor, Tensor]:
    """
    Round a matrix to 8 bits, with a scale per output and block of :data:`BLOCK` inputs.

    :param weight: ``float32[N, K]``.
    :returns: ``uint8[N, B, BLOCK]`` around 128, the last block filled up, and scales
        ``float32[N, B]``, B being K over :data:`BLOCK`, rounded up.
    """
    outputs, inputs = map(int, weight.shape)
    if inputs % BLOCK:
        # A matrix of zeros would be kept in the graph; this is worked out.
        zeros = weight.amax(1, keepdim=True) * torch.zeros(BLOCK - inputs % BLOCK)
        weight = torch.cat([weight, zeros], dim=1)
    blocks = weight.reshape(outputs, -(-inputs // BLOCK), BLOCK)
    scales = blocks.abs().amax(2).clamp_min(1e-30) / (_MIDDLE - 1)
    steps = torch.round(blocks / scales[:, :, None]) + _MIDDLE
    return steps.to(torch.uint8), scales


class _InBlocks(torch.autograd.Function):
    """ONNX Runtime's product with a weight in blocks of 8 bits; there is none here."""

    @staticmethod
    def forward(
        context: Any, x: Tensor, blocks: Tensor, scales: Tensor, bias: Tensor, n: int, k: int
    ) -> Tensor:
        return x.new_zeros(*x.shape[:-1], n)

    @staticmethod
    def symbolic(graph: Any, x: Any, blocks: Any, scales: Any, bias: Any, n: int, k: int) -> Any:
        none = graph.op('prim::Constant')
        none.setType(torch._C.OptionalType.ofTensor())
        made = graph.op(
            f'{CONTRIBUTED}::{IN_BLOCKS}',
            *(x, blocks, scales, none, none, bias),
            N_i=n,
            K_i=k,
            bits_i=BITS,
            block_size_i=BLOCK,
            accuracy_level_i=_EIGHT_BIT_ACTIVATIONS,
        )
        return made.setType(x.type().with_sizes([None] * (x.type().dim() - 1) + [n]))


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
    first, norm = cast(nn.Linear, joint.hidden[0]), cast(_BatchNorm, joint.hidden[1])

    def message(name: str, code: Tensor) -> Tensor:
        mapping = cast(nn.Linear, joint.mapping[name])
        weight, bias = first.weight @ mapping.weight, first.weight @ mapping.bias + first.bias
        return _product_and_norm(norm, code, weight, bias)

    joint.message = message  # type: ignore[method-assign]
    joint.message_dim = first.out_features
    first.forward = norm.forward = _nothing  # type: ignore[method-assign]


@dataclass(frozen=True)
class _Part:
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


def _model_parts(model: MultimodalModel) -> Iterator[_Part]:
    joint = torch.zeros(2, model.spec.joint_latent_dim)
    codes = {name: torch.zeros(2, size) for name, size in model.code_dims.items()}
    for modality in model.spec.modalities:
        name = modality.name
        data = torch.zeros(2, *build_modality(modality).shape)
        encode = partial(model.encode, name)
        yield _Part(f'encode.{name}', model, encode, {'data': data}, ('code',))
        decode, latents = partial(model.decode, name), {'joint': joint}
        if name in model.noise_dims:
            latents['noise'] = torch.zeros(2, model.noise_dims[name])
        yield _Part(f'decode.{name}', model, decode, latents, ('data',))
    fuse = partial(fuse_statistics, model)
    present = torch.ones(2, len(codes), dtype=torch.bool)
    yield _Part('fuse', model, fuse, {'present': present, **codes}, ('mean', 'std'))


class _Holder(nn.Module):
    """Names the parameters as a bundle does, whatever part of the model runs."""

    def __init__(self, part: _Part) -> None:
        super().__init__()
        self.held = part.module
        self.function = part.function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def _export(part: _Part, file: str, places: Places) -> bytes:
    """
    A graph of ONNX.

    :param file: in which its weights lie, at ``places``.
    """
    names = [*part.inputs, *part.outputs]
    made = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        # The exporter merges weights that are equal.
        for number, value in enumerate(part.module.state_dict().values()):
            value.fill_(number)
        torch.onnx.export(
            _Holder(part).eval(),
            tuple(part.inputs.values()),
            made,  # type: ignore[arg-type]
            input_names=list(part.inputs),
            output_names=list(part.outputs),
            dynamic_axes={name: {0: 'batch'} for name in names},
            opset_version=OPSET,
            dynamo=False,  # the other exporter names weights anew
            training=torch.onnx.TrainingMode.PRESERVE,  # weights keep their names
            do_constant_folding=False,
        )
    return _placed(onnx.load_from_string(made.getvalue()), file, places)


def _placed(model: onnx.ModelProto, file: str, places: Places) -> bytes:
    """The graph with the places of its weights instead of them, and short names for the rest."""
    graph = model.graph
    short = {}
    for tensor in graph.initializer:
        name = tensor.name.removeprefix('held.')
        if name in places:
            short[tensor.name] = tensor.name = name
            tensor.ClearField('raw_data')
            tensor.data_location = onnx.TensorProto.EXTERNAL
            where = zip(('location', 'offset', 'length'), (file, *places[name]))
            for key, value in where:
                tensor.external_data.add(key=key, value=str(value))
            if not tensor.dims:
                tensor.dims.append(1)  # as a bundle keeps numbers alone
    outputs = {output.name for output in graph.output}
    for node in graph.node:
        for name in node.output:
            if name not in outputs:
                short[name] = f'v{len(short)}'
    used = {name for node in graph.node for name in node.input} | outputs
    kept = [node for node in graph.node if used & set(node.output)]
    for node in kept:
        node.input[:] = [short.get(name, name) for name in node.input]
        node.output[:] = [short.get(name, name) for name in node.output]
        for field in ('name', 'doc_string', 'metadata_props'):
            node.ClearField(field)
    del graph.node[:]
    graph.node.extend(kept)
    del graph.value_info[:]
    if not any(node.domain for node in kept):
        del model.opset_import[:]
        model.opset_import.append(helper.make_opsetid('', OPSET))
    content: bytes = model.SerializeToString()
    return content
