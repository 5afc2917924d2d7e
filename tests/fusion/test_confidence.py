"""How sure the label is: calibrated on held-out data, given at every tick."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mm_perception.bundle import Bundle, Health
from mm_perception.data.dataset import Dataset
from mm_perception.errors import BundleError
from mm_perception.evaluation.calibration import auroc
from mm_perception.evaluation.confidence import calibration_error, confidence_of, tell
from mm_perception.evaluation.generation import encode_all, label_indices
from mm_perception.fusion.confidence import TABLE, WEIGHTS, read_confidence
from mm_perception.fusion.session import InferenceSession
from mm_perception.training import consistency
from mm_perception.training.consistency import calibrate_consistency
from tests.helpers.agreeing_world import NAMES, AveragingEngine, world, world_spec

SPEC = world_spec(labelled=True)
BLUR = 1.0
"""More noise, by which a vector alone is often read wrong."""


def blurred(count: int, seed: int) -> Dataset:
    """Vectors that are hard to read; the symbols are right."""
    data = world(count, seed)
    generator = np.random.default_rng(seed)
    values = dict(data.values)
    for name in NAMES[:3]:
        noise = BLUR * generator.standard_normal((count, 3)).astype(np.float32)
        values[name] = values[name] + noise
    return replace(data, values=values)


@pytest.fixture(scope='module')
def health() -> Health:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(consistency, 'STEPS', 300)
        found = calibrate_consistency(AveragingEngine(), SPEC, blurred(2000, 0), blurred(1500, 1))
    assert found is not None and {TABLE, WEIGHTS} <= set(found.class_heads)
    return found


@pytest.mark.parametrize('observed', [(0,), (1,), (0, 1, 2)])
def test_confidence_tells_right_labels_from_wrong_ones_and_how_often(
    health: Health, observed: tuple[int, ...]
) -> None:
    engine, fresh = AveragingEngine(), blurred(3000, 2)
    found = confidence_of(engine, Bundle('world', SPEC, {}, health=health))
    assert found is not None
    present = np.isin(np.arange(len(NAMES)), observed)[None].repeat(len(fresh), axis=0)
    told, chance = tell(engine, *found, encode_all(engine, fresh), present)
    right = told == label_indices(fresh, SPEC)
    assert 0.6 < right.mean() < 0.99
    assert auroc(chance[right], chance[~right]) > 0.75
    assert calibration_error(chance, right) < 0.08


def test_session_gives_the_confidence_of_what_is_fused(health: Health) -> None:
    """The same as whole batches give; none where nothing is observed."""
    engine, data = AveragingEngine(), blurred(3, 3)
    found = confidence_of(engine, Bundle('world', SPEC, {}, health=health))
    assert found is not None
    session = InferenceSession(engine, SPEC, health, streams=3)
    for stream in range(3):
        for name in NAMES[:3]:
            session.update(name, data.values[name][stream], stream)
    present = np.array([[True, False, False, False], [True, True, True, False], [False] * 4])
    stands_in = np.zeros((3, 3), np.float32), np.ones((3, 3), np.float32)
    given = session.infer(present, (), otherwise=stands_in).confidence
    _, expected = tell(engine, *found, encode_all(engine, data.subset(np.arange(2))), present[:2])
    np.testing.assert_allclose(given[:2], expected, rtol=1e-5)
    assert np.isnan(given[2])


def test_confidence_of_another_model_is_refused_and_none_is_none(health: Health) -> None:
    without = {k: v for k, v in health.class_heads.items() if k not in (TABLE, WEIGHTS)}
    assert read_confidence(SPEC, replace(health, class_heads=without)) is None
    with pytest.raises(BundleError, match='make it again: mm-perception calibrate-health'):
        read_confidence(world_spec(), health)
    cut = {**health.class_heads, WEIGHTS: health.class_heads[WEIGHTS][:2]}
    with pytest.raises(BundleError, match='does not fit its model'):
        read_confidence(SPEC, replace(health, class_heads=cut))
