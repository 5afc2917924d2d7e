"""The same recording through the dataset's transforms and through the node's input path."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed')

from mm_perception.fusion.health import Limits
from mm_perception.fusion.streams import Stream
from mm_perception.lab.digits.mhd import FRAME, mhd_modalities
from mm_perception.lab.digits.pen import render_stroke
from mm_perception.lab.digits.recordings import Recording, load_recordings
from mm_perception.resources import share_directory
from mm_perception.ros.codecs import audio_message, image_message, input_codec, trajectory_message

SAMPLES = share_directory() / 'models' / 'mhd' / 'recordings'
CHUNK = 240
MODALITIES = mhd_modalities()


@pytest.fixture(scope='module', params=range(0, 240, 40))
def recording(request: pytest.FixtureRequest) -> Recording:
    return load_recordings(SAMPLES)[request.param]


def live(name: str, messages: list[object]) -> np.ndarray:
    """Feed messages to the stream that the node uses, let time pass, and transform."""
    modality = MODALITIES[name]
    codec, stream = input_codec(modality.spec.kind), Stream(modality)
    for message in messages:
        raw, stamp_ns = codec.decode(message, 0, modality)
        assert not stream.take(raw, stamp_ns, 0, Limits(future_s=60.0)).refused
    stream.advance(int(1e12))
    value = stream.snapshot().value
    assert value is not None
    return modality.to_model(value.raw)


def test_image(recording: Recording) -> None:
    modality = MODALITIES['image']
    built = modality.to_model(render_stroke(recording.stroke.points, *FRAME))
    seen = live('image', [image_message(render_stroke(recording.stroke.points), 1)])
    # The dataset is rendered at half the size, and the pen is evened in whole pixels.
    assert np.abs(seen - built).mean() < 0.03
    assert np.corrcoef(seen.ravel(), built.ravel())[0, 1] > 0.95


def test_trajectory(recording: Recording) -> None:
    built = MODALITIES['trajectory'].to_model(recording.stroke)
    drawn = live('trajectory', [trajectory_message(recording.stroke, 1)])
    np.testing.assert_allclose(drawn, built, atol=1e-4)


def test_sound(recording: Recording) -> None:
    speech = recording.speech
    noise = np.random.default_rng(0).normal(0, 1e-4, 40 * CHUNK).astype(np.float32)
    samples = np.concatenate((noise, speech.samples, noise))
    messages = [
        audio_message(samples[k : k + CHUNK], speech.rate_hz, int(k / speech.rate_hz * 1e9))
        for k in range(0, len(samples), CHUNK)
    ]
    built = MODALITIES['sound'].to_model(speech)
    heard = live('sound', messages)
    # The stream is cut into frames of 20 ms at another place than the recording.
    assert np.abs(heard - built).mean() < 0.07
