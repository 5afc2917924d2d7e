"""Parts of the node that need no middleware: worker, parameters, mosaic, throttle."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from mm_perception.errors import ConfigError
from mm_perception.fusion.health import Limits, State, Verdict
from mm_perception.fusion.results import Fused
from mm_perception.fusion.session import Inference
from mm_perception.modalities import build_modality
from mm_perception.ros.cmi.diagnostics import status_message
from mm_perception.ros.cmi.inputs import (
    Throttle,
)
from mm_perception.ros.cmi.mosaic import CELL, HEAD, MARGIN, MosaicColumn, render_mosaic
from mm_perception.ros.cmi.parameters import NODE_SPECS, modality_specs
from mm_perception.ros.cmi.worker import COMPLETE, NOTHING, WAIT, Stamps, Worker
from mm_perception.ros.parameters import ParameterSpec
from mm_perception.spec import ModalitySpec
from tests.helpers.model_specs import arm_spec
from tests.helpers.small_bundle import LABELS, small_spec

SECOND_NS = 1_000_000_000
SYMBOL = build_modality(ModalitySpec('symbol', 'symbol', 4, {'labels': LABELS}))
LIMITS = Limits(enabled=True, max_age_s=1.0, hold=False, future_s=0.5)


# Worker


def until(condition):
    deadline_s = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.005)
    assert condition()


def test_worker_drops_all_requests_but_one():
    begun, gate, done = threading.Event(), threading.Event(), []

    def work(worker):
        begun.set()
        gate.wait(5)
        done.append(worker)

    worker = Worker(work, done.append, None)
    worker.ask()
    assert begun.wait(5)
    for _ in range(5):
        worker.ask()
    gate.set()
    until(lambda: len(done) == 2)
    assert worker.stop(5.0)
    assert len(done) == worker.finished == 2
    assert worker.dropped == 4


def test_worker_goes_on_after_an_exception():
    errors, done = [], threading.Event()

    def work(worker):
        if not errors:
            raise ValueError('bad')
        done.set()

    worker = Worker(work, errors.append, None)
    worker.ask()
    until(lambda: errors)
    assert worker.finished == 0
    worker.ask()
    assert done.wait(5)
    assert worker.stop(5.0)
    assert isinstance(errors[0], ValueError)


def test_worker_keeps_its_beat_and_counts_what_it_missed():
    began_s = []

    def work(worker):
        began_s.append(time.monotonic())
        if len(began_s) == 3:
            time.sleep(0.25)

    worker = Worker(work, print, 0.05)
    until(lambda: len(began_s) == 8)
    assert worker.stop(5.0)
    beats = np.diff(began_s) / 0.05
    assert worker.dropped >= 4, 'of the slow one'
    assert 0.5 < np.median(beats) < 1.5


def test_worker_that_hangs_is_abandoned():
    gate = threading.Event()
    worker = Worker(lambda worker: gate.wait(5), print, 0.01)
    time.sleep(0.05)
    assert not worker.stop(0.05) and worker.abandoned
    gate.set()


def test_worker_is_due_when_it_expects_something():
    done = []
    worker = Worker(lambda worker: done.append(time.monotonic()), done.append, None)
    begin_s = time.monotonic()
    worker.expect(0.05)
    until(lambda: done)
    assert done[0] - begin_s >= 0.05
    time.sleep(0.1)
    assert worker.stop(5.0)
    assert len(done) == 1, 'once'


# Stamps


def stamps_at(step_s, steps, names, stamps=None):
    """Let a tick close every stamp that is complete; how often they were, and what was waited."""
    stamps = stamps or Stamps(('image', 'sound', 'joints'))
    answers = []
    for k in steps:
        for name in names:
            answers.append(stamps.take(name, SECOND_NS + round(k * step_s * 1e9)))
            if answers[-1] == COMPLETE:
                stamps.close()
        if stamps.waiting:
            stamps.close()  # overdue
    return stamps, answers


def test_stamps_are_complete_once_per_step():
    _, answers = stamps_at(0.05, range(10), ('image', 'sound', 'joints'))
    assert answers == [WAIT, NOTHING, COMPLETE] * 10


def test_stamps_wait_for_a_lost_sensor_once_and_again_when_it_is_back():
    stamps, _ = stamps_at(0.05, range(5), ('image', 'sound', 'joints'))
    _, answers = stamps_at(0.05, range(5, 8), ('sound', 'joints'), stamps)
    assert answers == [WAIT, NOTHING] + [WAIT, COMPLETE] * 2
    _, answers = stamps_at(0.05, range(8, 10), ('image', 'sound', 'joints'), stamps)
    assert answers == [WAIT, NOTHING, COMPLETE] * 2


def test_stamps_do_not_tick_again_for_what_comes_late():
    stamps, _ = stamps_at(0.05, range(5), ('image', 'sound', 'joints'))
    _, answers = stamps_at(0.05, range(5, 6), ('image', 'sound'), stamps)
    assert answers == [WAIT, NOTHING]
    assert stamps.take('joints', SECOND_NS + 250_000_000) == NOTHING
    assert not stamps.waiting


def test_stamps_expect_a_slow_sensor_only_when_it_is_due():
    stamps, answers = Stamps(('fast', 'slow')), []
    for k in range(12):
        names = ('fast', 'slow') if k % 4 == 0 else ('fast',)
        for name in names:
            answers.append((k, name, stamps.take(name, SECOND_NS + k * 10_000_000)))
            if answers[-1][2] == COMPLETE:
                stamps.close()
        if stamps.waiting:
            stamps.close()
    later = [(k, answer) for k, name, answer in answers if k > 4]
    waits = [k for k, answer in later if answer == WAIT]
    assert waits == [8], 'only where the slow one is due'
    assert [k for k, answer in later if answer == COMPLETE] == [5, 6, 7, 8, 9, 10, 11]


def test_stamps_take_a_pause_for_no_period():
    stamps, _ = stamps_at(0.05, range(5), ('image', 'sound', 'joints'))
    _, answers = stamps_at(0.05, range(100, 103), ('image', 'sound', 'joints'), stamps)
    assert answers == [WAIT, NOTHING, COMPLETE] * 3


def test_stamps_go_on_after_a_clock_that_starts_again():
    stamps, _ = stamps_at(0.05, range(100, 105), ('image', 'sound', 'joints'))
    _, answers = stamps_at(0.05, range(5), ('image', 'sound', 'joints'), stamps)
    assert answers[-6:] == [WAIT, NOTHING, COMPLETE] * 2
    assert answers.count(COMPLETE) >= 4


# Parameters


def all_rows():
    """Every row: the node's, and those of several models' modalities."""
    specs = small_spec().modalities + arm_spec().modalities
    return [*NODE_SPECS, *(row for spec in specs for row in modality_specs(spec))]


def test_parameters_defaults_pass_their_own_checks():
    rows = all_rows()
    assert all(row.description.endswith('.') for row in rows)
    assert [row.check(row.default) for row in rows] == [''] * len(rows)


def test_parameters_take_whole_numbers_for_floats_only():
    rate = next(row for row in NODE_SPECS if row.name == 'rate_hz')
    assert rate.check(30) == ''
    assert 'expected float' in rate.check(True)
    assert 'expected float' in rate.check('fast')
    assert 'not within' in rate.check(0.0)
    assert 'not within' in rate.check(float('nan'))
    samples = next(row for row in NODE_SPECS if row.name == 'publish.std_samples')
    assert 'expected int' in samples.check(4.5)
    assert 'expected int' in samples.check(True)
    assert 'not one of' in ParameterSpec('x', 'a', '', choices=('a', 'b')).check('c')


def test_parameters_message_types_have_codecs():
    with pytest.raises(ConfigError, match='no codec'):
        modality_specs(ModalitySpec('image', 'image', 1, message='std_msgs/msg/String'))


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


def test_mosaic_draws_the_latent_as_bars():
    column = MosaicColumn(SYMBOL, None, None)
    bare = render_mosaic([column])
    certain, unsure = (
        render_mosaic([column], latent=(np.array([2.0, -2.0]), np.full(2, std)))
        for std in (0.1, 1.0)
    )
    assert certain.shape[1] == bare.shape[1] + CELL + MARGIN
    assert (certain[:, : bare.shape[1]] == bare).all()
    empty = render_mosaic([column], latent=(np.empty(0), np.empty(0)))
    assert empty.shape == certain.shape, 'of the same size while there is no latent'
    right = slice(bare.shape[1], None)
    mean, std = slice(HEAD, HEAD + CELL), slice(HEAD + CELL + MARGIN, None)
    assert (certain[mean, right] == unsure[mean, right]).all()
    assert certain[std, right].mean() > unsure[std, right].mean(), 'more ink for a larger std'


def test_throttle_lets_one_event_per_key_through():
    throttle = Throttle(60.0)
    assert throttle.ready('a')
    assert not throttle.ready('a')
    assert throttle.ready('b')
    assert Throttle(0.0).ready('a')


# Diagnostics


@pytest.mark.parametrize(('confidence', 'said'), [(0.875, '0.875'), (np.nan, ''), (None, '')])
def test_status_says_how_sure_the_label_is(confidence, said):
    """Of nothing that was fused, and of a bundle that cannot tell, nothing."""
    latent = np.zeros(2, np.float32), np.ones(2, np.float32)
    result = None if confidence is None else Inference(*latent, {}, np.float32(confidence))
    fused = Fused(0, {'image': Verdict(State.OK, True)}, {}, result)
    (entry,) = status_message(fused, 'latent/a@b').status
    assert {pair.key: pair.value for pair in entry.values}['confidence'] == said
