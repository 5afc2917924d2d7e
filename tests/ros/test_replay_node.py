"""The node that plays recordings as live sensors."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from mm_perception.errors import UNUSABLE, ConfigError
from mm_perception.lab.digits.pen import render_stroke
from mm_perception.lab.digits.recordings import save_recordings
from mm_perception.lab.replay.node import ROWS
from mm_perception.lab.replay.playlist import (
    FAULTS,
    Playlist,
    active_faults,
    parse_schedule,
    phase_name,
)
from mm_perception.lab.replay.sensors import Camera, Microphone, make_sensors, sound_track
from mm_perception.ros.codecs import read_table
from mm_perception.ros.qos import input_qos
from tests.helpers.spoken_digits import RATE_HZ, SPEECH_S, make_recordings

SENSORS = ('image', 'sound', 'trajectory', 'symbol')
TOPICS = {'image': Image, 'audio': PointCloud2, 'trajectory': JointTrajectory, 'symbol': String}


@pytest.fixture
def shown():
    return Playlist(make_recordings(), 1.0, 0, start_ns=5_000_000_000).shown


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('recordings')
    save_recordings(path, make_recordings())
    return path


def samples_of(message):
    return read_table(message)['ch0']


# --- schedule


def test_schedule_gives_faults_by_time():
    text = json.dumps([
        {'sensor': 'image', 'start_s': 1, 'duration_s': 2, 'phase': 'dark'},
        {'sensors': ['sound', 'symbol'], 'start_s': 2, 'duration_s': 2, 'fault': 'noise'},
    ])  # fmt: skip
    schedule = parse_schedule(text, SENSORS)
    assert active_faults(schedule, 0.9) == {}
    assert active_faults(schedule, 1.0) == {'image': 'silent'}
    assert active_faults(schedule, 2.5) == {
        'image': 'silent', 'sound': 'noise', 'symbol': 'noise',
    }  # fmt: skip
    assert active_faults(schedule, 3.0) == {'sound': 'noise', 'symbol': 'noise'}
    assert [phase_name(schedule, t) for t in (0.5, 1.5, 3.5)] == ['', 'dark', '']
    assert parse_schedule(' ', SENSORS) == ()


@pytest.mark.parametrize(
    ('text', 'says'),
    [
        ('[{', 'not JSON'),
        ('{}', 'expected a list'),
        ('[3]', r'schedule\[0\]: expected an object'),
        ('[{"sensor": "sonar", "start_s": 0, "duration_s": 1}]', 'not one of image'),
        ('[{"sensor": "image", "start_s": -1, "duration_s": 1}]', 'start_s: expected seconds'),
        ('[{"sensor": "image", "start_s": 0}]', 'duration_s: expected seconds'),
        ('[{"sensor": "image", "start_s": 0, "duration_s": 1, "fault": "fire"}]', 'silent, froz'),
        ('[{"sensor": "image", "start_s": 0, "duration_s": 1, "how": "x"}]', 'how: unknown'),
        ('[{"sensors": 3, "start_s": 0, "duration_s": 1}]', 'expected a list of names'),
    ],
)
def test_schedule_says_what_is_wrong(text, says):
    with pytest.raises(ConfigError, match=says) as caught:
        parse_schedule(text, SENSORS)
    assert '\n' not in str(caught.value)


# --- playlist


def test_playlist_is_balanced_and_repeatable():
    first, second = (Playlist(make_recordings(), 1.0, 7, 0) for _ in range(2))
    labels, sources = [], []
    for k in range(20):
        assert first.shown.recording.source == second.shown.recording.source
        assert first.shown.recording.label == second.shown.recording.label
        labels.append(first.shown.recording.label)
        sources.append((labels[-1], first.shown.recording.source))
        both = [list(playlist.until(playlist.shown.end_ns)) for playlist in (first, second)]
        assert [[shown.index for shown in each] for each in both] == [[k, k + 1]] * 2
    assert sorted(labels[:10]) == sorted(labels[10:]) == list('0123456789')
    assert len(set(sources)) == 20


def test_playlist_waits_for_long_speech():
    recording = make_recordings('1', 1)[0]
    assert Playlist([recording], 0.2, 0, 0).shown.duration_s == pytest.approx(0.9)
    assert Playlist([recording], 2.0, 0, 0).shown.duration_s == pytest.approx(2.0)


def test_sound_track_repeats_the_speech():
    recording = make_recordings('1', 1)[0]
    track = sound_track(Playlist([recording], 2.0, 0, 0).shown)
    assert len(track) == 2 * RATE_HZ
    assert np.abs(track).sum() == pytest.approx(2 * np.abs(recording.speech.samples).sum(), 1e-3)


# --- sensors


def test_sensors_send_frames_at_their_rate(shown):
    camera = Camera(1 / 30, 0)
    stamps = []
    for step in range(1000):
        for message in camera.due(shown, shown.start_ns + step * 1_000_000, None):
            stamps.append(message.header.stamp.sec + message.header.stamp.nanosec * 1e-9 - 5.0)
    np.testing.assert_allclose(stamps, np.arange(30) / 30, atol=1e-6)


def test_camera_leaves_out_frames_when_late_but_microphone_does_not(shown):
    late_ns = shown.start_ns + 500_000_000
    assert len(Camera(1 / 30, 0).due(shown, late_ns, None)) == 1
    chunks = Microphone(0.04, 0).due(shown, late_ns, None)
    assert len(chunks) == 12
    assert chunks[3].header.stamp.nanosec == 120_000_000


def test_microphone_sends_every_sample_once(shown):
    microphone = Microphone(0.03, 0)
    heard = []
    for step in range(0, 1100, 7):
        for chunk in microphone.due(shown, shown.start_ns + step * 1_000_000, None):
            heard.append(samples_of(chunk))
    np.testing.assert_allclose(np.concatenate(heard), sound_track(shown), atol=2e-3)


def test_camera_sees_the_stroke(shown):
    message = Camera(1 / 30, 0).due(shown, shown.start_ns, None)[0]
    assert (message.width, message.height, message.encoding) == (640, 480, 'rgb8')
    pixels = np.frombuffer(message.data, np.uint8).reshape(480, 640, 3)
    np.testing.assert_allclose(pixels, render_stroke(shown.recording.stroke.points), atol=1)


FAULTY = {
    ('image', 'black'): lambda m, healthy: not any(m.data),
    ('image', 'nan'): lambda m, healthy: m.encoding == '32FC1' and np.isnan(_floats(m)).all(),
    ('image', 'noise'): lambda m, healthy: np.std(np.frombuffer(m.data, np.uint8)) > 60,
    ('sound', 'black'): lambda m, healthy: not samples_of(m).any(),
    ('sound', 'nan'): lambda m, healthy: np.isnan(samples_of(m)).all(),
    ('sound', 'noise'): lambda m, healthy: np.std(samples_of(m)) > 0.1,
    ('trajectory', 'black'): lambda m, healthy: not any(any(p.positions) for p in m.points),
    ('trajectory', 'nan'): lambda m, healthy: np.isnan(m.points[3].positions).all(),
    ('trajectory', 'noise'): lambda m, healthy: m.points != healthy.points,
    ('symbol', 'black'): lambda m, healthy: m.data == '',
    ('symbol', 'nan'): lambda m, healthy: m.data == 'nan',
    ('symbol', 'noise'): lambda m, healthy: m.data in set('0123456789') - {healthy.data},
}


def _floats(message):
    return np.frombuffer(message.data, np.float32)


@pytest.mark.parametrize('fault', FAULTS)
@pytest.mark.parametrize('name', SENSORS)
def test_sensor_fault(shown, name, fault):
    sensor = next(s for s in make_sensors(make_recordings()) if s.name == name)
    other = replace(shown, recording=make_recordings('7', 1)[0], index=1)
    healthy = sensor.due(shown, shown.start_ns + 50_000_000, None)[-1]
    faulty = sensor.due(other, other.start_ns + 50_000_000, fault)
    if fault == 'silent':
        assert faulty == []
        return
    assert len(faulty) == 1
    if fault == 'frozen':
        field = 'points' if name == 'trajectory' else 'data'
        assert getattr(faulty[0], field) == getattr(healthy, field)
    else:
        assert FAULTY[name, fault](faulty[0], healthy)
    recovered = sensor.due(replace(other), other.start_ns + 50_000_000, None)[-1]
    assert recovered != faulty[0]


# --- the node


class Listener:
    """Everything that the replay node publishes, with the times of receipt."""

    def __init__(self, robot):
        self.robot = robot
        self.received = {topic: [] for topic in (*TOPICS, 'replay/truth')}
        for topic, kind in {**TOPICS, 'replay/truth': String}.items():
            take = lambda message, topic=topic: self.received[topic].append(  # noqa: E731
                (time.monotonic(), message)
            )
            robot.node.create_subscription(kind, topic, take, input_qos(100))

    def listen(self, seconds):
        self.robot.until(lambda: self.received['replay/truth'], 'truth', 30)
        self.robot.run(seconds)
        return {topic: [m for _, m in entries] for topic, entries in self.received.items()}


WINDOW_S = 3.0


def recent_hz(entries):
    """Messages per second of the last seconds."""
    return sum(at_s > time.monotonic() - WINDOW_S for at_s, _ in entries) / WINDOW_S


def test_replay_node_plays_in_real_time(start, robot, folder):
    listener = Listener(robot)
    start(f'recordings:={folder}', 'seed:=3', 'wait_for_subscribers:=true', module='replay_node')
    listener.listen(WINDOW_S)
    received, expected = listener.received, pytest.approx([30, 25], rel=0.1)
    rates_hz = lambda: [recent_hz(received[topic]) for topic in ('image', 'audio')]  # noqa: E731
    robot.until(lambda: rates_hz() == expected, 'image and audio at their rates', 30.0)
    messages = listener.listen(0.0)
    # Chunks follow each other without a gap, at the recording's own rate.
    stamps = [m.header.stamp.sec + m.header.stamp.nanosec * 1e-9 for m in messages['audio']]
    lengths = [m.width / RATE_HZ for m in messages['audio']]
    np.testing.assert_allclose(np.diff(stamps), lengths[:-1], atol=1e-4)
    sound = np.concatenate([samples_of(m) for m in messages['audio']])
    assert 0.5 * SPEECH_S < np.mean(np.abs(sound) > 0.05) < 1.2 * SPEECH_S
    truths = [json.loads(m.data) for m in messages['replay/truth']]
    # The newest value's truth may be here before its symbol.
    labels = [
        {t['index']: t['label'] for t in truths}[k] for k in sorted({t['index'] for t in truths})
    ]
    assert set(labels[:-1]) <= {m.data for m in messages['symbol']} <= set(labels)
    starts = {t['index']: t['start_ns'] for t in truths}
    assert len(starts) >= 3
    assert all(abs(b - a - 1e9) < 1e6 for a, b in zip(starts.values(), [*starts.values()][1:]))
    assert truths[-1]['faults'] == {} and truths[-1]['phase'] == ''
    assert len(messages['trajectory'][0].points) == 40


def test_replay_node_follows_its_schedule_of_faults(start, robot, folder):
    schedule = [
        {'sensors': ['image', 'sound'], 'start_s': 3.0, 'duration_s': 1.0, 'phase': 'both'},
        {'sensors': ['symbol'], 'start_s': 3.0, 'duration_s': 9.0, 'fault': 'noise'},
    ]
    listener = Listener(robot)
    start(
        f'recordings:={folder}',
        f"schedule:='{json.dumps(schedule)}'",
        'wait_for_subscribers:=true',
        module='replay_node',
    )
    messages = listener.listen(5.5)
    begin_s = json.loads(messages['replay/truth'][0].data)['schedule_start_ns'] * 1e-9
    for topic in ('image', 'audio'):
        sent = [m.header.stamp.sec + m.header.stamp.nanosec * 1e-9 - begin_s
                for m in messages[topic]]  # fmt: skip
        assert not [t for t in sent if 3.1 < t < 3.8], topic
        assert [t for t in sent if t < 3] and [t for t in sent if t > 4], topic
    during = [json.loads(m.data) for m in messages['replay/truth']]
    during = [t for t in during if 3.0 < t['elapsed_s'] < 4.0]
    assert {t['phase'] for t in during} == {'both'}
    assert during[-1]['faults'] == {'image': 'silent', 'sound': 'silent', 'symbol': 'noise'}
    truths = [(t, json.loads(m.data)) for t, m in listener.received['replay/truth']]
    for t, message in listener.received['symbol']:
        truth = [truth for at, truth in truths if at <= t + 0.02][-1]
        if truth['elapsed_s'] > 3.2:
            assert message.data != truth['label']


def test_replay_node_can_wait_for_its_audience(start, robot, folder):
    truths = []
    robot.node.create_subscription(String, 'replay/truth', lambda m: truths.append(m), 10)
    node = start(f'recordings:={folder}', 'wait_for_subscribers:=true', module='replay_node')
    robot.until(lambda: 'scheduled failures' in node.log, 'replay node', 30)
    robot.run(1.0)
    assert not truths
    Listener(robot)
    robot.until(lambda: truths, 'truth')
    assert json.loads(truths[0].data)['elapsed_s'] < 0.5, 'it waited for a second at least'


@pytest.mark.parametrize(
    ('parameter', 'says'),
    [
        ('recordings:=/nowhere', '/nowhere/recordings.json: cannot be read'),
        ('bundle:=nosuch', 'no bundle "nosuch"'),
        ("schedule:='[1]'", 'schedule[0]: expected an object'),
        ('image_reliability:=often', 'image_reliability'),
    ],
)
def test_replay_node_refuses_in_one_line(start, folder, parameter, says):
    known = [f'recordings:={folder}'] if parameter.split(':')[0] in ('schedule',) else []
    node = start(parameter, *known, module='replay_node')
    assert node.process.wait(30) == UNUSABLE
    assert says in node.log
    assert 'Traceback' not in node.log


def test_replay_node_describes_every_parameter():
    assert all(row.description for row in ROWS)
