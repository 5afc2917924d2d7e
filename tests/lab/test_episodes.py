"""Recorded episodes on disk, and as sensors."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mm_perception.errors import ConfigError, DataError
from mm_perception.lab.replay.episodes import (
    LIST_FILE,
    Channel,
    Episodes,
    holds_episodes,
    load_episodes,
    save_episodes,
)
from tests.helpers.made_up_episodes import CHANNELS, make_episode, make_episodes

pytest.importorskip('rclpy', reason='rclpy is not installed')

from mm_perception.lab.replay.episode_sensors import episode_sensors
from mm_perception.lab.replay.playlist import FAULTS, Playlist

START_NS = 5_000_000_000


def read(name, message):
    """What a message holds, as the recording has it, and its time (ns); 0 for no stamp."""
    header = getattr(message, 'header', None)
    stamp_ns = header.stamp.sec * 10**9 + header.stamp.nanosec if header else 0
    if name == 'camera':
        kind = np.float32 if message.encoding == '32FC1' else np.uint8
        flat = np.frombuffer(message.data, kind)
        return flat.reshape(message.height, message.width, -1).astype(float), stamp_ns
    if name == 'joints':
        assert message.name == ['a', 'b']
        return np.array(message.position), stamp_ns
    if name == 'force':
        parts = (message.wrench.force, message.wrench.torque)
        return np.array([getattr(part, axis) for part in parts for axis in 'xyz']), stamp_ns
    return np.array(message.data), stamp_ns


def test_episodes_are_read_as_they_were_written(tmp_path):
    written = make_episodes()
    save_episodes(tmp_path, written)
    assert holds_episodes(tmp_path) and not holds_episodes(tmp_path / 'no')
    read = load_episodes(tmp_path)
    assert read.channels == written.channels
    for before, after in zip(written.episodes, read.episodes, strict=True):
        assert (before.label, before.seconds) == (after.label, after.seconds)
        for name, track in before.tracks.items():
            np.testing.assert_array_equal(track.times_s, after.tracks[name].times_s)
            np.testing.assert_array_equal(track.values, after.tracks[name].values)


def test_track_gives_the_newest_value():
    joints = make_episode('a').tracks['joints']
    assert [joints.at(t)[0] for t in (-1.0, 0.0, 0.99, 1.0, 99.0)] == pytest.approx(
        [0.0, 0.0, 0.95, 1.0, 3.95]
    )


def cut(path):
    (path / 'a.safetensors').write_bytes((path / 'a.safetensors').read_bytes()[:100])


def blacken(path):
    file = path / 'a.safetensors'
    arrays = load_file(file)
    arrays['camera.png'][:] = 0
    save_file(arrays, file)


def empty(path):
    file = path / 'a.safetensors'
    arrays = load_file(file)
    arrays['camera.sizes'][0] = 0
    save_file(arrays, file)


def relist(path, change):
    listed = json.loads((path / LIST_FILE).read_text())
    change(listed)
    (path / LIST_FILE).write_text(json.dumps(listed))


@pytest.mark.parametrize(
    ('harm', 'says'),
    [
        (lambda path: (path / LIST_FILE).unlink(), 'episodes.json: cannot be read'),
        (lambda path: (path / LIST_FILE).write_text('{'), 'do not fit together'),
        (lambda path: (path / LIST_FILE).write_text('[]'), 'do not fit together'),
        (lambda path: (path / 'a.safetensors').unlink(), 'a.safetensors'),
        (cut, 'do not fit together'),
        (blacken, 'a frame is no PNG'),
        (empty, 'do not fit together'),
        (lambda path: relist(path, lambda d: d.update(format=9)), 'format 9 is unknown'),
        (lambda path: relist(path, lambda d: d.update(episodes=[])), 'holds no recordings'),
        (lambda path: relist(path, lambda d: d['channels']['force'].pop('topic')), 'topic'),
    ],
)
def test_broken_episodes_are_one_line(tmp_path, harm, says):
    save_episodes(tmp_path, make_episodes('a'))
    harm(tmp_path)
    with pytest.raises(DataError, match=says) as caught:
        load_episodes(tmp_path)
    assert '\n' not in str(caught.value)


@pytest.fixture
def shown():
    return Playlist(make_episodes('a').episodes, 1.0, 0, START_NS).shown


def test_episode_is_on_show_for_as_long_as_it_lasts(shown):
    assert shown.duration_s == 4.0


@pytest.mark.parametrize('name', CHANNELS)
def test_sensor_sends_what_was_recorded_when_it_was(shown, name):
    sensor = next(s for s in episode_sensors(make_episodes()) if s.name == name)
    track, sent = shown.recording.tracks[name], []
    for step in range(0, 4000, 5):
        sent += sensor.due(shown, START_NS + step * 1_000_000, None)
    assert len(sent) == len(track.values)
    for k, message in enumerate(sent):
        raw, stamp_ns = read(name, message)
        # A camera has noise in its lowest bit.
        np.testing.assert_allclose(raw, track.values[k], atol=1.0 if name == 'camera' else 1e-6)
        if stamp_ns:
            assert stamp_ns == START_NS + round(track.times_s[k] * 1e9)


def test_sensor_that_is_late_sends_only_the_newest(shown):
    joints = next(s for s in episode_sensors(make_episodes()) if s.name == 'joints')
    messages = joints.due(shown, START_NS + 1_020_000_000, None)
    assert [read('joints', m)[1] for m in messages] == [START_NS + 1_000_000_000]
    assert not joints.due(shown, START_NS + 1_020_000_000, None)


def test_no_two_frames_of_a_camera_are_equal(shown):
    camera = next(s for s in episode_sensors(make_episodes()) if s.name == 'camera')
    frames = [camera.message(camera.raw(shown, 3), 0).data for _ in range(5)]
    assert len({bytes(frame) for frame in frames}) == 5


@pytest.mark.parametrize('fault', FAULTS)
@pytest.mark.parametrize('name', CHANNELS)
def test_sensor_of_an_episode_breaks(shown, name, fault):
    sensor = next(s for s in episode_sensors(make_episodes()) if s.name == name)
    healthy = sensor.due(shown, START_NS + 1_000_000_000, None)[0]
    broken = sensor.due(shown, START_NS + 2_000_000_000, fault)
    if fault == 'silent':
        assert broken == []
        return
    before, after = (read(name, m)[0] for m in (healthy, broken[0]))
    if fault == 'frozen':
        np.testing.assert_array_equal(before, after)
    elif fault == 'black':
        assert not after.any()
    elif fault == 'nan':
        assert np.isnan(after).all()
    else:
        truth = shown.recording.tracks[name].at(2.0)
        assert np.isfinite(after).all() and np.abs(after - truth).max() > 0.1


@pytest.mark.parametrize(
    ('channel', 'error', 'says'),
    [
        (Channel('imu', 'vector', 'sensor_msgs/msg/Imu'), DataError, 'cannot replay sensor_msgs'),
        (Channel('x', 'image', 'std_msgs/msg/String'), ConfigError, 'no codec'),
    ],
)
def test_messages_that_cannot_be_built_are_one_line(channel, error, says):
    with pytest.raises(error, match=says):
        episode_sensors(Episodes({'x': channel}, []))
