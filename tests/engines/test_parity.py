"""Engines that are not float32 on the CPU are compared with it before they are used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mm_perception.bundle import Bundle, load_bundle
from mm_perception.engines import build as build_module
from mm_perception.engines.build import build_engine, check_parity, difference
from mm_perception.engines.engine import BOUNDS, Engine
from mm_perception.engines.export import with_graphs
from mm_perception.engines.onnx_engine import TENSORRT, OnnxEngine, has_provider, with_options
from mm_perception.errors import EngineUnavailable
from mm_perception.modalities.base import Array
from tests.helpers.model_specs import every_kind
from tests.helpers.small_bundle import make_bundle

NARROW = ('float16', 'bfloat16')
SPECS = every_kind()
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason='there is a CUDA GPU')


@pytest.fixture(scope='module')
def bundle() -> Bundle:
    return with_graphs(make_bundle())


def shifted(bundle: Bundle, name: str, by: Array | np.float32) -> Bundle:
    """The same bundle with one of its weights wrong."""
    return replace(bundle, weights={**bundle.weights, name: bundle.weights[name] + by})


@pytest.mark.parametrize('precision', NARROW)
@pytest.mark.parametrize('case', SPECS)
def test_sixteen_bits_stay_within_their_bound(case: str, precision: str) -> None:
    bundle = make_bundle(case, spec=SPECS[case])
    engine = build_engine(bundle, 'cpu', 'torch', precision=precision)
    found = difference(engine, build_engine(bundle, 'cpu', 'torch'), bundle.spec)
    assert 0.0 < found <= BOUNDS[precision]
    assert f'{precision}, differs by {found:.1g} from float32 on the CPU' in engine.reason


@pytest.mark.parametrize('precision', NARROW)
def test_the_shipped_bundle_in_sixteen_bits(precision: str) -> None:
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    engine = build_engine(load_bundle('mhd'), device, 'torch', precision=precision)
    assert f'{precision}, differs by' in engine.reason
    assert engine.encode('image', np.zeros((1, 1, 28, 28), np.float32)).dtype == np.float32
    assert engine.decode_sample('image', np.zeros((1, 32), np.float32), 0).dtype == np.float32


@pytest.mark.skipif(
    not (torch.cuda.is_available() and has_provider(TENSORRT)),
    reason='needs a CUDA GPU, onnxruntime-gpu and TensorRT',
)
@pytest.mark.parametrize('precision', ['float32', *NARROW])
def test_the_shipped_bundle_on_tensorrt(precision: str) -> None:
    engine = build_engine(load_bundle('mhd'), engine='tensorrt', precision=precision)
    assert engine.name == 'tensorrt' and f'{precision}, differs by' in engine.reason


def test_equal_engines_do_not_differ(bundle: Bundle) -> None:
    engines = (build_engine(bundle, 'cpu', kind) for kind in ('onnx', 'torch'))
    assert difference(*engines, bundle.spec) < 1e-5


@pytest.mark.parametrize(
    'weight',
    ['top.joint.posterior.bias', 'unimodal.symbol.decoder.1.bias', 'top.scale.sound.mean'],
)
def test_what_differs_is_refused(bundle: Bundle, weight: str) -> None:
    noise = np.random.default_rng(0).standard_normal(bundle.weights[weight].shape, np.float32)
    wrong = shifted(bundle, weight, noise)
    reference = build_engine(bundle, 'cpu', 'torch')
    with pytest.raises(EngineUnavailable, match=r'differs by .* 0\.001 is allowed') as error:
        check_parity(OnnxEngine(wrong), reference, bundle.spec)
    assert '\n' not in str(error.value)


def test_what_is_no_number_is_refused() -> None:
    """Weights beyond what 16 bits hold."""
    bundle = make_bundle()
    huge = {
        name: value * np.float32(1e6) if name == 'top.joint.mapping.image.weight' else value
        for name, value in bundle.weights.items()
    }
    with pytest.raises(EngineUnavailable, match='float16: differs by nan'):
        build_engine(replace(bundle, weights=huge), 'cpu', 'torch', precision='float16')


def test_torch_is_compared_with_torch(bundle: Bundle) -> None:
    """Graphs that are broken are nothing to it."""
    assert bundle.graphs is not None
    content = {**bundle.graphs.content, 'fuse': b'no graph'}
    broken = replace(bundle, graphs=replace(bundle.graphs, content=content))
    assert 'differs by' in build_engine(broken, 'cpu', 'torch', precision='bfloat16').reason


@no_gpu
def test_sixteen_bits_on_a_cpu_are_asked_for_by_name(bundle: Bundle) -> None:
    with pytest.raises(EngineUnavailable, match=r'no CUDA GPU .* only with device cpu'):
        build_engine(bundle, precision='float16')


class Broken(OnnxEngine):
    """As a driver that is too old shows it: at the first call."""

    def fuse(self, codes: Mapping[str, Array], present: np.ndarray) -> tuple[Array, Array]:
        raise RuntimeError('CUDA error:\nno kernel image is available')


def test_an_engine_that_fails_at_its_first_call_is_refused_in_one_line(bundle: Bundle) -> None:
    message = 'fails at its first call: CUDA error: no kernel image is available'
    with pytest.raises(EngineUnavailable, match=message):
        check_parity(Broken(bundle), build_engine(bundle, 'cpu'), bundle.spec)


@no_gpu
@pytest.mark.usefixtures('pretended_gpu')
@pytest.mark.parametrize('fails', [True, False])
def test_auto_goes_on_with_the_cpu_where_a_gpu_gives_something_else(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """In place of a GPU that computes wrongly, or not at all: an engine of which that is true."""
    create, wrong = build_module._create, shifted(bundle, 'top.scale.image.std', np.float32(1.0))

    def on_a_bad_gpu(bundle: Bundle, kind: str, device: str, *choice: Any) -> Engine:
        if device == 'cpu':
            return create(bundle, kind, device, *choice)
        return Broken(bundle) if fails else OnnxEngine(wrong)

    monkeypatch.setattr(build_module, '_create', on_a_bad_gpu)
    chosen = build_engine(bundle)
    assert (chosen.name, chosen.device) == ('onnx', 'cpu')
    assert ('fails at its first call' if fails else 'differs by') in chosen.reason
    with pytest.raises(EngineUnavailable, match='onnx on cpu, float32'):
        build_engine(bundle, 'cuda')


@pytest.mark.parametrize(
    ('choice', 'message'),
    [
        (('cpu', 'tensorrt'), 'engine tensorrt on device cpu: it does not run there'),
        (('cpu', 'onnx', 0, 'float16'), 'onnx on cpu computes in float32 or int8, not float16'),
        (('cpu', 'torch', 0, 'int8'), 'torch on cpu computes in float32 or float16 or bfloat16'),
        (('cpu', 'onnx', 0, 'int8'), 'has no graph with a large layer in 8 bits'),
        (('cpu', 'onnx', 0, 'int4'), 'unknown precision "int4"; known: float32, float16, bfloat'),
    ],
)
def test_what_does_not_go_together_is_an_error(
    bundle: Bundle, choice: tuple[str, ...], message: str
) -> None:
    with pytest.raises(EngineUnavailable, match=message):
        build_engine(bundle, *choice)


@no_gpu
def test_tensorrt_needs_a_gpu(bundle: Bundle) -> None:
    with pytest.raises(EngineUnavailable, match='no CUDA GPU is usable here'):
        build_engine(bundle, engine='tensorrt')


@no_gpu
@pytest.mark.usefixtures('pretended_gpu')
def test_tensorrt_is_never_replaced_in_silence(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setenv('NVIDIA_TF32_OVERRIDE', '1')
    with pytest.raises(EngineUnavailable, match='cannot load its TensorRT provider; install'):
        build_engine(bundle, engine='tensorrt')


def test_tensorrt_keeps_what_it_builds_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setenv('NVIDIA_TF32_OVERRIDE', '1')
    one, other = np.zeros(3, np.float32), np.ones(3, np.float32)
    folders = set()
    for precision, content, weights in (
        ('float32', b'graph', one),
        ('float32', b'another', one),
        ('float32', b'graph', other),
        ('float16', b'graph', one),
    ):
        (name, options), (fallback, _) = with_options(TENSORRT, precision, content, [weights])
        assert (name, fallback) == ('TensorrtExecutionProvider', 'CUDAExecutionProvider')
        assert options['trt_engine_cache_enable'] == '1'
        assert ('trt_fp16_enable' in options) == (precision == 'float16')
        folders.add(options['trt_engine_cache_path'])
    assert len(folders) == 4 and all(tmp_path in Path(folder).parents for folder in folders)
    assert os.environ['NVIDIA_TF32_OVERRIDE'] == '0'


def test_a_cache_that_cannot_be_made_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    with pytest.raises(EngineUnavailable, match=r'cannot be made .* XDG_CACHE_HOME'):
        with_options(TENSORRT, 'float16', b'', [])
