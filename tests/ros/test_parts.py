"""Parts of the node that need no middleware: synchroniser, slots, health, worker, parameters."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from std_msgs.msg import Header, String

from mm_perception.engines.build import build_engine
from mm_perception.errors import ConfigError
from mm_perception.fusion.fusion import Demand, Fusion
from mm_perception.fusion.health import Limits, Reading, State, judge
from mm_perception.modalities import Stamped, build_modality
from mm_perception.ros.background import Worker
from mm_perception.ros.cmi.inputs import (
    Hooks,
    InputSlot,
    PartialSynchronizer,
    SimpleFilter,
    Throttle,
)
from mm_perception.ros.cmi.mosaic import CELL, MosaicColumn, render_mosaic
from mm_perception.ros.codecs import InputCodec, input_codec
from mm_perception.ros.parameters import NODE_ROWS, ParameterSpec, modality_rows
from mm_perception.spec import ModalitySpec
from tests.helpers.model_specs import arm_spec
from tests.helpers.small_bundle import LABELS, make_bundle, small_spec

SECOND_NS = 1_000_000_000
SYMBOL = build_modality(ModalitySpec('symbol', 'symbol', 4, {'labels': LABELS}))
LIMITS = Limits(enabled=True, max_age_s=1.0, hold=False, future_s=0.5)


# Synchroniser


def test_synchronizer_fires_with_whatever_is_there():
    inputs = [SimpleFilter() for _ in range(3)]
    synchronizer = PartialSynchronizer(inputs)
    calls = []
    synchronizer.registerCallback(lambda *messages: calls.append(messages))
    synchronizer.fire()
    inputs[1].signalMessage('b1')
    synchronizer.fire()
    inputs[1].signalMessage('b2')
    inputs[0].signalMessage('a1')
    synchronizer.fire()
    assert calls == [(None, None, None), (None, 'b1', None), ('a1', 'b2', None)]
    synchronizer.clear()
    synchronizer.fire()
    assert calls[-1] == (None, None, None)


def test_synchronizer_fires_on_the_inputs_that_trigger():
    inputs = [SimpleFilter() for _ in range(2)]
    synchronizer = PartialSynchronizer(inputs, triggers=[1])
    calls = []
    synchronizer.registerCallback(lambda *args: calls.append(args), 'extra')
    inputs[0].signalMessage('a')
    assert calls == []
    inputs[1].signalMessage('b')
    assert calls == [('a', 'b', 'extra')]


def test_synchronizer_calls_back_outside_its_lock():
    source = SimpleFilter()
    synchronizer = PartialSynchronizer([source], triggers=[0])
    seen = []

    def callback(message):
        # From another thread: with the lock held this would never end.
        other = threading.Thread(target=synchronizer.add, args=(message + 1, 0))
        if message < 3:
            other.start()
            other.join(5)
            assert not other.is_alive()
        seen.append(message)

    synchronizer.registerCallback(callback)
    source.signalMessage(0)
    assert seen == [3, 2, 1, 0]


def test_synchronizer_chains_like_a_filter():
    first = SimpleFilter()
    inner = PartialSynchronizer([first], triggers=[0])
    outer = PartialSynchronizer([inner], triggers=[0])
    got = []
    outer.registerCallback(got.append)
    first.signalMessage('x')
    assert got == ['x']


# Slots


def make_slot(codec: InputCodec | None = None):
    """A symbol slot with its clock, refusals and outputs."""
    clock, reports, readings = [100], [], []
    slot = InputSlot(
        SYMBOL,
        codec or input_codec('symbol'),
        Hooks(lambda: clock[0], lambda reason, defect: reports.append((reason, defect))),
    )
    slot.registerCallback(readings.append)
    return slot, clock, reports, readings


def test_slot_turns_messages_into_readings():
    slot, clock, reports, readings = make_slot()
    slot.add(String(data='3'))
    assert readings == [Reading(Stamped('3', 100))]
    clock[0] = 200
    slot.add(String(data='3'))
    assert readings[-1].value.stamp_ns == 200
    assert (slot.received, slot.rejected, reports) == (2, 0, [])


def test_slot_reports_a_refused_message_and_keeps_the_last_value():
    slot, _, reports, readings = make_slot()
    slot.add(String(data='3'))
    slot.add(String())
    assert readings[-1].value == Stamped('3', 100)
    assert 'characters' in readings[-1].refused
    slot.add(String())
    assert len(readings) == 2, 'one output while nothing changes'
    slot.add(String(data='4'))
    assert readings[-1].refused == ''
    assert (slot.received, slot.rejected, len(reports)) == (4, 2, 2)


def test_slot_survives_a_defect_of_its_codec():
    def decode(message, receipt_ns, modality):
        raise ZeroDivisionError('oops')

    slot, _, reports, readings = make_slot(InputCodec('x', String, decode, 1))
    slot.add(String(data='3'))
    assert 'oops' in readings[-1].refused
    assert isinstance(reports[0][1], ZeroDivisionError)


def test_slot_clear_forgets_everything():
    slot, _, _, readings = make_slot()
    slot.add(String(data='3'))
    slot.clear()
    assert readings[-1] == Reading(None)


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
def fusion() -> Fusion:
    bundle = make_bundle()
    fusion = Fusion(bundle, build_engine(bundle, 'cpu'))
    fusion.warm_up()
    return fusion


def readings_of(fusion: Fusion, **values: Reading) -> dict[str, Reading | None]:
    """Readings of all modalities, those not given missing."""
    return {name: values.get(name) for name in fusion.modalities}


def tick(fusion, demand=None, now_ns=10 * SECOND_NS, **values):
    """One tick at 10 s."""
    limits = dict.fromkeys(fusion.modalities, LIMITS)
    return fusion.tick(readings_of(fusion, **values), limits, demand or Demand(), now_ns)


IMAGE = Reading(Stamped(np.eye(48, dtype=np.uint8) * 250, 9_500_000_000))
SEVEN = Reading(Stamped('7', 9_800_000_000))


def test_fusion_takes_the_stamp_of_the_newest_value(fusion):
    fused = tick(fusion, image=IMAGE, symbol=SEVEN)
    assert fused.stamp_ns == 9_800_000_000
    assert set(fused.observed) == {'image', 'symbol'}
    assert fused.result is not None
    assert fused.result.mean.shape == (8,)


def test_fusion_gives_nothing_from_thin_air(fusion):
    fused = tick(fusion)
    assert fused.result is None
    assert fused.stamp_ns == 10 * SECOND_NS
    assert all(v.state is State.WAITING for v in fused.verdicts.values())


def test_fusion_generates_what_is_wanted_and_no_more(fusion):
    everything = frozenset(fusion.modalities)
    fused = tick(fusion, Demand(), symbol=SEVEN)
    assert not fused.result.reconstructions
    fused = tick(fusion, Demand(missing=everything), symbol=SEVEN)
    assert set(fused.result.reconstructions) == everything - {'symbol'}
    fused = tick(fusion, Demand(always=everything), symbol=SEVEN)
    assert set(fused.result.reconstructions) == everything
    fused = tick(fusion, Demand(missing=everything, std=frozenset({'image'})), symbol=SEVEN)
    assert set(fused.std) == {'image'}
    assert fused.std['image'].shape == (1, 28, 28)


def test_fusion_rejects_a_value_that_the_model_cannot_take(fusion):
    unknown = Reading(Stamped('seven', 9_900_000_000))
    fused = tick(fusion, image=IMAGE, symbol=unknown)
    assert fused.verdicts['symbol'].state is State.REJECTED
    assert 'unknown label' in fused.verdicts['symbol'].reason
    assert set(fused.observed) == {'image'}
    assert fused.stamp_ns == 9_500_000_000
    assert tick(fusion, image=IMAGE, symbol=SEVEN).verdicts['symbol'].state is State.OK


def test_fusion_prepares_a_value_once(fusion, monkeypatch):
    count = []
    image = fusion.modalities['image']
    original = image.to_model
    monkeypatch.setattr(image, 'to_model', lambda raw: count.append(1) or original(raw))
    reading = Reading(Stamped(np.eye(8, dtype=np.uint8) * 250, 9_900_000_000))
    first = tick(fusion, image=reading)
    second = tick(fusion, image=reading)
    assert len(count) == 1
    np.testing.assert_array_equal(first.result.mean, second.result.mean)


def test_fusion_describes_itself_as_plain_data(fusion):
    facts = fusion.describe()
    assert facts['latent_dim'] == 8
    assert [m['name'] for m in facts['modalities']] == ['image', 'trajectory', 'sound', 'symbol']
    assert facts['labels'] == list(LABELS)


# Worker


def test_worker_drops_all_but_the_newest_job():
    begun, gate, done = threading.Event(), threading.Event(), []

    def work(job):
        begun.set()
        gate.wait(5)
        done.append(job)

    worker = Worker(work, done.append)
    worker.submit(0)
    assert begun.wait(5)
    for job in range(1, 6):
        worker.submit(job)
    gate.set()
    deadline_s = time.monotonic() + 5
    while len(done) < 2 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    worker.stop()
    assert done == [0, 5]
    assert worker.replaced == 4


def test_worker_goes_on_after_an_exception():
    errors, done = [], threading.Event()

    def work(job):
        if job == 'bad':
            raise ValueError(job)
        done.set()

    worker = Worker(work, errors.append)
    worker.submit('bad')
    while not errors:
        time.sleep(0.01)
    worker.submit('good')
    assert done.wait(5)
    worker.stop()
    assert isinstance(errors[0], ValueError)


# Parameters


def all_rows():
    """Every row: the node's, and those of several models' modalities."""
    specs = small_spec().modalities + arm_spec().modalities
    return [*NODE_ROWS, *(row for spec in specs for row in modality_rows(spec))]


def test_parameters_defaults_pass_their_own_checks():
    rows = all_rows()
    assert all(row.description.endswith('.') for row in rows)
    assert [row.check(row.default) for row in rows] == [''] * len(rows)


def test_parameters_take_whole_numbers_for_floats_only():
    rate = next(row for row in NODE_ROWS if row.name == 'rate_hz')
    assert rate.check(30) == ''
    assert 'expected float' in rate.check(True)
    assert 'expected float' in rate.check('fast')
    assert 'not within' in rate.check(0.0)
    assert 'not within' in rate.check(float('nan'))
    samples = next(row for row in NODE_ROWS if row.name == 'publish.std_samples')
    assert 'expected int' in samples.check(4.5)
    assert 'expected int' in samples.check(True)
    assert 'not one of' in ParameterSpec('x', 'a', '', choices=('a', 'b')).check('c')


def test_parameters_message_types_have_codecs():
    with pytest.raises(ConfigError, match='no codec'):
        modality_rows(ModalitySpec('image', 'image', 1, message='std_msgs/msg/String'))


# Mosaic, throttle


def test_mosaic_draws_every_kind():
    modalities = [build_modality(s) for s in small_spec().modalities + arm_spec().modalities]
    columns = [
        MosaicColumn(
            m, np.full(m.shape, 0.5, np.float32), None if k % 2 else np.zeros(m.shape), 'ok'
        )
        for k, m in enumerate(modalities)
    ]
    picture = render_mosaic(columns)
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert picture.shape[1] > len(columns) * CELL
    assert picture.std() > 10


def test_throttle_lets_one_event_per_key_through():
    throttle = Throttle(60.0)
    assert throttle.ready('a')
    assert not throttle.ready('a')
    assert throttle.ready('b')
    assert Throttle(0.0).ready('a')


def test_slot_of_streamed_points_ends_a_stroke_by_time():
    pen = build_modality(small_spec().modality('trajectory'))
    codec = input_codec('trajectory', 'geometry_msgs/msg/PointStamped')
    now_ns = [0]
    slot = InputSlot(pen, codec, Hooks(lambda: now_ns[0], lambda reason, defect: None))
    readings = []
    slot.registerCallback(readings.append)
    for k in range(5):
        point = codec.message_type(header=Header())
        point.point.x = float(k)
        now_ns[0] = k * 10_000_000 + 1
        slot.add(point)
    slot.advance()
    assert readings == []
    now_ns[0] += SECOND_NS
    slot.advance()
    assert len(readings[0].value.raw.points) == 5
