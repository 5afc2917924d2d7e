"""What fills in for a lost sensor: better than holding, the same live as on recordings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mm_perception.bundle import load_bundle, save_bundle
from mm_perception.data.dataset import load_dataset, save_dataset
from mm_perception.engines.build import build_engine, reference_engine
from mm_perception.errors import BundleError
from mm_perception.evaluation.recall import Recall
from mm_perception.fusion.displacement import Moments, State
from mm_perception.fusion.memory import PARTS, Memory, Query
from mm_perception.fusion.perception import Perception
from mm_perception.fusion.results import Demand
from mm_perception.spec import StageSpec, TrainingSpec
from mm_perception.training.memory import learn_memory, with_memory
from tests.helpers.moving_world import NAMES, ROWS, moving_spec, moving_world
from tests.helpers.small_bundle import make_bundle

BEGIN_NS = 1_000_000_000_000


@pytest.fixture(scope='module')
def remembering():
    """A bundle of random weights with the memory of 12 recordings, two held out."""
    bundle = make_bundle('moving', spec=moving_spec())
    engine = reference_engine(bundle, 'cpu')
    arrays = learn_memory(engine, bundle.spec, moving_world(12), moving_world(2, start=12))
    return replace(bundle, memory=arrays)


@pytest.fixture(scope='module')
def engine(remembering):
    return build_engine(remembering, 'cpu')


@pytest.fixture(scope='module')
def unseen():
    return moving_world(5, start=20)


def pairs(dataset, rows):
    """Rows that lie so many rows apart in a recording."""
    first = np.concatenate([r.rows[:-rows] for r in dataset.recordings()])
    return first, first + rows


def others(target):
    return tuple(name for name in NAMES if name != target)


def root_mean_square(error):
    return float(np.sqrt((error**2).mean()))


@pytest.mark.parametrize('rows', [1, 5, 10, 20])
def test_memory_is_never_worse_than_holding_and_better_where_others_tell(
    remembering, engine, unseen, rows
):
    recall = Recall(Memory(remembering.spec, remembering.memory), engine)
    lost, now = pairs(unseen, rows)
    for name in NAMES:
        there = unseen.present[lost, NAMES.index(name)]
        first, second = lost[there], now[there]
        truth, held = unseen.rows(name, second), unseen.rows(name, first)
        error = root_mean_square(recall.predict(unseen, name, others(name), first, second) - truth)
        limit = {'arm': 0.7, 'hand': 0.7, 'camera': 0.9}.get(name, 1.05)
        assert error <= limit * root_mean_square(held - truth), name


def test_memory_starts_at_the_last_value_and_its_std_grows(remembering, engine, unseen):
    recall = Recall(Memory(remembering.spec, remembering.memory), engine)
    lost, now = pairs(unseen, 1)
    held, truth = unseen.rows('arm', lost), unseen.rows('arm', now)
    value, _ = recall.fill(unseen, 'arm', others('arm'), lost, now)
    assert np.abs(value - held).mean() <= 1.5 * np.abs(truth - held).mean()
    value, std = recall.fill(unseen, 'arm', others('arm'), lost, lost)
    np.testing.assert_allclose(value, held, atol=0.01)
    spreads = [
        recall.fill(unseen, 'touch', others('touch'), lost[:-20], lost[:-20] + k)[1]
        for k in (1, 5, 20)
    ]
    assert std.mean() < spreads[0].mean() < spreads[1].mean() < spreads[2].mean()


def test_memory_has_intervals_that_hold(remembering, engine, unseen):
    recall = Recall(Memory(remembering.spec, remembering.memory), engine)
    for name in ('arm', 'touch', 'camera'):
        lost, now = pairs(unseen, 5)
        there = unseen.present[lost, NAMES.index(name)]
        query = unseen, name, others(name), lost[there], now[there]
        value, half_width = recall.interval(*query)
        off = np.abs(value - unseen.rows(name, now[there]))
        # Without noise the head is nearly exact: its error on other recordings is overestimated.
        assert 0.8 <= (off <= half_width).mean() <= 0.998, name


def test_memory_of_an_older_bundle_has_the_std_that_it_had(remembering):
    arrays = dict(remembering.memory)
    for name in NAMES:
        still, spread = arrays.pop(f'{name}.still'), arrays[f'{name}.spread']
        arrays[f'{name}.usual'] = np.full(still.shape[:2], 0.5, np.float32)
        np.testing.assert_array_equal(still.shape, spread.shape)
    old = Memory(remembering.spec, arrays)
    features = np.zeros((1, 1), np.float32)
    state = State(features, features)
    query = Query(np.zeros((1, 1), np.float32), np.array([1.0]), Moments({'touch': state}, {}))
    filled = old.fill('touch', query)
    k, s = list(old.ages_s).index(1.0), len(arrays['touch.subsets']) - 1
    moved = np.abs(filled.value)
    wanted = arrays['touch.spread'][k, s] * np.sqrt(moved**2 + 0.25)
    np.testing.assert_allclose(filled.std, wanted, rtol=1e-3)


def test_memory_says_what_only_holding_can_fill_in(remembering):
    assert Memory(remembering.spec, remembering.memory).holds == ('touch',)


def test_memory_lies_in_the_bundle_hashed(remembering, tmp_path):
    save_bundle(remembering, tmp_path / 'moving', 'card')
    loaded = load_bundle(tmp_path / 'moving')
    assert loaded.memory.keys() == remembering.memory.keys()
    for key, array in loaded.memory.items():
        np.testing.assert_array_equal(array, remembering.memory[key])
    forgetful = save_bundle(replace(remembering, memory={}), tmp_path / 'other', 'card')
    assert forgetful.hash == loaded.hash, 'a memory does not change the latent space'
    file = tmp_path / 'moving' / 'memory.safetensors'
    file.write_bytes(file.read_bytes()[:-1] + b'!')
    with pytest.raises(BundleError, match='altered'):
        load_bundle(tmp_path / 'moving')


@pytest.mark.parametrize('key', ['ages_s', 'arm.weight', 'gram.0.0', 'hand.references'])
def test_memory_that_does_not_fit_the_model_is_refused(remembering, key):
    arrays = {name: array for name, array in remembering.memory.items() if name != key}
    with pytest.raises(BundleError, match='memory: does not fit'):
        Memory(remembering.spec, arrays)


def test_memory_needs_time_and_enough_rows(engine):
    few = moving_world(1)
    assert learn_memory(engine, moving_spec(), replace(few, time_s=None)) is None
    assert learn_memory(engine, moving_spec(), few.subset(np.arange(20))) is None


def test_memory_is_given_to_bundles_whose_data_have_time(tmp_path):
    save_dataset(tmp_path, 'train', moving_world(2))
    save_dataset(tmp_path, 'validation', moving_world(1, start=2))
    bundle = make_bundle('moving', spec=moving_spec())
    spec = TrainingSpec('moving', str(tmp_path), bundle.spec, StageSpec(1))
    memory = with_memory(bundle, spec, load_dataset(tmp_path, 'train')).memory
    assert Memory(bundle.spec, memory).ages_s[0] == pytest.approx(0.1)
    timeless = replace(moving_world(2), time_s=None)
    assert not with_memory(bundle, spec, timeless).memory
    assert Perception(bundle, reference_engine(bundle, 'cpu')).memory is None


def with_all_parts(bundle):
    """Every part of the mix has a weight, what the model generates too."""
    arrays = dict(bundle.memory)
    for name in NAMES:
        weight = arrays[f'{name}.weight']
        arrays[f'{name}.weight'] = np.broadcast_to(
            np.linspace(0.05, 0.2, len(PARTS)), weight.shape
        )
    return replace(bundle, memory=arrays)


def feed(perception, dataset, rows, k, gone, back=()):
    """
    Give a stream per recording its sensors' values in one row, but for those that are gone.

    :param gone: last row of each lost sensor, per stream; ``back``: those that are there again.
    """
    stamp_ns = BEGIN_NS + int(dataset.time_s[rows[0]] * 1e9)
    for column, name in enumerate(NAMES):
        modality = perception.modalities[name]
        values: list[object] = []
        for stream, row in enumerate(rows):
            lost = k > gone[stream].get(name, ROWS) and name not in back
            there = dataset.present[row, column] and not lost
            (array,) = dataset.rows(name, np.array([row]))
            values.append(modality.from_model(array) if there else None)
        perception.update(name, values if len(values) > 1 else values[0], stamp_ns)
    return perception.infer(now_ns=stamp_ns)


def test_memory_fills_in_live_what_it_fills_in_on_recordings(remembering, engine, unseen):
    """Sensors of each recording are lost at other times, some together, one after the other."""
    bundle = with_all_parts(remembering)
    perception = Perception(bundle, engine, len(unseen.recordings()))
    recall = Recall(Memory(bundle.spec, bundle.memory), engine)
    gone = [{'arm': 20}, {'camera': 15, 'hand': 22}, {'touch': 10, 'arm': 10}, {'mode': 25}, {}]
    rows = np.stack([r.rows for r in unseen.recordings()])
    compared = 0
    for k in range(ROWS):
        result = feed(perception, unseen, rows[:, k], k, gone)
        for stream, lost in enumerate(gone):
            for name, last in lost.items():
                late = k - last
                if late * 0.1 <= 0.25 + 1e-6:
                    continue  # the last value is fresh still
                seen = [n for n in NAMES if n not in lost or k - lost[n] <= 2]
                known = [n for n in seen if unseen.present[rows[stream, k], NAMES.index(n)]]
                if any(lost.get(n, ROWS) < k for n in known):
                    continue  # one more was lost, whose last value is fresh still
                pair = rows[stream, [last]], rows[stream, [k]]
                value, std = recall.fill(unseen, name, known, *pair)
                np.testing.assert_allclose(
                    result.reconstructions[name][stream], value[0], atol=1e-5
                )
                np.testing.assert_allclose(
                    result.reconstruction_std[name][stream], std[0], rtol=1e-4
                )
                compared += 1
    assert compared > 150


def test_memory_uses_a_sensor_that_was_out_when_another_was_lost(remembering, engine, unseen):
    """The camera and the hand are out when the arm is lost, and come back."""
    rows = np.stack([r.rows for r in unseen.recordings()])
    gone = [{'camera': 8, 'hand': 8, 'arm': 12}] * len(rows)
    perception = Perception(remembering, engine, len(rows))
    errors: dict[bool, list[float]] = {True: [], False: []}
    for returning in errors:
        perception.forget()
        for k in range(ROWS):
            back = ('camera', 'hand') if returning and k > 15 else ()
            result = feed(perception, unseen, rows[:, k], k, gone, back)
            if k > 24:
                off = result.reconstructions['arm'] - unseen.rows('arm', rows[:, k])
                errors[returning].append(root_mean_square(off))
    assert np.mean(errors[True]) <= 0.7 * np.mean(errors[False])
    held = unseen.rows('arm', rows[:, 12])
    moved = [root_mean_square(held - unseen.rows('arm', rows[:, k])) for k in range(25, ROWS)]
    assert np.mean(errors[True]) <= 0.7 * np.mean(moved)


def test_memory_can_be_switched_off_and_forgets(remembering, engine, unseen):
    rows = unseen.recordings()[0].rows
    perception = Perception(with_all_parts(remembering), engine)
    for k in range(12):
        feed(perception, unseen, rows[k : k + 1], k, [{'arm': 5}])
    stamp_ns = BEGIN_NS + int(unseen.time_s[rows[11]] * 1e9)
    filled = perception.infer(now_ns=stamp_ns)
    assert set(filled.reconstruction_std) == {'arm'}
    alone = perception.infer(now_ns=stamp_ns, memory=False)
    assert not alone.reconstruction_std
    assert np.abs(filled.reconstructions['arm'] - alone.reconstructions['arm']).max() > 0.01
    perception.forget()
    again = perception.infer(now_ns=stamp_ns)
    np.testing.assert_array_equal(again.reconstructions['arm'], alone.reconstructions['arm'])


def test_memory_gives_the_node_the_std_of_what_it_fills_in(remembering, engine, unseen):
    rows = unseen.recordings()[0].rows
    perception = Perception(remembering, engine)
    for k in range(12):
        result = feed(perception, unseen, rows[k : k + 1], k, [{'hand': 5}])
    readings = [{n: s.snapshot() for n, s in each.items()} for each in perception.streams]
    demand = Demand(missing=frozenset(NAMES), std=frozenset({'hand'}))
    stamp_ns = BEGIN_NS + int(unseen.time_s[rows[11]] * 1e9)
    (fused,) = perception.tick(readings, perception.limits, demand, stamp_ns)
    assert fused.result is not None
    np.testing.assert_array_equal(
        fused.result.reconstructions['hand'], result.reconstructions['hand']
    )
    np.testing.assert_array_equal(fused.std['hand'], result.reconstruction_std['hand'])
