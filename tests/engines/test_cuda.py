"""Captured graphs and narrow types on a GPU, with the bundle that is shipped."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('torch', reason='torch is not installed')

from mm_perception.bundle import load_bundle
from mm_perception.engines.build import build_engine, difference
from mm_perception.engines.engine import BOUNDS
from mm_perception.engines.torch_engine import CAPTURED_ROWS, TorchEngine
from mm_perception.modalities import build_modality

pytestmark = pytest.mark.gpu
BATCHES = (1, 2, CAPTURED_ROWS, CAPTURED_ROWS + 1, 1024)


@pytest.mark.parametrize('batch', BATCHES)
def test_captured_graphs_equal_eager_calls_of_every_batch_size(batch: int) -> None:
    bundle = load_bundle('mhd')
    graphs, eager = (TorchEngine(bundle, 'cuda', eager=eager) for eager in (False, True))
    assert (graphs.name, eager.name) == ('torch-cuda-graph', 'torch')
    random = np.random.default_rng(batch)
    for turn in range(2):  # the second replays what the first captured, with other data
        for modality in bundle.spec.modalities:
            shape = (batch, *build_modality(modality).shape)
            data = random.random(shape, np.float32) * (turn + 1) / 2
            ours, theirs = (engine.encode(modality.name, data) for engine in (graphs, eager))
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('precision', ['float16', 'bfloat16'])
def test_narrow_types_stay_within_their_bound(precision: str) -> None:
    bundle = load_bundle('mhd')
    engine = build_engine(bundle, 'cuda', 'torch', precision=precision)
    assert (engine.device, engine.precision) == ('cuda', precision)
    found = difference(engine, build_engine(bundle, 'cpu', 'torch'), bundle.spec)
    assert 0.0 < found <= BOUNDS[precision]
