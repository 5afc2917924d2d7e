"""The node that captures sound, through an ALSA device that is a file of recorded speech."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from sensor_msgs.msg import Image, PointCloud2

from mm_perception.errors import UNUSABLE, MissingDependency
from mm_perception.lab.digits.recordings import load_recordings, real_recordings
from mm_perception.modalities import build_modality
from mm_perception.resources import share_directory
from mm_perception.ros.codecs import read_table
from mm_perception.ros.codecs.base import load_messages
from mm_perception.ros.microphone_node import SampleClock, load_sounddevice
from mm_perception.ros.qos import input_qos, latched_qos

DATA = Path(os.environ.get('MM_PERCEPTION_DATA', Path(__file__).parents[3] / 'shared' / 'data'))
SAMPLES = share_directory() / 'models' / 'mhd' / 'recordings'
PAUSE_S = 0.7
ALSA = '</usr/share/alsa/alsa.conf>'


@pytest.fixture(scope='module')
def speech():
    """One recorded utterance: FSDD where it is, else a generated voice."""
    if (DATA / 'fsdd').is_dir():
        return real_recordings(DATA, per_label=1)[6].speech
    if SAMPLES.is_dir():
        return load_recordings(SAMPLES)[-1].speech
    pytest.skip('neither ../shared/data nor the recordings of models/mhd are here')


@pytest.fixture
def microphone(speech, tmp_path, monkeypatch):
    """A sound device ``filemic`` that hears the speech, a pause, the speech, and so on."""
    try:
        load_sounddevice()
    except MissingDependency as error:
        pytest.skip(str(error))
    if not Path(ALSA[1:-1]).is_file():
        pytest.skip('ALSA is not configured here (libasound2-data)')
    pause = np.zeros(round(PAUSE_S * speech.rate_hz), np.float32)
    sound = np.concatenate([pause, *([speech.samples, pause] * 40)])
    raw = tmp_path / 'speech.raw'
    (np.clip(sound, -1, 1) * 32767).astype('<i2').tofile(raw)
    configuration = tmp_path / 'asound.conf'
    configuration.write_text(
        f'{ALSA}\npcm.filemic {{ type file slave.pcm "null" file "/dev/null"'
        f' infile "{raw}" format "raw" }}\n'
    )
    monkeypatch.setenv('ALSA_CONFIG_PATH', str(configuration))
    return 'device:=filemic', f'rate_hz:={speech.rate_hz}', 'paced:=true'


def test_sample_clock_counts_samples_and_follows_the_clock():
    clock = SampleClock(16000)
    assert clock.stamp_ns(640, 1_000_000_000) == 960_000_000
    assert clock.stamp_ns(640, 1_055_000_000) == 1_000_000_000  # a late read changes nothing
    assert clock.stamp_ns(640, 1_075_000_000) == 1_040_000_000
    assert clock.stamp_ns(640, 3_000_000_000, lost=True) == 2_960_000_000  # after a gap


def test_sample_clock_after_a_stall_neither_jumps_nor_runs_backwards():
    clock = SampleClock(16000)
    first = clock.stamp_ns(640, 1_000_000_000)
    stalled = [clock.stamp_ns(640, 1_400_000_000 + 1_000_000 * read) for read in range(10)]
    assert stalled == [first + 40_000_000 * (read + 1) for read in range(10)]


def test_sample_clock_follows_a_lag_that_stays():
    clock = SampleClock(16000)
    clock.stamp_ns(640, 1_000_000_000)
    stamps = [clock.stamp_ns(640, 3_000_000_000 + 40_000_000 * read) for read in range(30)]
    assert stamps[0] == 1_000_000_000
    assert stamps[-1] == 3_000_000_000 + 40_000_000 * 28
    assert (np.diff(stamps) > 0).all()


def test_sample_clock_follows_a_clock_that_is_set_back():
    clock = SampleClock(16000)
    clock.stamp_ns(640, 5_000_000_000)
    assert clock.stamp_ns(640, 1_000_000_000) == 960_000_000


def test_microphone_publishes_what_the_device_hears(start, robot, microphone, speech):
    chunks = []
    robot.node.create_subscription(PointCloud2, 'audio', lambda m: chunks.append(m), input_qos(50))
    node = start(*microphone, 'frame_id:=head', module='microphone_node')
    needed = round((2 * PAUSE_S + speech.seconds) / 0.04) + 2
    robot.until(lambda: len(chunks) >= needed, 'chunks of sound', 30)
    heard_s = robot.now_ns() * 1e-9
    assert 'recording from "filemic"' in node.log
    tables = [read_table(chunk) for chunk in chunks]
    times = np.concatenate([
        c.header.stamp.sec + c.header.stamp.nanosec * 1e-9 + np.float64(t['t'])
        for c, t in zip(chunks, tables)
    ])  # fmt: skip
    np.testing.assert_allclose(np.diff(times), 1 / speech.rate_hz, atol=2e-5)
    assert chunks[0].header.frame_id == 'head'
    heard = np.concatenate([table['ch0'] for table in tables])
    loudest = np.argmax(np.abs(speech.samples))
    match = np.correlate(heard, speech.samples[max(loudest - 400, 0) : loudest + 400], 'valid')
    energy = np.sum(speech.samples[max(loudest - 400, 0) : loudest + 400] ** 2)
    assert match.max() == pytest.approx(energy, rel=0.01)
    assert -0.1 < heard_s - times[-1] < 1.0


def test_microphone_reaches_the_latent(start, robot, microphone, speech, bundle):
    filled, latents = [], []
    robot.node.create_subscription(Image, 'filled/sound', lambda m: filled.append(m), 10)
    robot.node.create_subscription(PointCloud2, 'latent', lambda m: latents.append(m), 10)
    start(f'bundle:={bundle.path}', 'autostart:=true')
    start(*microphone, module='microphone_node')
    expected = build_modality(bundle.spec.modality('sound')).to_model(speech).ravel()

    def understood():
        """Whether the word arrived whole; the first one may be cut by discovery."""
        mels = (np.frombuffer(message.data, np.float32) for message in filled)
        return any(np.corrcoef(mel, expected)[0, 1] > 0.9 for mel in mels)

    robot.until(lambda: latents and understood(), 'the spoken word', 60)
    assert np.isfinite(read_table(latents[-1])['mean']).all()


def test_microphone_publishes_messages_of_audio_common_too(start, robot, microphone, speech):
    messages = pytest.importorskip('audio_common_msgs.msg', reason='audio_common_msgs is absent')
    stamped, plain, infos = [], [], []
    robot.subscribe(messages.AudioDataStamped, 'audio_stamped', stamped.append)
    robot.subscribe(PointCloud2, 'audio', plain.append)
    robot.subscribe(messages.AudioInfo, 'audio_info', infos.append, latched_qos())
    start(*microphone, 'audio_common:=true', module='microphone_node')

    def same():
        samples = {m.header.stamp.nanosec: read_table(m)['ch0'] for m in list(plain)}
        both = [m for m in list(stamped) if np.any(samples.get(m.header.stamp.nanosec, 0))]
        return [
            (np.frombuffer(m.audio.data, '<i2'), samples[m.header.stamp.nanosec]) for m in both
        ]

    robot.until(lambda: infos and same(), 'sound in both forms', 30)
    for integers, floats in same():
        np.testing.assert_allclose(integers / 32768, floats, atol=1e-6)
    info = infos[0]
    assert (info.channels, info.sample_rate, info.sample_format) == (1, speech.rate_hz, 'S16LE')
    assert (info.bitrate, info.coding_format) == (16 * speech.rate_hz, 'wave')


@pytest.mark.parametrize(
    ('there', 'says'), [(None, 'needs audio_common_msgs'), (ModuleType('msg'), 'another package')]
)
def test_microphone_without_audio_common_says_what_to_install(monkeypatch, there, says):
    monkeypatch.setitem(sys.modules, 'audio_common_msgs.msg', there)
    with pytest.raises(MissingDependency, match=says):
        load_messages('audio_common_msgs', 'AudioDataStamped', 'audio_common')


def test_info_lists_the_devices_that_record(microphone, tmp_path):
    file = tmp_path / 'devices.json'
    command = ('-m', 'mm_perception.cli.main', 'info', '--devices', '--json', str(file))
    shown = subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True)
    device = next(each for each in json.loads(file.read_text()) if each['name'] == 'filemic')
    assert device['channels'] > 0 and device['block'] == round(0.04 * device['rate_hz'])
    assert f'filemic: {device["channels"]} channels' in shown.stdout


@pytest.mark.parametrize(
    ('parameters', 'says'),
    [
        (('device:=nosuch',), 'from device "nosuch"'),
        (("device:='77'",), 'from device "77"'),
        (('device:=filemic', 'channels:=0'), 'Parameter channels out of range'),
    ],
)
def test_microphone_refuses_in_one_line(start, microphone, parameters, says):
    node = start(*parameters, module='microphone_node')
    assert node.process.wait(30) == UNUSABLE
    assert says in node.log
    assert 'Traceback' not in node.log
    if 'from device' in says:
        assert '0 "filemic"' in node.log


@pytest.mark.parametrize(
    ('failure', 'says'),
    [
        (OSError('PortAudio library not found'), 'apt-get install libportaudio2'),
        (ModuleNotFoundError('sounddevice'), 'pip install sounddevice'),
    ],
)
def test_microphone_names_what_is_missing(monkeypatch, failure, says):
    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == 'sounddevice':
                raise failure

    monkeypatch.delitem(sys.modules, 'sounddevice', raising=False)
    monkeypatch.setattr(sys, 'meta_path', [Finder(), *sys.meta_path])
    with pytest.raises(MissingDependency, match=says):
        load_sounddevice()
