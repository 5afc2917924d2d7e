"""Windows in the world: words in noise and close together, digits of several strokes."""

from __future__ import annotations

import numpy as np
import pytest

from mm_perception.errors import ConfigError
from mm_perception.modalities import Modality, Motion, Waveform, build_modality
from mm_perception.modalities.base import Stamped, Window
from mm_perception.spec import ModalitySpec

RATE_HZ = 8000
SOUND = build_modality(ModalitySpec('sound', 'sound', 4))
PEN = build_modality(ModalitySpec('pen', 'trajectory', 4))
SECOND = 1_000_000_000


def word(seconds: float = 0.4, peak: float = 0.3) -> np.ndarray:
    """A rising tone that swells and fades, as a syllable does."""
    t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return peak * np.sin(2 * np.pi * (300 + 400 * t) * t) * np.sin(np.pi * t / seconds) ** 0.5


def track(seconds: float, words: dict[float, np.ndarray], noise: np.ndarray | float) -> np.ndarray:
    """Words at times (s) over noise: its samples or its rms."""
    rng = np.random.default_rng(0)
    samples = noise * rng.standard_normal(int(seconds * RATE_HZ))
    for start_s, each in words.items():
        start = int(start_s * RATE_HZ)
        samples[start : start + len(each)] += each
    return samples.astype(np.float32)


def utterances(samples: np.ndarray, window: Window | None = None) -> list[Stamped]:
    """All values of a stream in chunks of 0.04 s."""
    window = window or SOUND.new_window()
    found: list[Stamped] = []
    for start in range(0, len(samples), 320):
        stamp_ns = int(start / RATE_HZ * SECOND)
        window.push(Waveform(samples[start : start + 320], RATE_HZ), stamp_ns)
        if window.latest is not None and (not found or window.latest is not found[-1]):
            found.append(window.latest)
    return found


def ends_s(values: list[Stamped]) -> list[float]:
    return [value.stamp_ns / SECOND for value in values]


@pytest.mark.parametrize('offset', range(0, 160, 40))
def test_two_words_0_2_s_apart_are_two(offset: int):
    first_s = 0.5 + offset / RATE_HZ
    samples = track(2.5, {first_s: word(), first_s + 0.6: word()}, 2e-4)
    assert ends_s(utterances(samples)) == pytest.approx([first_s + 0.4, first_s + 1.0], abs=0.05)


def test_words_are_heard_again_after_noise_sets_in():
    """White noise of -46 dBFS sets in after 5 s of silence and stays."""
    words = {float(at): word() for at in (1, 3, 12, 14, 16)}
    level = np.where(np.arange(18 * RATE_HZ) < 5 * RATE_HZ, 2e-4, 0.005)
    found = utterances(track(18.0, words, level))
    late = [value for value in found if value.stamp_ns > 11 * SECOND]
    assert ends_s(late) == pytest.approx([12.4, 14.4, 16.4], abs=0.06)
    clean = SOUND.to_model(Waveform(word().astype(np.float32), RATE_HZ))
    for value in late:
        array = SOUND.to_model(value.raw)
        assert np.corrcoef(array.ravel(), clean.ravel())[0, 1] > 0.6
    # What sets in is once taken for a word; it is not heard again and again.
    assert len([v for v in found if 5 * SECOND < v.stamp_ns < 11 * SECOND]) <= 1


def test_words_are_heard_in_noise_that_was_always_there():
    words = {float(at): word() for at in range(3, 12, 2)}
    found = utterances(track(13.0, words, 0.02))
    assert ends_s(found) == pytest.approx([at + 0.4 for at in words], abs=0.08)


def test_quiet_words_are_heard_again_after_noise_ends():
    level = np.where(np.arange(14 * RATE_HZ) < 6 * RATE_HZ, 0.05, 2e-4)
    found = utterances(track(14.0, {9.0: word(peak=0.03), 11.0: word(peak=0.03)}, level))
    late = [value for value in found if value.stamp_ns > 8 * SECOND]
    assert ends_s(late) == pytest.approx([9.4, 11.4], abs=0.06)


def test_an_offset_of_the_microphone_is_no_noise():
    words = {1.0: word(peak=0.1), 3.0: word(peak=0.1)}
    window = SOUND.new_window()
    found = utterances(track(5.0, words, 2e-4) + np.float32(0.2), window)
    assert ends_s(found) == pytest.approx([1.4, 3.4], abs=0.06)
    assert window.pending[0] == ''


def test_words_are_heard_beside_a_hum_as_loud_as_they_are():
    mains = 0.15 * np.sin(2 * np.pi * 50 * np.arange(9 * RATE_HZ) / RATE_HZ)
    words = {1.0: word(), 3.0: word(), 6.0: word()}
    samples = track(9.0, words, 2e-4) + mains.astype(np.float32)
    assert ends_s(utterances(samples)) == pytest.approx([1.4, 3.4, 6.4], abs=0.06)


def test_words_in_noise_of_a_third_of_their_level_are_heard_with_their_beginning():
    words = {float(at): word() for at in range(4, 12, 2)}
    level = np.sqrt(np.mean(word() ** 2)) * 10 ** (-10 / 20)
    found = utterances(track(13.0, words, level))
    assert len(found) == len(words)
    for value, at in zip(found, words, strict=True):
        begin_s = value.stamp_ns / SECOND - value.raw.seconds + 0.2  # with the pause after it
        assert at - 0.2 < begin_s < at + 0.1


def test_offset_and_hum_do_not_change_the_array_with_a_high_pass():
    options = {'high_pass_hz': 100.0}
    sound = build_modality(ModalitySpec('sound', 'sound', 4, preprocessing=options))
    clean = np.pad(word(), 800).astype(np.float32)
    mains = 0.2 * np.sin(2 * np.pi * 50 * np.arange(len(clean)) / RATE_HZ + 1.0)
    dirty = Waveform((clean + mains + 0.1).astype(np.float32), RATE_HZ)
    usual = sound.to_model(Waveform(clean, RATE_HZ))
    apart = np.abs(sound.to_model(dirty) - usual).mean()
    assert apart < 0.02 < np.abs(SOUND.to_model(dirty) - usual).mean()


@pytest.mark.parametrize('edge_hz', [-1.0, 4000.0, float('nan')])
def test_high_pass_out_of_range_is_one_line(edge_hz: float):
    with pytest.raises(ConfigError, match=r'high_pass_hz is .*; give 0 to below half the rate_hz'):
        build_modality(ModalitySpec('a', 'sound', 4, preprocessing={'high_pass_hz': edge_hz}))


def test_noise_that_hides_speech_is_said_with_its_level():
    window = SOUND.new_window()
    utterances(track(5.0, {}, 2e-4), window)
    assert window.pending == ('', 'no utterance in it: speech counts from -54 dBFS on')
    utterances(track(10.0, {}, 0.1)[5 * RATE_HZ :], window)
    fault, reason = window.pending
    assert fault == 'noisy'
    assert 'background is at -20 dBFS' in reason and 'from -12 dBFS on' in reason


# Strokes


def stroke(*corners: tuple[float, float], points: int = 30) -> np.ndarray:
    """Points along corners."""
    ends = np.array(corners)
    steps = np.linspace(0, len(ends) - 1, points)
    columns = [np.interp(steps, np.arange(len(ends)), column) for column in ends.T]
    return np.stack(columns, axis=1).astype(np.float32)


ANGLE = stroke((0.4, 1.0), (0.0, 0.4), (1.0, 0.4))
BAR = stroke((0.7, 1.0), (0.7, 0.0))


def write(window: Window, strokes: list[np.ndarray], gap_s: float) -> int:
    """Send strokes point by point at 100 Hz, a gap between them; when the last one ended (ns)."""
    now_ns = SECOND
    for each in strokes:
        for point in each:
            window.push(Motion(point[None], np.zeros(1, np.float32)), now_ns)
            now_ns += 10_000_000
            window.advance(now_ns)
        last_ns = now_ns - 10_000_000
        end_ns = last_ns + int(gap_s * SECOND)
        while now_ns < end_ns:
            window.advance(now_ns)
            now_ns += 10_000_000
        now_ns = end_ns
    return last_ns


def pen(**options: float) -> Modality:
    return build_modality(ModalitySpec('pen', 'trajectory', 4, options))


@pytest.mark.parametrize('gap_s', [0.1, 0.2, 0.4])
def test_digit_of_two_strokes_is_one_value(gap_s: float):
    window = PEN.new_window()
    end_ns = write(window, [ANGLE, BAR], gap_s)
    window.advance(end_ns + int(0.2 * SECOND))
    assert window.latest is not None
    assert window.latest.stamp_ns == end_ns
    points = window.latest.raw.points  # type: ignore[attr-defined]
    np.testing.assert_array_equal(points, np.concatenate((ANGLE, BAR)))
    whole = Motion(np.concatenate((ANGLE, BAR)), np.zeros(60, np.float32))
    np.testing.assert_array_equal(
        PEN.to_model(window.latest.raw),  # type: ignore[arg-type]
        PEN.to_model(whole),
    )
    assert window.pending == ('', '')


def test_digits_far_apart_are_two_values():
    window = PEN.new_window()
    write(window, [ANGLE, BAR], 0.7)
    assert window.latest is not None
    np.testing.assert_array_equal(window.latest.raw.points, BAR)  # type: ignore[attr-defined]
    never = pen(merge_s=0.0).new_window()
    write(never, [ANGLE, BAR], 0.2)
    assert never.latest is not None
    np.testing.assert_array_equal(never.latest.raw.points, BAR)  # type: ignore[attr-defined]


def test_pen_that_never_pauses_or_always_does_is_said():
    window = PEN.new_window()
    write(window, [stroke((0, 0), (1, 1), points=500)], 0.0)
    assert 'gone on for 4.99 s without a pause of 0.15 s (pause_s)' in window.pending[1]
    slow = PEN.new_window()
    write(slow, [point[None] for point in ANGLE[:5]], 0.6)
    assert slow.latest is None
    assert 'more than 0.15 s apart (pause_s)' in slow.pending[1]
