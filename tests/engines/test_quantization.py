"""Large dense layers in 8 bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_perception.bundle import Bundle, load_bundle
from mm_perception.engines.build import build_engine, difference
from mm_perception.engines.engine import BOUNDS, INT8
from mm_perception.engines.export import with_graphs
from mm_perception.engines.onnx_engine import (
    BLOCK,
    BLOCKS,
    LARGE,
    MODEL,
    PREFIX,
    SCALES,
    OnnxEngine,
    folded_weights,
    quantize,
    read_index,
    with_quantized,
)
from mm_perception.errors import BundleError, EngineUnavailable
from mm_perception.modalities.base import Array
from tests.helpers.model_specs import mhd_spec
from tests.helpers.small_bundle import make_bundle


def restored(blocks: np.ndarray, scales: Array, inputs: int) -> Array:
    weight = (blocks.astype(np.float32) - 128.0) * scales[:, :, None]
    return weight.reshape(len(blocks), -1)[:, :inputs]


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
    blocks, scales = quantize(weight)
    assert blocks.dtype == np.uint8 and scales.dtype == np.float32
    assert blocks.shape == (outputs, scales.shape[1], BLOCK)
    step = np.repeat(scales, BLOCK, axis=1)[:, :inputs]
    assert (np.abs(restored(blocks, scales, inputs) - weight) <= 0.501 * step).all()


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
    needed = read_index(wide)['weights']
    weights = folded_weights(wide, MODEL)
    narrow = {name: names for name, names in needed.items() if name.startswith(PREFIX)}
    assert narrow
    for name, names in narrow.items():
        before = {n for n in needed[name.removeprefix(PREFIX)] if weights[n].ndim == 2}
        layers = {n.removesuffix(BLOCKS) for n in names if n.endswith(BLOCKS)}
        assert layers and layers <= before
        assert all(weights[layer].size >= LARGE for layer in layers)
        left = {n for n in before & set(names) if weights[n].size >= LARGE}
        # Products of weights alone, which are worked out when the graph is loaded.
        assert all(n.startswith(('top.joint.mapping', 'top.joint.hidden.0')) for n in left)


def test_the_shipped_bundle_in_8_bits() -> None:
    bundle = load_bundle('mhd')
    engine = OnnxEngine(bundle, precision=INT8)
    assert 0.0 < difference(engine, OnnxEngine(bundle), bundle.spec) < 0.01


def test_missing_weights_are_one_line() -> None:
    bundle = load_bundle('mhd')
    weights = {n: w for n, w in bundle.weights.items() if n != 'top.decoders.image.0.3.weight'}
    with pytest.raises((BundleError, EngineUnavailable), match='image') as error:
        build_engine(replace(bundle, weights=weights), 'cpu', 'onnx', precision=INT8)
    assert '\n' not in str(error.value)


def test_only_what_graphs_ask_for_is_added() -> None:
    weights = {'a': np.ones((2, 4), np.float32), 'b': np.ones(3, np.float32)}
    made = with_quantized(weights, ['a' + BLOCKS, 'a' + SCALES, 'b'])
    assert set(made) == {'a', 'b', 'a' + BLOCKS, 'a' + SCALES}
