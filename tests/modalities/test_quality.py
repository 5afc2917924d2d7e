"""What each kind of modality finds wrong with data that can be read."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mm_perception.errors import InvalidInput
from mm_perception.modalities import Motion, Waveform, build_modality
from mm_perception.modalities.base import Thresholds
from mm_perception.spec import ModalitySpec

USUAL = Thresholds()
IMAGE = build_modality(ModalitySpec('image', 'image', 4))
SOUND = build_modality(ModalitySpec('sound', 'sound', 4))
VECTOR = build_modality(ModalitySpec('force', 'vector', 2, {'low': (-1, 0), 'high': (1, 10)}))
ARM = build_modality(
    ModalitySpec(
        'arm', 'trajectory', 2, {'low': (0, 0), 'high': (1, 2), 'spacing': 'time', 'points': 5}
    )
)
PEN = build_modality(ModalitySpec('pen', 'trajectory', 2))
SYMBOL = build_modality(ModalitySpec('symbol', 'symbol', 2, {'labels': ('a', 'b')}))
TIMES_S = np.arange(5, dtype=np.float32)


def fault(modality, raw, thresholds=USUAL) -> str:
    """Name of what is wrong with a value."""
    found = modality.find_fault(raw, modality.to_model(raw), thresholds)
    return found.name if found else ''


def test_quality_vector_and_trajectory_outside_of_their_range():
    assert fault(VECTOR, np.array([3.0, 5.0], np.float32)) == ''
    assert fault(VECTOR, np.array([3.1, 5.0], np.float32)) == 'out_of_range'
    assert fault(VECTOR, np.array([0.0, -10.5], np.float32)) == 'out_of_range'
    found = VECTOR.find_fault(np.array([0.0, 40.0], np.float32), np.zeros(2, np.float32), USUAL)
    assert 'element 1 lies 3 spans outside' in found.reason
    line = np.linspace(0, 1, 10, dtype=np.float32).reshape(5, 2)
    assert fault(ARM, Motion(line, TIMES_S)) == ''
    assert fault(ARM, Motion(line * 9, TIMES_S)) == 'out_of_range'
    assert fault(PEN, Motion(line * 9, TIMES_S)) == '', 'no range is configured'


@pytest.mark.parametrize(('level', 'name'), [(0, 'black'), (90, 'black'), (255, 'saturated')])
@pytest.mark.parametrize('invert', [False, True])
def test_quality_image_without_contrast(level: int, name: str, invert: bool):
    image = build_modality(ModalitySpec('image', 'image', 4, {'invert': invert}))
    flat = np.full((48, 64, 3), level, np.uint8)
    assert fault(image, flat) == name
    flat[20:30, 20:40] = 255 - level
    assert fault(image, flat) == ''


def test_quality_image_follows_the_training_data():
    faint = np.full((48, 64), 100, np.uint8)
    faint[:, 32:] = 106
    assert fault(IMAGE, faint) == 'black'
    assert fault(IMAGE, faint, Thresholds(usual_std=0.05)) == ''


def test_quality_image_holes_stay_out_of_the_mean():
    depth = np.full((56, 56), 0.5, np.float32)
    depth[:14] = np.nan
    depth[14:28:2] = np.inf
    np.testing.assert_allclose(IMAGE.to_model(depth), 0.5)
    assert fault(IMAGE, depth, Thresholds(max_invalid_fraction=0.3)) == 'holes'
    with pytest.raises(InvalidInput, match='nothing but NaN'):
        IMAGE.to_model(np.full((28, 28), np.nan, np.float32))


@pytest.mark.parametrize('share', [0.1, 0.4])
def test_quality_image_with_scattered_holes_is_the_same_picture(share):
    rng = np.random.default_rng(0)
    picture = cv2.GaussianBlur(rng.random((120, 120), np.float32), (0, 0), 12.0)
    picture = (picture - picture.min()) / np.ptp(picture)
    holed = np.where(rng.random(picture.shape) < share, np.float32(np.nan), picture)
    whole = IMAGE.to_model(picture)
    assert np.abs(IMAGE.to_model(holed) - whole).mean() < 0.02
    assert np.abs(IMAGE.to_model(np.nan_to_num(holed)) - whole).mean() > share * 0.3, 'as zeros'
    colour = build_modality(ModalitySpec('colour', 'image', 4, {'channels': 3}))
    assert colour.to_model(np.dstack([holed] * 3)).shape == (3, 28, 28)


def test_quality_full_scale_holds_for_16_bits_and_floats():
    metres = build_modality(ModalitySpec('depth', 'image', 4, {'full_scale': 4.0}))
    millimetres = build_modality(ModalitySpec('depth', 'image', 4, {'full_scale': 4000.0}))
    depth_mm = np.arange(28 * 28, dtype=np.uint16).reshape(28, 28) * 5
    expected = np.minimum(depth_mm / 4000.0, 1.0)[None]
    np.testing.assert_allclose(millimetres.to_model(depth_mm), expected, atol=1e-6)
    np.testing.assert_allclose(
        metres.to_model(depth_mm.astype(np.float32) / 1000.0), expected, atol=1e-6
    )
    assert millimetres.to_model(np.full((28, 28), 255, np.uint8)).min() == 1.0, '8 bits'


def test_quality_clipped_sound():
    tone = np.sin(np.arange(8000) * 0.4).astype(np.float32)
    assert fault(SOUND, Waveform(0.9 * tone, 8000)) == ''
    assert (
        fault(SOUND, Waveform(np.clip(1.05 * tone, -1, 1), 8000), Thresholds(max_clipped=0.5))
        == ''
    )
    assert fault(SOUND, Waveform(np.clip(4 * tone, -1, 1), 8000)) == 'clipped'


def test_quality_one_bit_of_noise_tells_frames_apart():
    pixels = np.random.default_rng(0).integers(0, 255, (480, 640, 3)).astype(np.uint8)
    other = pixels ^ np.random.default_rng(1).integers(0, 2, pixels.shape, np.uint8)
    assert IMAGE.trace(pixels) == IMAGE.trace(pixels.copy())
    assert IMAGE.trace(pixels) != IMAGE.trace(other)
    assert IMAGE.trace(pixels[..., ::-1]) != IMAGE.trace(other[..., ::-1])
    assert IMAGE.trace(pixels).fault == 'frozen'


def test_quality_only_what_has_noise_can_be_stuck():
    zeros, hiss = Waveform(np.zeros(9, np.float32), 8000), Waveform(np.ones(9, np.float32), 8000)
    assert (SOUND.trace(zeros).fault, SOUND.trace(zeros).alone) == ('silent', True)
    assert (SOUND.trace(hiss).fault, SOUND.trace(hiss).alone) == ('frozen', False)
    assert SYMBOL.trace('a').fault == VECTOR.trace(np.zeros(2, np.float32)).fault == ''
    assert SYMBOL.trace('a') != SYMBOL.trace('b')
    point, stroke = Motion(np.ones((1, 2)), TIMES_S[:1]), Motion(np.ones((5, 2)), TIMES_S)
    assert PEN.trace(point).fault == 'still'
    assert PEN.trace(stroke).fault == '', 'a stroke may be sent again'
    assert ARM.trace(point).fault == '', 'an arm may rest'
