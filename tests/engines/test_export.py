"""Exported graphs: ordinary ONNX files whose weights lie in the bundle's safetensors files."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mm_perception.bundle import CLASSIFIERS, WEIGHTS, Bundle, Graphs, load_bundle, save_bundle
from mm_perception.engines.build import build_engine, difference
from mm_perception.engines.classifiers import load_classifiers
from mm_perception.engines.engine import BOUNDS, INT8
from mm_perception.engines.export import BLOCK, LARGE, _prepare, in_blocks, with_graphs
from mm_perception.engines.graph_check import check_graph
from mm_perception.engines.onnx_engine import EIGHT_BITS, OnnxEngine
from mm_perception.engines.torch_classifiers import TorchClassifiers
from mm_perception.errors import BundleError
from mm_perception.modalities import build_modality
from mm_perception.model.networks import Classifier
from tests.helpers.model_specs import every_kind, mhd_spec
from tests.helpers.small_bundle import make_bundle

SPECS = every_kind()
SMALL_FILES_BYTES = 310_000
"""
Graphs, manifest and health of the shipped bundle: 265,630 before the graphs were ordinary files; a
confidence, the weights of sensors and a second encoder came since.
"""
LAYERS = {
    'linear': (lambda: nn.Linear(3, 5), lambda: nn.BatchNorm1d(5), (4, 3)),
    'transposed over time': (
        lambda: nn.ConvTranspose1d(2, 5, 3, bias=False),
        lambda: nn.BatchNorm1d(5),
        (4, 2, 6),
    ),
    'transposed': (lambda: nn.ConvTranspose2d(2, 5, 3), lambda: nn.BatchNorm2d(5), (4, 2, 6, 6)),
    'convolution': (lambda: nn.Conv2d(2, 5, 3, 2), lambda: nn.BatchNorm2d(5), (4, 2, 6, 6)),
}


def graphs_of(bundle: Bundle) -> Graphs:
    assert bundle.graphs is not None
    return bundle.graphs


@pytest.mark.parametrize('kind', LAYERS)
def test_prepared_layers_give_what_layer_and_normalisation_give(kind: str) -> None:
    torch.manual_seed(0)
    make_layer, make_norm, shape = LAYERS[kind]
    both = nn.Sequential(make_layer(), make_norm())
    for _ in range(5):
        both(3.0 * torch.randn(shape) + 1.0)
    nn.init.normal_(both[1].weight)
    nn.init.normal_(both[1].bias)
    both.eval()
    prepared, data = copy.deepcopy(both), torch.randn(shape)
    _prepare(prepared)
    with torch.no_grad():
        np.testing.assert_allclose(prepared(data), both(data), atol=1e-5)


PLAIN = """
import json, sys
from pathlib import Path
import numpy as np
import onnx
import onnxruntime
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
data = dict(np.load(out / 'data.npz'))
kinds, made = {}, {}
for file in folder.glob('*.onnx'):
    onnx.checker.check_model(str(file), full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(out / 'optimized')
    session = onnxruntime.InferenceSession(str(file), options)
    inputs = {i.name: data[f'{file.stem}/{i.name}'] for i in session.get_inputs()}
    for output, value in zip(session.get_outputs(), session.run(None, inputs)):
        made[f'{file.stem}/{output.name}'] = value
    optimized = onnx.load(str(out / 'optimized'), load_external_data=False)
    kinds[file.stem] = [node.op_type for node in optimized.graph.node]
np.savez(out / 'made.npz', **made)
print(json.dumps(kinds))
"""


def run_plain_sessions(
    bundle: Bundle, folder: Path, inputs: Mapping[str, np.ndarray]
) -> tuple[dict[str, list[str]], dict[str, np.ndarray]]:
    """Open every graph of a saved bundle by its path, in a process without this package."""
    np.savez(folder / 'data.npz', **inputs)  # type: ignore[arg-type]
    done = subprocess.run(
        [sys.executable, '-c', PLAIN, str(bundle.path.resolve()), str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), dict(np.load(folder / 'made.npz'))


def example_inputs(bundle: Bundle) -> dict[str, np.ndarray]:
    """Random inputs of every graph, two rows each, by graph and input."""
    random, graphs = np.random.default_rng(0), graphs_of(bundle)
    inputs: dict[str, np.ndarray] = {}
    for graph in graphs.content:
        stage, _, name = graph.removeprefix(EIGHT_BITS).partition('.')
        shapes: dict[str, tuple[int, ...]] = {}
        if stage in ('encode', 'classify'):
            shapes['data'] = build_modality(bundle.spec.modality(name)).shape
        elif stage == 'decode':
            shapes['joint'] = (bundle.spec.joint_latent_dim,)
            if name in graphs.noise_dims:
                shapes['noise'] = (graphs.noise_dims[name],)
        else:
            shapes |= {name: (size,) for name, size in graphs.code_dims.items()}
            inputs[f'{graph}/present'] = np.array([[True, False] * 2, [True] * 4])
        for key, shape in shapes.items():
            value = random.random((2, *shape), np.float32)
            inputs[f'{graph}/{key}'] = value * 0.0 if key == 'noise' else value
    return inputs


def assert_engine_gives(
    engine: OnnxEngine, prefix: str, inputs: Mapping[str, np.ndarray], made: dict[str, np.ndarray]
) -> int:
    """Compare an engine with what plain sessions made; returns how many graphs were."""
    count = 0
    for name in engine.code_dims:
        encode, decode = f'{prefix}encode.{name}', f'{prefix}decode.{name}'
        if f'{encode}/code' in made:
            code = engine.encode(name, inputs[f'{encode}/data'])
            np.testing.assert_allclose(made[f'{encode}/code'], code, rtol=1e-5, atol=1e-5)
            count += 1
        if f'{decode}/data' in made:
            data = engine.decode(name, inputs[f'{decode}/joint'])
            np.testing.assert_allclose(made[f'{decode}/data'], data, rtol=1e-5, atol=1e-5)
            count += 1
    if f'{prefix}fuse/mean' in made:
        codes = {name: inputs[f'{prefix}fuse/{name}'] for name in engine.code_dims}
        mean, std = engine.fuse(codes, inputs[f'{prefix}fuse/present'])
        np.testing.assert_allclose(made[f'{prefix}fuse/mean'], mean, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(made[f'{prefix}fuse/std'], std, rtol=1e-5, atol=1e-5)
        count += 1
    return count


def test_shipped_graphs_are_ordinary_files_that_give_what_the_engines_give(
    tmp_path: Path,
) -> None:
    bundle = load_bundle('mhd')
    inputs = example_inputs(bundle)
    kinds, made = run_plain_sessions(bundle, tmp_path, inputs)
    assert set(kinds) == set(graphs_of(bundle).content)
    assert assert_engine_gives(OnnxEngine(bundle), '', inputs, made) == 9
    narrow = OnnxEngine(bundle, precision=INT8)
    assert assert_engine_gives(narrow, EIGHT_BITS, inputs, made) == 8
    classifiers = load_classifiers(bundle)
    for name in ('image', 'sound', 'trajectory'):
        graph = f'classify.{name}'
        read = classifiers.read(name, inputs[f'{graph}/data'])
        np.testing.assert_array_equal(made[f'{graph}/logits'].argmax(1), read)
    # Worked out once, when the graph is loaded: no normalisation, and no weight, is left to do.
    for graph, found in kinds.items():
        assert not {'BatchNormalization', 'Transpose', 'Round', 'Abs'} & set(found), graph
        assert ('MatMulNBits' in found) == graph.startswith(EIGHT_BITS)


def test_the_shipped_bundle_stores_nothing_twice() -> None:
    bundle = load_bundle('mhd')
    small = [f for f in bundle.path.iterdir() if f.suffix == '.onnx' or f.name == 'bundle.json']
    assert sum(f.stat().st_size for f in (*small, bundle.path / 'health.safetensors')) <= (
        SMALL_FILES_BYTES
    )
    for content in graphs_of(bundle).content.values():
        for tensor in onnx.load_from_string(content).graph.initializer:
            assert tensor.data_location == onnx.TensorProto.EXTERNAL


@pytest.mark.parametrize(
    ('case', 'layers'), [('nexus', 1), ('calibrated', 4), ('attention', 4), ('nexus_flat', 2)]
)
def test_loaded_graphs_hold_no_layer_too_many(case: str, layers: int, tmp_path: Path) -> None:
    """Nexus' first layer after the mean of messages is in the messages; no normalisation is."""
    bundle = save_bundle(with_graphs(make_bundle(case, spec=SPECS[case])), tmp_path / 'small', '')
    kinds, _ = run_plain_sessions(bundle, tmp_path, example_inputs(bundle))
    assert not any('BatchNormalization' in found for found in kinds.values())
    products = [kind for kind in kinds['fuse'] if kind in ('Gemm', 'FusedGemm', 'MatMul')]
    assert len(products) == layers


@pytest.mark.parametrize('case', SPECS)
def test_graphs_of_every_family_are_taken_and_name_where_their_weights_lie(
    case: str, tmp_path: Path
) -> None:
    """Also weights that are equal, as many of a new model are."""
    bundle = make_bundle(case, spec=SPECS[case])
    labelled = [m for m in bundle.spec.modalities if m.kind != 'symbol' and bundle.labels]
    modules = {m.name: Classifier(m, len(bundle.labels)) for m in labelled}
    bundle = replace(bundle, classifiers=TorchClassifiers(modules).state())
    bundle = save_bundle(with_graphs(bundle), tmp_path / 'small', '')
    for graph, content in graphs_of(bundle).content.items():
        classifies = graph.startswith('classify.')
        weights = bundle.classifiers if classifies else bundle.weights
        file = CLASSIFIERS if classifies else WEIGHTS
        raw, needed = (bundle.path / file).read_bytes(), set()
        for tensor in onnx.load_from_string(content).graph.initializer:
            place = {entry.key: entry.value for entry in tensor.external_data}
            assert place.pop('location') == file
            start, length = int(place['offset']), int(place['length'])
            assert raw[start : start + length] == weights[tensor.name].tobytes()
            needed.add(tensor.name)
        assert set(check_graph(content, file, weights)) == needed
        assert needed or graph == 'fuse'  # experts are weighed without any
    again = with_graphs(load_bundle(bundle.path))
    assert graphs_of(again) == graphs_of(bundle)


@given(
    outputs=st.integers(1, 5),
    inputs=st.integers(1, 3 * BLOCK + 1),
    exponent=st.integers(-6, 6),
    seed=st.integers(0, 99),
)
def test_rounding_is_at_most_half_a_step(
    outputs: int, inputs: int, exponent: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    weight = random.standard_normal((outputs, inputs), np.float32) * np.float32(10.0**exponent)
    weight[0] = 0.0
    blocks, scales = (part.numpy() for part in in_blocks(torch.from_numpy(weight)))
    assert blocks.dtype == np.uint8 and scales.dtype == np.float32
    assert blocks.shape == (outputs, scales.shape[1], BLOCK)
    restored = ((blocks.astype(np.float32) - 128.0) * scales[:, :, None]).reshape(outputs, -1)
    step = np.repeat(scales, BLOCK, axis=1)[:, :inputs]
    assert (np.abs(restored[:, :inputs] - weight) <= 0.501 * step).all()
    assert (restored[:, inputs:] == 0.0).all()


@pytest.fixture(scope='module', params=['nexus', 'mmvae', 'mhvae', 'hmvae'])
def wide(request: pytest.FixtureRequest) -> Bundle:
    """Networks as wide as the papers', random weights."""
    return with_graphs(make_bundle(spec=mhd_spec(family=request.param)))


def test_wide_models_in_8_bits_stay_within_the_bound(wide: Bundle) -> None:
    engine = build_engine(wide, 'cpu', precision=INT8)
    found = difference(engine, build_engine(wide, 'cpu', 'torch'), wide.spec)
    assert 0.0 < found <= BOUNDS[INT8]
    assert engine.name == 'onnx' and f'int8, differs by {found:.1g}' in engine.reason


def test_every_large_layer_is_in_8_bits_and_no_small_one(wide: Bundle) -> None:
    content = graphs_of(wide).content
    narrow = {name: graph for name, graph in content.items() if name.startswith(EIGHT_BITS)}
    assert narrow
    for name, graph in narrow.items():
        sizes = products(onnx.load_from_string(graph), wide)
        assert sizes['MatMulNBits'] and min(sizes['MatMulNBits']) >= LARGE
        assert all(size < LARGE for size in sizes['Gemm'] + sizes['MatMul'])
        before = products(onnx.load_from_string(content[name.removeprefix(EIGHT_BITS)]), wide)
        large = [size for size in before['Gemm'] + before['MatMul'] if size >= LARGE]
        assert sorted(large) == sorted(sizes['MatMulNBits'])


def products(model: onnx.ModelProto, bundle: Bundle) -> dict[str, list[int]]:
    """Sizes of the weights that data are multiplied by, by operator; not products of weights."""
    sizes: dict[str, list[int]] = {kind: [] for kind in ('Gemm', 'MatMul', 'MatMulNBits')}
    made = {tensor.name: {tensor.name} for tensor in model.graph.initializer}
    for node in model.graph.node:
        sources = [made.get(name) for name in node.input if name]
        if all(source is not None for source in sources):  # worked out when it is loaded
            made[node.output[0]] = set().union(*(source or () for source in sources))
        elif node.op_type in sizes and (names := made.get(node.input[1])):
            matrices = [w for w in map(bundle.weights.get, names) if w is not None and w.ndim == 2]
            if len(matrices) == 1:
                sizes[node.op_type].append(matrices[0].size)
    return sizes


def test_the_shipped_bundle_in_8_bits() -> None:
    bundle = load_bundle('mhd')
    engine = OnnxEngine(bundle, precision=INT8)
    assert 0.0 < difference(engine, OnnxEngine(bundle), bundle.spec) < 0.01


def test_missing_weights_are_one_line() -> None:
    bundle = load_bundle('mhd')
    weights = {n: w for n, w in bundle.weights.items() if n != 'top.decoders.image.0.3.weight'}
    with pytest.raises(BundleError, match='image') as error:
        build_engine(replace(bundle, weights=weights), 'cpu', 'onnx', precision=INT8)
    assert '\n' not in str(error.value)
