"""From messages to verdicts and output, tick by tick, with exact times and no middleware."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.helpers.small_bundle import make_bundle

pytest.importorskip('rclpy', reason='rclpy is not installed')

from geometry_msgs.msg import PointStamped
from std_msgs.msg import String

from mm_perception.bundle import load_bundle
from mm_perception.engines.build import build_engine
from mm_perception.errors import InvalidInput
from mm_perception.fusion.consistency import Judgement
from mm_perception.fusion.health import HOLD, PRIOR, TOLERABLE, Checks, Limits, State
from mm_perception.fusion.perception import Perception
from mm_perception.fusion.results import NONE, OBSERVED, Demand, Fused
from mm_perception.modalities import Motion, build_modality
from mm_perception.modalities.base import Thresholds
from mm_perception.ros.codecs import audio_message, image_message, input_codec, trajectory_message

MS = 1_000_000
RATE_HZ = 8000
ALL = frozenset({'image', 'trajectory', 'sound', 'symbol'})
LIMITS = Limits(enabled=True, max_age_s=1.0, hold=False, future_s=0.5)
ENGINE = build_engine(make_bundle(), 'cpu')


class Bench:
    """A perception, codecs that feed its streams, and a clock that is set by hand (ms)."""

    def __init__(self, **messages: str) -> None:
        self.perception = Perception(make_bundle(), ENGINE)
        self.streams = self.perception.streams[0]
        self.now_ms = 100_000.0
        self.checks = Checks()
        self.limits = dict.fromkeys(self.perception.names, LIMITS)
        self.jumps_s: list[float] = []
        self.codecs = {
            name: input_codec(m.spec.kind, messages.get(name, ''))
            for name, m in self.perception.modalities.items()
        }
        self._rng = np.random.default_rng(0)

    @property
    def now_ns(self) -> int:
        """Time of the clock."""
        return int(self.now_ms * MS)

    def tick(self, demand: Demand | None = None) -> Fused:
        """Fuse what the streams say now."""
        for stream in self.streams.values():
            stream.advance(self.now_ns)
        readings = {name: stream.snapshot() for name, stream in self.streams.items()}
        (fused,) = self.perception.tick(
            [readings], self.limits, demand or Demand(), self.now_ns, self.checks
        )
        return fused

    def send(self, name: str, message: Any) -> None:
        """Deliver a message now."""
        stream, codec, now_ns = self.streams[name], self.codecs[name], self.now_ns
        try:
            raw, stamp_ns = codec.decode(message, now_ns, stream.modality)
        except InvalidInput as error:
            taken = stream.refuse(error, now_ns)
        else:
            taken = stream.take(raw, stamp_ns, now_ns, LIMITS)
        if taken.jump_s:
            self.jumps_s.append(taken.jump_s)

    def picture(self, noise: int = 1) -> np.ndarray:
        """A bar, as a camera sees it."""
        pixels = np.full((48, 64), 200, np.uint8)
        pixels[10:40, 30:34] = 20
        return pixels + self._rng.integers(0, 1 + noise, pixels.shape, np.uint8)

    def image(self, pixels: np.ndarray | None = None, ahead_s: float = 0.0) -> Any:
        """A message of the camera, stamped now."""
        stamp_ns = self.now_ns + int(ahead_s * 1e9)
        return image_message(self.picture() if pixels is None else pixels, stamp_ns)

    def chunk(self, samples: np.ndarray) -> Any:
        """A message of the microphone, whose last sample is of now."""
        return audio_message(samples, RATE_HZ, self.now_ns - int(len(samples) / RATE_HZ * 1e9))

    def hiss(self) -> np.ndarray:
        """40 ms of faint noise."""
        return 1e-4 * self._rng.standard_normal(320).astype(np.float32)

    def stroke(self) -> Any:
        """A message of a whole stroke, stamped now."""
        points = np.linspace(0, 1, 12, dtype=np.float32).reshape(6, 2)
        return trajectory_message(Motion(points, np.arange(6, dtype=np.float32)), self.now_ns)


@pytest.fixture
def bench() -> Bench:
    """A bench whose sensors have sent nothing."""
    return Bench()


def state(fused: Fused, name: str) -> tuple[State, str]:
    """State and fault of a modality."""
    return fused.verdicts[name].state, fused.verdicts[name].fault


# Faults of a value


def speech(level: float) -> np.ndarray:
    """0.4 s of a tone, then silence with noise; cut off at full scale."""
    tone = level * np.sin(np.arange(3200) * 0.4)
    rest = 1e-4 * np.random.default_rng(1).standard_normal(2400)
    return np.clip(np.concatenate((tone, rest)), -1.0, 1.0).astype(np.float32)


DEPTH = np.linspace(0.2, 0.8, 48 * 64, dtype=np.float32).reshape(48, 64)
HOLED = np.where(np.arange(64) % 8 < 5, np.nan, DEPTH)


@pytest.mark.parametrize(
    ('name', 'broken', 'healthy', 'fault'),
    [
        ('image', lambda b: b.image(np.zeros((48, 64), np.uint8)), Bench.image, 'black'),
        ('image', lambda b: b.image(b.picture() // 100), Bench.image, 'black'),
        (
            'image',
            lambda b: b.image(np.full((48, 64, 3), 255, np.uint8)),
            Bench.image,
            'saturated',
        ),
        ('image', lambda b: b.image(HOLED), Bench.image, 'holes'),
        ('image', lambda b: b.image(np.full((48, 64), np.nan, np.float32)), Bench.image, 'holes'),
        ('image', lambda b: b.image(ahead_s=0.6), Bench.image, 'future'),
        ('sound', lambda b: b.chunk(speech(30.0)), lambda b: b.chunk(speech(0.5)), 'clipped'),
        ('symbol', lambda b: String(data='elephant'), lambda b: String(data='3'), 'malformed'),
        (
            'trajectory',
            lambda b: trajectory_message(
                Motion(np.ones((5, 2), np.float32), np.arange(5, dtype=np.float32)), b.now_ns
            ),
            Bench.stroke,
            'still',
        ),
    ],
)
def test_assessment_rejects_a_faulty_value_fault(
    bench: Bench, name: str, broken: Callable, healthy: Callable, fault: str
) -> None:
    for message in (healthy, broken, healthy):
        bench.now_ms += 900 if name == 'sound' else 100
        bench.send(name, message(bench))
        fused = bench.tick()
        if message is broken:
            assert state(fused, name) == (State.REJECTED, fault)
            assert name not in fused.observed
            assert fused.verdicts[name].reason
        else:
            assert state(fused, name) == (State.OK, ''), fused.verdicts[name]
            assert name in fused.observed


def test_assessment_uses_a_depth_image_with_few_holes(bench: Bench) -> None:
    holed = np.where(np.arange(64) % 8 < 2, np.inf, DEPTH).astype(np.float32)
    bench.send('image', bench.image(holed))
    fused = bench.tick()
    assert state(fused, 'image') == (State.OK, '')
    assert np.isfinite(fused.observed['image']).all()


def test_assessment_tolerates_what_it_is_told_to(bench: Bench) -> None:
    bench.checks = Checks(tolerate=frozenset({'black'}))
    bench.send('image', bench.image(np.zeros((48, 64), np.uint8)))
    fused = bench.tick()
    assert state(fused, 'image') == (State.OK, 'black')
    assert fused.verdicts['image'].used
    assert 'black' in fused.verdicts['image'].reason
    assert set(fused.observed) == {'image'}


def test_assessment_takes_new_thresholds_at_once(bench: Bench) -> None:
    bench.send('image', bench.image())
    assert state(bench.tick(), 'image') == (State.OK, '')
    bench.checks = Checks(thresholds=Thresholds(min_contrast=1.0, usual_std=9.0))
    assert state(bench.tick(), 'image')[0] is State.REJECTED
    bench.checks = Checks()
    assert state(bench.tick(), 'image') == (State.OK, '')


# Faults over time


def test_assessment_finds_a_frozen_camera_within_a_second_fault(bench: Bench) -> None:
    frozen = bench.picture()
    begin_ms = bench.now_ms
    found_ms = None
    for k in range(60):
        bench.now_ms = begin_ms + 33 * k
        bench.send('image', bench.image(frozen))
        bench.send('sound', bench.chunk(bench.hiss()))
        if k % 3 == 0 and state(bench.tick(), 'image') == (State.REJECTED, 'frozen'):
            found_ms = found_ms or bench.now_ms - begin_ms
    assert found_ms is not None
    assert 700 <= found_ms <= 850
    bench.send('image', bench.image())
    assert state(bench.tick(), 'image') == (State.OK, '')


def test_assessment_waits_for_a_frozen_camera_as_long_as_its_own_limit_says(bench: Bench) -> None:
    bench.limits['image'] = replace(LIMITS, frozen_s=1.5)
    frozen = bench.picture()
    for k in range(20):
        bench.now_ms += 100
        bench.send('image', bench.image(frozen))
        bench.send('sound', bench.chunk(bench.hiss()))
        expected = (State.OK, '') if k < 15 else (State.REJECTED, 'frozen')
        assert state(bench.tick(), 'image') == expected


def test_assessment_calls_a_black_camera_black_for_ever(bench: Bench) -> None:
    for _ in range(60):
        bench.now_ms += 33
        bench.send('image', bench.image(np.zeros((48, 64), np.uint8)))
        bench.send('sound', bench.chunk(bench.hiss()))
        assert state(bench.tick(), 'image') == (State.REJECTED, 'black')


def test_assessment_leaves_a_camera_alone_while_nothing_else_changes(bench: Bench) -> None:
    frozen = bench.picture()
    for _ in range(30):
        bench.now_ms += 100
        bench.send('image', bench.image(frozen))
        bench.send('symbol', String(data='3'))
        bench.send('trajectory', bench.stroke())
        assert state(bench.tick(), 'image') == (State.OK, '')


def test_assessment_finds_a_dead_microphone_within_a_second_fault(bench: Bench) -> None:
    zeros = np.zeros(320, np.float32)
    for k in range(21):
        bench.now_ms += 40
        bench.send('sound', bench.chunk(zeros))
        expected = 'silent' if k * 40 >= 700 else ''
        assert state(bench.tick(), 'sound')[1] == expected, k
    bench.send('sound', bench.chunk(bench.hiss()))
    assert state(bench.tick(), 'sound')[0] is State.WAITING


def test_assessment_finds_a_pen_that_rests_fault() -> None:
    bench = Bench(trajectory='geometry_msgs/msg/PointStamped')

    def point(x: float) -> PointStamped:
        message = PointStamped()
        message.header.stamp.sec, rest = divmod(bench.now_ns, 1_000_000_000)
        message.header.stamp.nanosec = rest
        message.point.x = x
        return message

    for k in range(100):
        bench.now_ms += 10
        bench.send('trajectory', point(min(k, 10)))
    assert state(bench.tick(), 'trajectory') == (State.REJECTED, 'still')
    bench.now_ms += 10
    bench.send('trajectory', point(11.0))
    assert state(bench.tick(), 'trajectory')[0] is State.WAITING


def test_assessment_forgets_when_stamps_run_backwards_and_says_so_once(bench: Bench) -> None:
    bench.send('image', bench.image())
    bench.tick()
    for ahead_s in (-20.0, -19.9, -19.8):
        bench.now_ms += 100
        bench.send('image', bench.image(ahead_s=ahead_s))
        assert state(bench.tick(), 'image') == (State.STALE, 'backwards')
    assert bench.jumps_s == pytest.approx([19.9])
    bench.now_ms += 100
    bench.send('image', bench.image())
    assert state(bench.tick(), 'image') == (State.OK, '')


def test_assessment_stamps_by_receipt_if_the_sender_does_not(bench: Bench) -> None:
    bench.send('image', image_message(bench.picture(), 0))
    assert state(bench.tick(), 'image') == (State.OK, '')
    bench.now_ms += 1001
    fused = bench.tick()
    assert state(fused, 'image') == (State.STALE, ''), 'the publisher died'
    assert fused.verdicts['image'].age_s == pytest.approx(1.001)


def test_assessment_holds_out_a_sensor_that_flaps_fault(bench: Bench) -> None:
    states = []
    for k in range(80):
        bench.now_ms += 100
        good = k % 4 < 2 or k >= 40
        bench.send('image', bench.image(None if good else np.zeros((48, 64), np.uint8)))
        states.append(state(bench.tick(), 'image'))
    assert (State.REJECTED, 'flapping') in states[:40]
    after = states[40:]
    back = after.index((State.OK, ''))
    assert set(after[:back]) == {(State.REJECTED, 'flapping')}
    assert 18 <= back <= 21, 'well for 2 s'
    assert set(after[back:]) == {(State.OK, '')}


# Agreement


def agree(bench: Bench, monkeypatch: pytest.MonkeyPatch, judgement: Judgement) -> None:
    """Have the modalities compared with this outcome."""
    monkeypatch.setattr(bench.perception._session, 'judge', lambda present: [judgement])


LYING = Judgement({'image': 4.0, 'symbol': 0.2, 'trajectory': 0.1}, 'image')
FINE = Judgement({'image': 0.3, 'symbol': 0.2, 'trajectory': 0.1})
SPLIT = Judgement({'image': 4.0, 'symbol': 3.0}, disagree=True)


def three(bench: Bench) -> Fused:
    """A tick 100 ms later with three sensors."""
    bench.now_ms += 100
    bench.send('image', bench.image())
    bench.send('symbol', String(data='3'))
    bench.send('trajectory', bench.stroke())
    return bench.tick()


def test_assessment_leaves_out_what_the_others_contradict_fault(bench: Bench, monkeypatch):
    agree(bench, monkeypatch, LYING)
    states = [three(bench).verdicts['image'] for _ in range(8)]
    assert [v.state for v in states] == [State.OK] * 5 + [State.INCONSISTENT] * 3
    assert not states[-1].used
    assert states[-1].surprise == 4.0
    assert 'contradicts symbol, trajectory' in states[-1].reason or (
        'contradicts trajectory, symbol' in states[-1].reason
    )
    fused = three(bench)
    assert set(fused.observed) == {'symbol', 'trajectory'}
    assert not fused.disagree
    agree(bench, monkeypatch, FINE)
    assert three(bench).verdicts['image'].state is State.OK, 'believed again at once'


def test_assessment_flags_but_keeps_it_if_told_to(bench: Bench, monkeypatch):
    agree(bench, monkeypatch, LYING)
    bench.checks = Checks(exclude_inconsistent=False, inconsistent_s=0.0)
    fused = three(bench)
    assert fused.verdicts['image'].state is State.INCONSISTENT
    assert fused.verdicts['image'].used
    assert 'image' in fused.observed
    bench.checks = replace(bench.checks, agreement=False)
    verdict = three(bench).verdicts['image']
    assert (verdict.state, verdict.surprise) == (State.OK, None)


def test_assessment_blames_neither_of_two(bench: Bench, monkeypatch):
    agree(bench, monkeypatch, SPLIT)
    for k in range(8):
        bench.now_ms += 100
        bench.send('image', bench.image())
        bench.send('symbol', String(data='3'))
        fused = bench.tick()
        assert fused.disagree == (k >= 5)
        assert set(fused.observed) == {'image', 'symbol'}
        assert fused.verdicts['image'].state is State.OK


def test_assessment_without_calibration_compares_nothing(bench: Bench):
    fused = three(bench)
    assert {verdict.surprise for verdict in fused.verdicts.values()} == {None}


# Nothing observed


def test_nothing_observed_gives_nothing_by_default(bench: Bench) -> None:
    three(bench)
    bench.now_ms += 60_000
    fused = bench.tick(Demand(missing=ALL))
    assert (fused.result, fused.source, fused.stamp_ns) == (None, NONE, bench.now_ns)


def test_nothing_observed_holds_the_last_latent_with_its_stamp(bench: Bench) -> None:
    demand = Demand(missing=ALL, std=ALL, fallback=HOLD)
    assert bench.tick(demand).result is None, 'nothing to hold yet'
    before = three(bench)
    assert before.source == OBSERVED
    bench.now_ms += 60_000
    fused = bench.tick(demand)
    assert (fused.source, fused.stamp_ns) == (HOLD, before.stamp_ns)
    np.testing.assert_array_equal(fused.result.mean, before.result.mean)
    np.testing.assert_array_equal(fused.result.std, before.result.std)
    assert set(fused.result.reconstructions) == set(fused.std) == ALL
    assert fused.observed == {}
    bench.perception.forget()
    assert bench.tick(demand).result is None


def test_nothing_observed_gives_the_prior_if_asked(bench: Bench) -> None:
    fused = bench.tick(Demand(missing=ALL, fallback=PRIOR))
    assert (fused.source, fused.stamp_ns) == (PRIOR, bench.now_ns)
    np.testing.assert_array_equal(fused.result.mean, np.zeros(8))
    np.testing.assert_array_equal(fused.result.std, np.ones(8))
    assert set(fused.result.reconstructions) == ALL
    assert three(bench).source == OBSERVED


def test_nothing_is_held_over_a_clock_that_ran_backwards(bench: Bench) -> None:
    three(bench)
    bench.now_ms -= 50_000
    for stream in bench.streams.values():
        stream.clear()
    assert bench.tick(Demand(fallback=HOLD)).result is None


# The real model


def test_latent_is_less_certain_the_fewer_sensors_there_are() -> None:
    bundle = load_bundle('mhd')
    perception = Perception(bundle, build_engine(bundle, 'cpu'))
    session = perception._session
    from mm_perception.lab.digits.pen import render_stroke
    from mm_perception.lab.digits.recordings import load_recordings

    spread: dict[int, list[float]] = {count: [] for count in range(1, 5)}
    for recording in load_recordings(bundle.path / 'recordings')[::24]:
        raw = {
            'image': render_stroke(recording.stroke.points),
            'trajectory': recording.stroke,
            'sound': recording.speech,
            'symbol': recording.label,
        }
        for name, value in raw.items():
            session.update(name, perception.modalities[name].to_model(value))
        names = list(raw)
        for code in range(1, 16):
            present = [name for k, name in enumerate(names) if code >> k & 1]
            spread[len(present)].append(float(session.infer(present, ()).std.mean()))
    means = [float(np.mean(spread[count])) for count in range(1, 5)]
    assert means == sorted(means, reverse=True)
    assert means[0] > 1.05 * means[3]


def test_tolerable_faults_are_those_of_the_data() -> None:
    assert {'malformed', 'future', 'backwards', 'flapping'}.isdisjoint(TOLERABLE)


# Another configuration of the same modalities


def test_stream_keeps_what_it_gathered_when_the_same_model_is_loaded_again() -> None:
    bench = Bench(trajectory='geometry_msgs/msg/PointStamped')
    message = PointStamped()
    for k in range(20):
        if k == 10:
            loaded = Perception(make_bundle(), ENGINE)
            loaded.adopt(bench.perception)
            assert bench.streams is loaded.streams[0]
        bench.now_ms += 10
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(bench.now_ns, 10**9)
        message.point.x = float(k)
        bench.send('trajectory', message)
    bench.now_ms += 500
    bench.streams['trajectory'].advance(bench.now_ns)
    value = bench.streams['trajectory'].snapshot().value
    assert value is not None
    assert len(value.raw.points) == 20  # type: ignore[attr-defined]


def test_stream_keeps_its_value_when_the_options_change(bench: Bench) -> None:
    bench.send('image', bench.image())
    stream = bench.streams['image']
    value = stream.snapshot().value
    spec = replace(stream.modality.spec, preprocessing={'invert': False})
    stream.adopt(build_modality(spec))
    stream.advance(bench.now_ns)
    assert stream.snapshot().value is value
