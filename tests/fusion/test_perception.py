"""One tick of a perception, reading by reading, and the front door."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mm_perception
from mm_perception.bundle import Bundle, save_bundle
from mm_perception.engines.build import build_engine
from mm_perception.errors import ConfigError
from mm_perception.fusion.assessment import judge
from mm_perception.fusion.health import Limits, State
from mm_perception.fusion.perception import Perception
from mm_perception.fusion.results import Demand
from mm_perception.fusion.streams import Reading
from mm_perception.modalities import Stamped
from tests.helpers.small_bundle import LABELS, make_bundle

SECOND_NS = 1_000_000_000
LIMITS = Limits(enabled=True, max_age_s=1.0, hold=False, future_s=0.5)


# Health


@pytest.mark.parametrize(
    ('reading', 'changes', 'state', 'used', 'reason'),
    [
        (None, {}, State.WAITING, False, 'nothing'),
        (Reading(None), {}, State.WAITING, False, 'nothing'),
        (Reading(Stamped('3', 9 * SECOND_NS)), {}, State.OK, True, ''),
        (Reading(Stamped('3', 8 * SECOND_NS)), {}, State.STALE, False, '2 s old'),
        (Reading(Stamped('3', 8 * SECOND_NS)), {'hold': True}, State.STALE, True, '2 s old'),
        (Reading(Stamped('3', 8 * SECOND_NS)), {'max_age_s': 3.0}, State.OK, True, ''),
        (Reading(Stamped('3', 10 * SECOND_NS), 'bad'), {}, State.REJECTED, False, 'bad'),
        (Reading(None, 'bad'), {}, State.REJECTED, False, 'bad'),
        (Reading(Stamped('3', 10_400_000_000)), {}, State.OK, True, ''),
        (Reading(Stamped('3', 12 * SECOND_NS)), {}, State.REJECTED, False, 'future'),
        (Reading(Stamped('3', 10 * SECOND_NS)), {'enabled': False}, State.DISABLED, False, 'off'),
    ],
)
def test_health_judges_a_reading(reading, changes, state, used, reason):
    limits = Limits(**{**vars(LIMITS), **changes})
    verdict = judge(reading, limits, 10 * SECOND_NS)
    assert (verdict.state, verdict.used) == (state, used)
    assert reason in verdict.reason
    assert bool(reason) == bool(verdict.reason)


# Fusion


@pytest.fixture(scope='module')
def perception() -> Perception:
    bundle = make_bundle()
    perception = Perception(bundle, build_engine(bundle, 'cpu'))
    perception.warm_up()
    return perception


def readings_of(perception: Perception, **values: Reading) -> dict[str, Reading | None]:
    """Readings of all modalities, those not given missing."""
    return {name: values.get(name) for name in perception.modalities}


def tick(perception, demand=None, now_ns=10 * SECOND_NS, **values):
    """One tick at 10 s."""
    limits = dict.fromkeys(perception.modalities, LIMITS)
    readings = readings_of(perception, **values)
    (fused,) = perception.tick([readings], limits, demand or Demand(), now_ns)
    return fused


IMAGE = Reading(Stamped(np.eye(48, dtype=np.uint8) * 250, 9_500_000_000))
SEVEN = Reading(Stamped('7', 9_800_000_000))


def test_perception_takes_the_stamp_of_the_newest_value(perception):
    fused = tick(perception, image=IMAGE, symbol=SEVEN)
    assert fused.stamp_ns == 9_800_000_000
    assert set(fused.observed) == {'image', 'symbol'}
    assert fused.result is not None
    assert fused.result.mean.shape == (8,)


def test_perception_gives_nothing_from_thin_air(perception):
    fused = tick(perception)
    assert fused.result is None
    assert fused.stamp_ns == 10 * SECOND_NS
    assert all(v.state is State.WAITING for v in fused.verdicts.values())


def test_perception_generates_what_is_wanted_and_no_more(perception):
    everything = frozenset(perception.modalities)
    fused = tick(perception, Demand(), symbol=SEVEN)
    assert not fused.result.reconstructions
    fused = tick(perception, Demand(missing=everything), symbol=SEVEN)
    assert set(fused.result.reconstructions) == everything - {'symbol'}
    fused = tick(perception, Demand(always=everything), symbol=SEVEN)
    assert set(fused.result.reconstructions) == everything
    fused = tick(perception, Demand(missing=everything, std=frozenset({'image'})), symbol=SEVEN)
    assert set(fused.std) == {'image'}
    assert fused.std['image'].shape == (1, 28, 28)


def test_a_sensor_that_is_switched_off_tells_how_well_it_is_filled_in(perception):
    readings = readings_of(perception, image=IMAGE, symbol=SEVEN)
    limits = dict.fromkeys(perception.modalities, LIMITS)
    everything = Demand(missing=frozenset(perception.modalities))
    off = Limits(enabled=False)
    (fused,) = perception.tick([readings], limits | {'image': off}, everything, 10 * SECOND_NS)
    truth = perception.modalities['image'].to_model(IMAGE.value.raw)
    difference = fused.result.reconstructions['image'] - truth
    assert fused.errors == {'image': pytest.approx(np.sqrt(np.square(difference).mean()))}
    (fused,) = perception.tick([readings], limits | {'symbol': off}, everything, 10 * SECOND_NS)
    given = fused.result.reconstructions['symbol'][LABELS.index('7')]
    assert fused.errors == {'symbol': pytest.approx(1.0 - given)}
    (fused,) = perception.tick([readings], limits | {'symbol': off}, everything, 12 * SECOND_NS)
    assert not fused.errors, 'the truth is too old'


def test_perception_rejects_a_value_that_the_model_cannot_take(perception):
    unknown = Reading(Stamped('seven', 9_900_000_000))
    fused = tick(perception, image=IMAGE, symbol=unknown)
    assert fused.verdicts['symbol'].state is State.REJECTED
    assert 'unknown label' in fused.verdicts['symbol'].reason
    assert set(fused.observed) == {'image'}
    assert fused.stamp_ns == 9_500_000_000
    assert tick(perception, image=IMAGE, symbol=SEVEN).verdicts['symbol'].state is State.OK


def test_perception_prepares_a_value_once(perception, monkeypatch):
    count = []
    image = perception.modalities['image']
    original = image.to_model
    monkeypatch.setattr(image, 'to_model', lambda raw: count.append(1) or original(raw))
    reading = Reading(Stamped(np.eye(8, dtype=np.uint8) * 250, 9_900_000_000))
    first = tick(perception, image=reading)
    second = tick(perception, image=reading)
    assert len(count) == 1
    np.testing.assert_array_equal(first.result.mean, second.result.mean)


def test_perception_describes_itself_as_plain_data(perception):
    facts = perception.describe()
    assert facts['latent_dim'] == 8
    assert [m['name'] for m in facts['modalities']] == ['image', 'trajectory', 'sound', 'symbol']
    assert facts['labels'] == list(LABELS)


# The front door


RGB = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


@pytest.fixture
def saved(tmp_path: Path) -> Bundle:
    return save_bundle(make_bundle(), tmp_path / 'small', '# small')


def test_front_door_fuses_and_generates_what_is_missing(saved: Bundle) -> None:
    p = mm_perception.load(str(saved.path))
    p.update('image', RGB)
    p.update('symbol', '7')
    result = p.infer()
    assert result.latent.shape == result.std.shape == (8,)
    assert result.mask.tolist() == [True, False, False, True]
    assert {name: a.shape for name, a in result.reconstructions.items()} == {
        'trajectory': (200,),
        'sound': (128, 32),
    }
    assert result.health['image'].state is State.OK
    assert result.health['sound'].state is State.WAITING
    assert set(p.infer(wanted=['image']).reconstructions) == {'image'}


def test_front_door_says_what_is_wrong_with_a_value(saved: Bundle) -> None:
    p = mm_perception.load(str(saved.path))
    p.update('image', np.zeros((3,)))
    p.update('symbol', 'seven')
    result = p.infer()
    assert result.health['image'].reason.startswith('image has shape (3,)')
    assert 'unknown label' in result.health['symbol'].reason
    assert not result.mask.any()
    np.testing.assert_array_equal(result.latent, np.zeros(8))
    np.testing.assert_array_equal(result.std, np.ones(8))
    with pytest.raises(ConfigError, match='no modality "nose"; the bundle has: image'):
        p.update('nose', 1.0)
    with pytest.raises(ConfigError, match='no modality "nose"'):
        p.infer(wanted=['nose'])


def test_front_door_forgets_what_is_old(saved: Bundle) -> None:
    p = mm_perception.load(str(saved.path))
    p.update('symbol', '7', stamp_ns=1_000 * SECOND_NS)
    assert p.infer(now_ns=1_000 * SECOND_NS + 1).mask.any()
    late = p.infer(now_ns=1_002 * SECOND_NS)
    assert late.health['symbol'].state is State.STALE and not late.mask.any()


def test_front_door_takes_many_streams_as_one_batch(saved: Bundle) -> None:
    count = 6
    batch = mm_perception.load(str(saved.path), streams=count)
    images = [np.roll(RGB, k, axis=1) if k % 3 else None for k in range(count)]
    labels = [str(k) if k % 2 else None for k in range(count)]
    batch.update('image', images)
    batch.update('symbol', labels)
    found = batch.infer()
    assert found.latent.shape == (count, 8)
    assert found.mask[:, 0].tolist() == [image is not None for image in images]
    for k in range(count):
        one = mm_perception.load(str(saved.path))
        if images[k] is not None:
            one.update('image', images[k])
        if labels[k] is not None:
            one.update('symbol', labels[k])
        expected = one.infer(wanted=list(found.reconstructions))
        np.testing.assert_allclose(found.latent[k], expected.latent, atol=1e-5)
        np.testing.assert_allclose(found.std[k], expected.std, atol=1e-5)
        for name, made in expected.reconstructions.items():
            np.testing.assert_allclose(found.reconstructions[name][k], made, atol=1e-5)
        assert found.health[k]['image'].state is expected.health['image'].state
    with pytest.raises(ConfigError, match='2 values for 6 streams'):
        batch.update('symbol', ['1', '2'])
    with pytest.raises(ConfigError, match='streams is 0'):
        mm_perception.load(str(saved.path), streams=0)
