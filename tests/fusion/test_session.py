"""Engine and session against the plain model."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from mm_perception.bundle import Bundle
from mm_perception.engines.build import build_engine
from mm_perception.errors import EngineUnavailable, InvalidInput, NothingObserved
from mm_perception.fusion.session import InferenceSession
from mm_perception.modalities import build_modality
from mm_perception.modalities.base import Array
from mm_perception.model.base import MultimodalModel
from mm_perception.model.build import build_model
from tests.helpers.model_specs import arm_spec

SPEC = arm_spec()


@pytest.fixture(scope='module')
def model() -> MultimodalModel:
    torch.manual_seed(0)
    return build_model(SPEC).eval()


@pytest.fixture
def session(model: MultimodalModel) -> InferenceSession:
    weights = {k: v.numpy() for k, v in model.state_dict().items()}
    return InferenceSession(build_engine(Bundle('arm', SPEC, weights), 'cpu'), SPEC)


def arrays(model: MultimodalModel, seed: int) -> dict[str, Array]:
    generator = np.random.default_rng(seed)
    return {
        m.name: generator.random(build_modality(m).shape, dtype=np.float32)
        for m in model.spec.modalities
    }


def test_session_equals_the_model_for_every_subset(
    model: MultimodalModel, session: InferenceSession
) -> None:
    data = arrays(model, 0)
    for name, array in data.items():
        session.update(name, array)
    batch = {name: torch.from_numpy(array)[None] for name, array in data.items()}
    for size in range(1, len(SPEC.names) + 1):
        for subset in itertools.combinations(SPEC.names, size):
            present = torch.tensor([[name in subset for name in SPEC.names]])
            with torch.no_grad():
                codes = {name: model.encode(name, value) for name, value in batch.items()}
                joint = model.fuse(codes, present)
                expected = {name: model.decode(name, joint.mean) for name in SPEC.names}
            result = session.infer(subset, SPEC.names)
            np.testing.assert_allclose(result.mean, joint.mean, atol=1e-5)
            np.testing.assert_allclose(result.std, joint.std, atol=1e-5)
            for name, value in expected.items():
                np.testing.assert_allclose(result.reconstructions[name], value, atol=1e-5)


def test_incremental_equals_full_recomputation(
    model: MultimodalModel, session: InferenceSession
) -> None:
    generator = np.random.default_rng(1)
    current: dict[str, Array] = {}
    for step in range(40):
        fresh = arrays(model, step)
        for name in generator.permutation(SPEC.names)[: generator.integers(1, 4)]:
            current[name] = fresh[name]
            session.update(name, fresh[name])
        known = list(current)
        present = set(generator.permutation(known)[: generator.integers(1, len(known) + 1)])
        result = session.infer(present, SPEC.names)
        again = InferenceSession(session.engine, SPEC)
        for name in present:
            again.update(name, current[name])
        np.testing.assert_allclose(result.mean, again.infer(present, ()).mean, atol=1e-6)


def test_only_changed_modalities_are_encoded(
    model: MultimodalModel, session: InferenceSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    encode = session.engine.encode

    def counting(name: str, data: Array) -> Array:
        encoded.append(name)
        return encode(name, data)

    monkeypatch.setattr(session.engine, 'encode', counting)
    data = arrays(model, 0)
    session.update('front', data['front'])
    session.update('force', data['force'])
    session.infer({'front', 'force'}, ())
    session.infer({'front', 'force'}, ())
    session.update('force', data['force'])
    session.infer({'front'}, ())
    assert sorted(encoded) == ['force', 'front']
    session.infer({'front', 'force'}, ())
    assert sorted(encoded) == ['force', 'force', 'front']


def test_nothing_observed_is_an_error(model: MultimodalModel, session: InferenceSession) -> None:
    with pytest.raises(NothingObserved, match='no modality is present'):
        session.infer((), ())
    with pytest.raises(NothingObserved, match='no data of front'):
        session.infer({'front'}, ())
    with pytest.raises(NothingObserved, match='nothing was fused yet'):
        session.reconstruction_std({'front'})


def test_a_wrong_shape_is_refused(session: InferenceSession) -> None:
    with pytest.raises(InvalidInput, match=r'force has shape \(4,\)'):
        session.update('force', np.zeros(4, np.float32))


def test_uncertainty_comes_from_latent_samples(
    model: MultimodalModel, session: InferenceSession
) -> None:
    session.update('force', arrays(model, 0)['force'])
    session.infer({'force'}, ())
    std = session.reconstruction_std({'front', 'joints'}, samples=32)
    assert std['front'].shape == (1, 3, 16, 24) and std['joints'].shape == (1, 60)
    assert all((value > 0).any() for value in std.values())


def test_a_device_that_is_not_there_is_an_error(model: MultimodalModel) -> None:
    bundle = Bundle('arm', SPEC, {k: v.numpy() for k, v in model.state_dict().items()})
    with pytest.raises(EngineUnavailable, match='unknown device "tpu"'):
        build_engine(bundle, 'tpu')
    if not torch.cuda.is_available():
        with pytest.raises(EngineUnavailable, match='no CUDA GPU'):
            build_engine(bundle, 'cuda')


def test_a_batch_of_streams_equals_a_session_for_each(
    model: MultimodalModel, session: InferenceSession
) -> None:
    count, generator = 5, np.random.default_rng(3)
    batch = InferenceSession(session.engine, SPEC, streams=count)
    alone = [InferenceSession(session.engine, SPEC) for _ in range(count)]
    present = generator.random((count, len(SPEC.names))) < 0.6
    present[2] = False
    otherwise = np.full((count, 8), 0.5, np.float32), np.full((count, 8), 2.0, np.float32)
    otherwise = tuple(part[:, : SPEC.joint_latent_dim] for part in otherwise)
    for step in range(3):
        for k, each in enumerate(alone):
            for name, array in arrays(model, 10 * step + k).items():
                if present[k, SPEC.names.index(name)]:
                    each.update(name, array)
                    batch.update(name, array, k)
        found = batch.infer(present, SPEC.names, otherwise=otherwise)
        for k, each in enumerate(alone):
            if not present[k].any():
                np.testing.assert_array_equal(found.mean[k], otherwise[0][k])
                continue
            seen = {name for name, here in zip(SPEC.names, present[k]) if here}
            expected = each.infer(seen, SPEC.names)
            np.testing.assert_allclose(found.mean[k], expected.mean[0], atol=1e-5)
            np.testing.assert_allclose(found.std[k], expected.std[0], atol=1e-5)
            for name, made in expected.reconstructions.items():
                np.testing.assert_allclose(found.reconstructions[name][k], made[0], atol=1e-5)
    with pytest.raises(NothingObserved):
        batch.infer(present, ())
