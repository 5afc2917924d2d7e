"""A sliding window over sound: equal to the whole computation, however the stream is cut."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly

from mm_perception.errors import InvalidInput
from mm_perception.modalities import Waveform, build_modality
from mm_perception.modalities.dsp import MelSpectrum, StreamResampler, mel_filters, resample
from mm_perception.spec import ModalitySpec

CHUNKS = st.lists(st.integers(1, 3000), min_size=8, max_size=40)


def sliding(**options: object):
    return build_modality(
        ModalitySpec('motor', 'sound', 4, preprocessing={'window': 'sliding', **options})
    )


def hum(count: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0.0, 0.1, count)
    return (noise + 0.3 * np.sin(np.arange(count) * 0.2)).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(
    CHUNKS, st.sampled_from((8000, 16000, 44100)), st.integers(0, 7), st.sampled_from((0.0, 120.0))
)
def test_sliding_window_equals_the_whole_computation(chunks, rate_hz, every, edge_hz) -> None:
    modality, reference = (sliding(frames=16, high_pass_hz=edge_hz) for _ in range(2))
    window = modality.new_window()
    samples = hum(sum(chunks))
    at_8000 = resample(samples, rate_hz, 8000)
    begin = 0
    for k, size in enumerate(chunks):
        window.push(Waveform(samples[begin : begin + size], rate_hz), begin * 10**9 // rate_hz)
        begin += size
        value = window.latest
        # Not every value is looked at, as at a rate lower than that of the chunks.
        if value is None or k % (every + 1):
            continue
        piece = value.raw
        end = piece.start + len(piece.samples)
        np.testing.assert_array_equal(piece.samples, at_8000[piece.start : end])
        whole = reference.to_model(Waveform(piece.samples, piece.rate_hz))
        np.testing.assert_allclose(modality.to_model(piece), whole, atol=1e-6)
        assert value.stamp_ns == pytest.approx(end / 8000 * 1e9, abs=1e5)
        assert begin / rate_hz - end / 8000 < 250 / 8000 + 0.003


def test_sliding_window_begins_anew_after_a_gap_and_at_another_rate() -> None:
    window = sliding(frames=8).new_window()
    for stamp_ns, rate_hz in ((0, 8000), (10**10, 8000), (2 * 10**10, 16000), (10**9, 16000)):
        window.push(Waveform(hum(1999), rate_hz), stamp_ns)
        stale = window.latest
        assert stale is None or stale.stamp_ns < stamp_ns
        window.push(Waveform(hum(300, 1), rate_hz), stamp_ns + 1999 * 10**9 // rate_hz)
        window.push(Waveform(hum(2500, 1), rate_hz), stamp_ns + 2299 * 10**9 // rate_hz)
        assert window.latest is not None and window.latest.stamp_ns > stamp_ns


def test_mel_of_another_stream_is_not_mistaken_for_a_known_one() -> None:
    modality = sliding(frames=16)
    first, second = hum(4000), hum(4000, 1)
    modality.to_model(Waveform(first, 8000, object(), 0))
    other = modality.to_model(Waveform(second, 8000, object(), 250))
    np.testing.assert_array_equal(other, sliding(frames=16).to_model(Waveform(second, 8000)))


def test_mel_of_a_slid_window_is_much_cheaper_than_the_whole() -> None:
    samples = hum(32_000)
    filters = mel_filters(128, 1024, 8000)

    def seconds(stream: object) -> float:
        spectrum = MelSpectrum(filters, 512, 1024, 250)
        durations = []
        for start in range(0, 24_000, 250):
            begin_s = time.process_time()
            spectrum.power(samples[start : start + 8000], stream, start)
            durations.append(time.process_time() - begin_s)
        return float(np.median(durations))

    assert seconds(object()) < 0.7 * seconds(None)


@pytest.mark.parametrize(
    ('rate_hz', 'target_hz'), [(44100, 8000), (48000, 8000), (8000, 44100), (11025, 8000)]
)
def test_resampling_is_that_of_scipy(rate_hz: int, target_hz: int) -> None:
    divisor = np.gcd(rate_hz, target_hz)
    for count in (1, 2, 77, 20_000):
        samples = hum(count)
        expected = resample_poly(samples, target_hz // divisor, rate_hz // divisor)
        np.testing.assert_allclose(resample(samples, rate_hz, target_hz), expected, atol=2e-5)


@settings(max_examples=25, deadline=None)
@given(CHUNKS, st.sampled_from(((44100, 8000), (8000, 11025), (16000, 8000))))
def test_resampling_of_a_stream_does_not_depend_on_how_it_is_cut(chunks, rates) -> None:
    samples = hum(sum(chunks))
    stream = StreamResampler(*rates)
    pieces = np.split(samples, np.cumsum(chunks)[:-1])
    joined = np.concatenate([stream.push(piece) for piece in pieces])
    whole = resample(samples, *rates)
    assert len(whole) - 1500 <= len(joined) <= len(whole)
    np.testing.assert_array_equal(joined, whole[: len(joined)])


@pytest.mark.parametrize('rate_hz', [0, -8000, 10**8])
def test_resampling_refuses_a_rate_that_cannot_be(rate_hz: int) -> None:
    with pytest.raises(InvalidInput, match='sample rate'):
        resample(hum(100), rate_hz, 8000)
