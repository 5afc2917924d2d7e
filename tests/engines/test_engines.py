"""Every engine against the eager reference, for every family and every subset."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from mm_perception.bundle import Bundle, load_bundle, save_bundle
from mm_perception.engines.build import build_engine
from mm_perception.engines.classifiers import load_classifiers
from mm_perception.engines.engine import Engine
from mm_perception.engines.export import with_graphs
from mm_perception.engines.onnx_engine import has_provider
from mm_perception.engines.torch_classifiers import TorchClassifiers
from mm_perception.errors import BundleError, EngineUnavailable, NothingObserved
from mm_perception.modalities import build_modality
from mm_perception.modalities.base import Array
from mm_perception.model.networks import Classifier
from mm_perception.spec import ModelSpec
from tests.helpers.model_specs import every_kind
from tests.helpers.small_bundle import make_bundle

TOLERANCE = 2e-5
"""Difference to the eager reference, absolute or relative: float32, sums in another order."""
SPECS = every_kind()


def arrays(spec: ModelSpec, count: int, seed: int = 0) -> dict[str, Array]:
    generator = np.random.default_rng(seed)
    return {
        m.name: generator.random((count, *build_modality(m).shape), dtype=np.float32)
        for m in spec.modalities
    }


def lived_in(bundle: Bundle, seed: int = 0) -> Bundle:
    """The bundle with every weight and statistic moved from where it began."""
    generator = np.random.default_rng(seed)
    weights = {
        name: np.asarray(value + 0.03 * generator.standard_normal(value.shape), np.float32)
        if value.dtype == np.float32
        else value
        for name, value in bundle.weights.items()
    }
    return replace(bundle, weights=weights)


def assert_equal(engine: Engine, reference: Engine, spec: ModelSpec, count: int) -> None:
    data = arrays(spec, count, seed=count)
    codes = {name: engine.encode(name, value) for name, value in data.items()}
    expected = {name: reference.encode(name, value) for name, value in data.items()}
    assert (engine.fuses, engine.own_latents) == (reference.fuses, reference.own_latents)
    for name, code in codes.items():
        assert code.dtype == np.float32 and code.shape == (count, engine.code_dims[name])
        if engine.own_latents:
            own = np.s_[:, : spec.modality(name).latent_dim]
            np.testing.assert_allclose(code[own], expected[name][own], TOLERANCE, TOLERANCE)
    for subset in product((False, True), repeat=len(spec.names)):
        if not any(subset):
            continue
        present = np.repeat([subset], count, axis=0)
        joint, wanted = engine.fuse(codes, present), reference.fuse(expected, present)
        np.testing.assert_allclose(joint, wanted, atol=TOLERANCE, rtol=TOLERANCE)
        for name in spec.names:
            made, right = engine.decode(name, joint[0]), reference.decode(name, wanted[0])
            assert made.shape == data[name].shape
            np.testing.assert_allclose(made, right, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize('case', SPECS)
def test_onnx_equals_the_eager_reference(case: str) -> None:
    spec = SPECS[case]
    bundle = with_graphs(lived_in(make_bundle(case, spec=spec)))
    engine, reference = (build_engine(bundle, 'cpu', kind) for kind in ('onnx', 'torch'))
    for count in (1, 3):
        assert_equal(engine, reference, spec, count)


def test_engines_agree_on_the_shipped_bundle() -> None:
    bundle = load_bundle('mhd')
    engine, reference = (build_engine(bundle, 'cpu', kind) for kind in ('onnx', 'torch'))
    assert_equal(engine, reference, bundle.spec, 2)


@pytest.mark.gpu
@pytest.mark.parametrize('kind', ['torch', 'onnx'])
@pytest.mark.parametrize('case', SPECS)
def test_gpu_engines_equal_the_eager_reference(case: str, kind: str) -> None:
    if kind == 'onnx' and not has_provider('cuda'):
        pytest.skip('needs onnxruntime-gpu')
    bundle = lived_in(make_bundle(case, spec=SPECS[case]))
    if kind == 'onnx':
        bundle = with_graphs(bundle)
    engine, reference = build_engine(bundle, 'cuda', kind), build_engine(bundle, 'cpu', 'torch')
    assert engine.name == ('torch-cuda-graph' if kind == 'torch' else kind)
    for count in (1, 3, 64):  # the last runs eagerly
        assert_equal(engine, reference, SPECS[case], count)


def test_onnx_needs_somebody_present() -> None:
    bundle = with_graphs(make_bundle())
    engine = build_engine(bundle, 'cpu', 'onnx')
    codes = {name: np.zeros((1, size), np.float32) for name, size in engine.code_dims.items()}
    with pytest.raises(NothingObserved, match='no modality is present'):
        engine.fuse(codes, np.zeros((1, len(codes)), bool))


def test_onnx_says_what_it_does_not_offer() -> None:
    engine = build_engine(with_graphs(make_bundle()), 'cpu', 'onnx')
    joint = np.zeros((1, 8), np.float32)
    with pytest.raises(EngineUnavailable, match='use engine torch'):
        engine.fuse_sample({}, np.ones((1, 4), bool), 0)
    assert engine.draws
    own_way = build_engine(with_graphs(make_bundle(spec=SPECS['mhvae'])), 'cpu', 'onnx')
    assert not own_way.draws
    with pytest.raises(EngineUnavailable, match='no samples of this family; use engine torch'):
        own_way.decode_sample(SPECS['mhvae'].names[0], joint, 0)


def test_engines_draw_from_the_same_distribution() -> None:
    spec = SPECS['calibrated']
    bundle = with_graphs(lived_in(make_bundle(spec=spec)))
    engines = [build_engine(bundle, 'cpu', kind) for kind in ('onnx', 'torch')]
    joint = np.zeros((4000, spec.joint_latent_dim), np.float32)
    for name in spec.names:
        drawn = [engine.decode_sample(name, joint, 7) for engine in engines]
        again = engines[0].decode_sample(name, joint, 7)
        np.testing.assert_array_equal(drawn[0], again)
        scale = drawn[1].std(0)
        assert scale.mean() > 1e-4
        for statistic in (np.mean, np.std):
            first, second = (statistic(part, axis=0) for part in drawn)
            assert (np.abs(first - second) <= 0.2 * scale + 1e-6).all(), name
        expected = engines[0].decode(name, joint[:1])
        assert np.abs(drawn[0] - expected).max() > scale.mean()


def test_onnx_sample_without_anything_to_draw_is_what_is_expected() -> None:
    engine = build_engine(with_graphs(make_bundle()), 'cpu', 'onnx')
    joint = np.ones((2, 8), np.float32)
    made = engine.decode_sample('image', joint, 3)
    np.testing.assert_array_equal(made, engine.decode('image', joint))


@pytest.mark.parametrize(
    ('device', 'engine', 'message'),
    [
        ('tpu', 'auto', 'unknown device "tpu"; known: auto, cpu, cuda'),
        ('cpu', 'tensorflow', 'unknown engine "tensorflow"; known: auto, onnx, torch'),
        ('auto', 'onnx', 'has no ONNX graphs; run mm-perception export'),
    ],
)
def test_an_engine_that_is_not_there_is_an_error(device: str, engine: str, message: str) -> None:
    with pytest.raises(EngineUnavailable, match=message) as error:
        build_engine(make_bundle(), device, engine)
    assert '\n' not in str(error.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a CUDA GPU')
@pytest.mark.parametrize('engine', ['auto', 'onnx', 'torch'])
def test_cuda_is_never_replaced_in_silence(engine: str) -> None:
    with pytest.raises(EngineUnavailable, match='no CUDA GPU is usable here'):
        build_engine(with_graphs(make_bundle()), 'cuda', engine)


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a CUDA GPU')
@pytest.mark.usefixtures('pretended_gpu')
def test_a_provider_that_does_not_load_is_not_replaced_in_silence() -> None:
    """ONNX Runtime itself goes on with the CPU."""
    bundle = with_graphs(make_bundle())
    with pytest.raises(EngineUnavailable, match='cannot load its CUDA provider; install') as error:
        build_engine(bundle, 'cuda', 'onnx')
    assert '\n' not in str(error.value)
    chosen = build_engine(bundle, 'auto', 'onnx')
    assert chosen.device == 'cpu' and 'cannot load its CUDA provider' in chosen.reason


def test_the_fastest_engine_is_chosen_and_says_why() -> None:
    bare = make_bundle()
    chosen = {
        engine.name: engine.reason for engine in map(build_engine, (bare, with_graphs(bare)))
    }
    if not torch.cuda.is_available():
        assert set(chosen) == {'torch', 'onnx'}
        assert 'no ONNX graphs' in chosen['torch'] and 'no CUDA GPU' in chosen['onnx']


def test_weights_that_do_not_fit_the_graphs_are_refused() -> None:
    bundle = with_graphs(make_bundle())
    name = 'top.joint.posterior.weight'
    for weights in (
        {k: v for k, v in bundle.weights.items() if k != name},
        {**bundle.weights, name: np.zeros((3, 3), np.float32)},
    ):
        with pytest.raises(BundleError, match='graph fuse') as error:
            build_engine(replace(bundle, weights=weights), 'cpu', 'onnx')
        assert '\n' not in str(error.value)


def test_a_broken_graph_is_refused_in_one_line() -> None:
    bundle = with_graphs(make_bundle())
    assert bundle.graphs is not None
    content = {**bundle.graphs.content, 'fuse': b'no graph'}
    broken = replace(bundle, graphs=replace(bundle.graphs, content=content))
    with pytest.raises(BundleError, match='graph') as error:
        build_engine(broken, 'cpu', 'onnx')
    assert '\n' not in str(error.value)


def bundle_with_classifiers(path: Path) -> Bundle:
    """A bundle with graphs and classifiers, on disk."""
    bundle = make_bundle()
    readers = {m.name: Classifier(m, 10) for m in bundle.spec.modalities if m.kind != 'symbol'}
    bundle = replace(bundle, classifiers=TorchClassifiers(readers).state())
    return save_bundle(with_graphs(bundle), path, '# small\n')


WITHOUT_TORCH = """
import sys, json
sys.modules['torch'] = None
import numpy as np
from mm_perception.bundle import load_bundle
from mm_perception.engines.classifiers import load_classifiers
from mm_perception.engines.build import build_engine
from mm_perception.fusion.session import InferenceSession
bundle = load_bundle(sys.argv[1])
data = dict(np.load(sys.argv[2]))
engine = build_engine(bundle)
session = InferenceSession(engine, bundle.spec)
for name, values in data.items():
    session.update(name, values[0])
result = session.infer(data, data)
session.reconstruction_std(['image'])
readers = load_classifiers(bundle)
read = {name: readers.read(name, values).tolist() for name, values in data.items()}
print(json.dumps({'engine': engine.name, 'mean': result.mean.tolist(), 'read': read}))
"""


def test_nothing_is_kept_on_the_machine_or_reported(tmp_path: Path) -> None:
    """ONNX Runtime from PyPI would keep an identifier, and upload what runs where."""
    bundle = bundle_with_classifiers(tmp_path / 'small')
    code = (
        'import sys; from mm_perception.bundle import load_bundle\n'
        'from mm_perception.engines.build import build_engine\n'
        'print(build_engine(load_bundle(sys.argv[1]), "cpu", "onnx").name)'
    )
    home = tmp_path / 'home'
    kept = {name: value for name, value in os.environ.items() if name in ('PATH', 'PYTHONPATH')}
    done = subprocess.run(
        [sys.executable, '-c', code, str(bundle.path)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**kept, 'HOME': str(home), 'XDG_CACHE_HOME': str(home / 'cache')},
    )
    assert done.stdout.strip() == 'onnx', done.stderr
    assert not list(home.rglob('*'))


def test_everything_that_runs_does_without_torch(tmp_path: Path) -> None:
    bundle = bundle_with_classifiers(tmp_path / 'small')
    data = arrays(bundle.spec, 5)
    np.savez(tmp_path / 'data.npz', **data)  # type: ignore[arg-type]
    done = subprocess.run(
        [sys.executable, '-c', WITHOUT_TORCH, str(bundle.path), str(tmp_path / 'data.npz')],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    reference = build_engine(bundle, 'cpu', 'torch')
    codes = {name: reference.encode(name, values[:1]) for name, values in data.items()}
    mean, _ = reference.fuse(codes, np.ones((1, len(codes)), bool))
    assert found['engine'] == 'onnx'
    np.testing.assert_allclose(found['mean'], mean, atol=TOLERANCE, rtol=TOLERANCE)
    readers = load_classifiers(replace(bundle, graphs=None))
    for name, values in data.items():
        assert found['read'][name] == readers.read(name, values).tolist()


THREADS_IN_TURN = """
import sys
from mm_perception.bundle import load_bundle
from mm_perception.engines.build import build_engine
from mm_perception.errors import EngineUnavailable

bundle = load_bundle(sys.argv[1])
for threads in (1, 2, 1):
    build_engine(bundle, 'cpu', 'onnx', threads)
try:
    build_engine(bundle, 'cpu', 'onnx', 3)
except EngineUnavailable as error:
    print(error)
"""


def test_engines_of_one_process_may_ask_for_one_thread_after_several(tmp_path: Path) -> None:
    bundle = bundle_with_classifiers(tmp_path / 'small')
    done = subprocess.run(
        [sys.executable, '-c', THREADS_IN_TURN, str(bundle.path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert 'this process began with 2' in done.stdout
