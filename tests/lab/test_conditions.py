"""Strange conditions change what they say, by as much, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from mm_perception.lab.digits.conditions import CONDITIONS, Condition, levels
from mm_perception.lab.digits.pen import render_stroke
from mm_perception.modalities import Motion, Waveform

POINTS = np.array([[0, 1], [1, 1], [0.3, 0], [0.2, 0.4]], np.float32)
RATE_HZ = 8000


def raw(modality: str) -> np.ndarray | Waveform | Motion:
    if modality == 'image':
        return render_stroke(POINTS)
    if modality == 'trajectory':
        return Motion(POINTS, np.arange(4, dtype=np.float32))
    time_s = np.arange(RATE_HZ) / RATE_HZ
    tone = 0.5 * np.sin(2 * np.pi * 440 * time_s) * (time_s > 0.5)
    return Waveform(tone.astype(np.float32), RATE_HZ)


def content(value: np.ndarray | Waveform | Motion) -> np.ndarray:
    if isinstance(value, Waveform):
        return value.samples
    return value.points if isinstance(value, Motion) else value


def named(modality: str, name: str) -> Condition:
    return next(c for c in CONDITIONS if (c.modality, c.name) == (modality, name))


@pytest.mark.parametrize(('condition', 'level'), levels(), ids=lambda v: getattr(v, 'name', v))
def test_condition_changes_data_reproducibly_and_keeps_their_type(
    condition: Condition, level: float
) -> None:
    before = raw(condition.modality)
    once, again = (content(condition.apply(before, level, 3)) for _ in range(2))
    assert np.array_equal(once, again)
    assert once.shape == content(before).shape
    assert once.dtype == content(before).dtype
    assert not np.array_equal(once, content(before))
    assert np.array_equal(content(before), content(raw(condition.modality)))  # left as it was


def ink(image: np.ndarray) -> np.ndarray:
    return np.argwhere(image[:, :, 1] < 128)


def test_off_centre_moves_by_a_share_of_the_height() -> None:
    moved = named('image', 'off_centre').apply(raw('image'), 0.1, 1)
    step = ink(moved).mean(axis=0) - ink(content(raw('image'))).mean(axis=0)
    assert np.hypot(*step) == pytest.approx(48, abs=1)


@pytest.mark.parametrize('factor', [0.3, 0.6, 1.5, 2.0])
def test_pen_width_scales_the_line(factor: float) -> None:
    line = render_stroke(np.array([[0, 0], [1, 1]], np.float32))
    thick = named('image', 'pen_width').apply(line, factor, 0)
    # The middle row crosses the diagonal once.
    before, after = (np.count_nonzero(each[240, :, 1] < 128) for each in (line, thick))
    assert after / before == pytest.approx(factor, abs=0.08)


@pytest.mark.parametrize('name', ['white_noise_db', 'pink_noise_db', 'hum_db'])
def test_noise_has_its_ratio_to_the_speech(name: str) -> None:
    before = content(raw('sound'))
    noise = content(named('sound', name).apply(raw('sound'), 20.0, 0)) - before
    speech = np.sqrt(np.mean(before[before != 0] ** 2))
    assert 20 * np.log10(speech / noise.std()) == pytest.approx(20, abs=0.5)


def test_desk_shows_at_one_side_only() -> None:
    square = named('image', 'desk_edge').apply(raw('image'), 0.08, 2)[:, 80:560, 1]
    sides = (square[5], square[-5], square[:, 5], square[:, -5])
    assert sum(side.mean() < 200 for side in sides) == 1
