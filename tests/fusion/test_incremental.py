"""The session after any sequence of arrivals and losses equals a full recomputation."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_perception.engines.build import build_engine
from mm_perception.engines.engine import Engine
from mm_perception.engines.export import with_graphs
from mm_perception.fusion.session import InferenceSession
from mm_perception.modalities import build_modality
from mm_perception.modalities.base import Array
from tests.helpers.model_specs import family_spec
from tests.helpers.small_bundle import make_bundle

SPEC = family_spec('nexus', calibrated=True)
COLUMNS = st.frozensets(st.sampled_from(SPEC.names))
STEPS = st.lists(st.tuples(COLUMNS, COLUMNS), min_size=1, max_size=8)
"""Per step: modalities that new data arrive of, modalities that are lost."""


@cache
def engine_of(kind: str) -> Engine:
    return build_engine(with_graphs(make_bundle('incremental', spec=SPEC)), 'cpu', kind)


def fresh(name: str, step: int) -> Array:
    shape = build_modality(SPEC.modality(name)).shape
    return np.random.default_rng([step, *name.encode()]).random(shape, dtype=np.float32)


@pytest.mark.parametrize('kind', ['onnx', 'torch'])
@settings(max_examples=25, deadline=None)
@given(steps=STEPS)
def test_incremental_equals_full_recomputation_after_any_sequence(
    kind: str, steps: list[tuple[frozenset[str], frozenset[str]]]
) -> None:
    engine = engine_of(kind)
    session = InferenceSession(engine, SPEC)
    current: dict[str, Array] = {}
    for step, (arriving, lost) in enumerate(steps):
        for name in sorted(arriving):
            current[name] = fresh(name, step)
            session.update(name, current[name])
        present = set(current) - lost
        if not present:
            continue
        found = session.infer(present, SPEC.names)
        again = InferenceSession(engine, SPEC)
        for name in present:
            again.update(name, current[name])
        expected = again.infer(present, SPEC.names)
        np.testing.assert_allclose(found.mean, expected.mean, atol=1e-6)
        np.testing.assert_allclose(found.std, expected.std, atol=1e-6)
        for name, values in expected.reconstructions.items():
            np.testing.assert_allclose(found.reconstructions[name], values, atol=1e-6)
