"""One suite over every kind: raw value to model array and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mm_perception.errors import ConfigError, InvalidInput
from mm_perception.modalities import Modality, Motion, Waveform, build_modality, kinds
from mm_perception.modalities.sizes import check_sizes
from mm_perception.spec import ModalitySpec, ModelSpec
from tests.helpers.model_specs import LABELS, arm_spec, mhd_spec

RNG = np.random.default_rng(0)
CIRCLE = np.stack([f(np.linspace(0, 5, 60)) for f in (np.cos, np.sin)], 1).astype(np.float32)


def chirp(seconds: float = 0.6, rate_hz: int = 8000) -> Waveform:
    times = np.arange(int(seconds * rate_hz)) / rate_hz
    envelope = np.hanning(len(times))
    samples = 0.5 * envelope * np.sin(2 * np.pi * (300 + 900 * times) * times)
    return Waveform(samples.astype(np.float32), rate_hz)


def arm_motion() -> Motion:
    times = np.linspace(0, 2, 50, dtype=np.float32)
    points = np.stack([np.sin(times), np.cos(times), 0.1 * times], 1).astype(np.float32)
    return Motion(points, times)


RAW = {
    'image': RNG.integers(0, 255, (480, 640, 3), dtype=np.uint8),
    'trajectory': Motion(CIRCLE, np.arange(60, dtype=np.float32)),
    'sound': chirp(),
    'symbol': '7',
    'front': RNG.integers(0, 255, (120, 160, 3), dtype=np.uint8),
    'rear': RNG.random((60, 80), dtype=np.float32),
    'force': np.array([0.5, -0.5, 2.0], np.float32),
    'joints': arm_motion(),
    'motor': chirp(1.0, 44100),
}
SPECS = [pytest.param(m, id=m.name) for s in (mhd_spec(), arm_spec()) for m in s.modalities]


@pytest.mark.parametrize('spec', SPECS)
def test_to_model_gives_the_shape_in_the_unit_interval(spec: ModalitySpec) -> None:
    modality = build_modality(spec)
    array = modality.to_model(RAW[spec.name])
    assert array.shape == modality.shape
    assert array.dtype == np.float32
    assert array.min() >= 0 and array.max() <= 1


@pytest.mark.parametrize('spec', SPECS)
def test_from_model_gives_a_raw_value_of_nearly_the_same_array(spec: ModalitySpec) -> None:
    modality = build_modality(spec)
    array = modality.to_model(RAW[spec.name])
    again = modality.to_model(modality.from_model(array))
    assert np.abs(again - array).mean() < 0.04


@pytest.mark.parametrize('spec', SPECS)
def test_window_gives_back_a_whole_value(spec: ModalitySpec) -> None:
    modality = build_modality(spec)
    window = modality.new_window()
    assert window.latest is None
    window.push(RAW[spec.name], 5_000_000_000)
    window.advance(8_000_000_000)
    assert window.latest is not None
    array = modality.to_model(window.latest.raw)
    assert np.abs(array - modality.to_model(RAW[spec.name])).mean() < 0.05
    window.clear()
    assert window.latest is None


BAD = [
    ('image', np.zeros((3,), np.uint8), 'shape'),
    ('image', np.zeros((0, 4), np.uint8), 'shape'),
    ('rear', np.full((8, 8), np.nan, np.float32), 'NaN'),
    ('trajectory', Motion(np.zeros((1, 2), np.float32), np.zeros(1)), '1 points'),
    ('trajectory', Motion(np.zeros((5, 2), np.float32), np.zeros(5)), 'does not move'),
    ('trajectory', Motion(np.full((5, 2), np.inf, np.float32), np.zeros(5)), 'infinity'),
    ('trajectory', Motion(np.zeros((5, 3), np.float32), np.zeros(5)), r'\(5, 3\)'),
    ('joints', Motion(np.ones((3, 3), np.float32), np.array([0.0, 2, 1])), 'not decrease'),
    ('sound', Waveform(np.zeros(8000, np.float32), 8000), 'silent'),
    ('sound', Waveform(np.zeros(0, np.float32), 8000), 'empty'),
    ('sound', Waveform(np.full(800, np.nan, np.float32), 8000), 'NaN'),
    ('sound', Waveform(np.ones(8000 * 61, np.float32), 8000), 'up to 60 s'),
    ('symbol', 'x' * 1000, 'unknown label'),
    ('force', np.zeros(4, np.float32), '4 elements; expected 3'),
]


@pytest.mark.parametrize(('name', 'raw', 'reason'), BAD)
def test_unusable_input_is_refused_with_its_reason(name: str, raw: object, reason: str) -> None:
    spec = {m.name: m for s in (mhd_spec(), arm_spec()) for m in s.modalities}[name]
    with pytest.raises(InvalidInput, match=reason) as error:
        build_modality(spec).to_model(raw)
    assert '\n' not in str(error.value) and len(str(error.value)) < 200


def test_unknown_kind_lists_the_known() -> None:
    with pytest.raises(ConfigError, match=f'known kinds: {", ".join(kinds())}'):
        build_modality(ModalitySpec('a', 'smell', 4))


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        (ModalitySpec('a', 'image', 4, preprocessing={'size': 3}), 'a.preprocessing.size'),
        (ModalitySpec('a', 'symbol', 4), 'a.preprocessing.labels: missing'),
        (ModalitySpec('a', 'trajectory', 4, preprocessing={'spacing': 'odd'}), 'arc_length'),
        (ModalitySpec('a', 'trajectory', 4, preprocessing={'low': (0.0,)}), '2 values each'),
        (
            ModalitySpec('a', 'vector', 4, preprocessing={'low': (1.0,), 'high': (0.0,)}),
            'low < high',
        ),
        (ModalitySpec('a', 'sound', 4, preprocessing={'window': 'odd'}), 'utterance, sliding'),
    ],
)
def test_wrong_options_are_explained(spec: ModalitySpec, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_modality(spec)


def test_image_invert_makes_dark_ink_bright() -> None:
    paper = np.full((48, 64, 3), 255, np.uint8)
    paper[20:28, 28:36] = 0
    array = build_modality(mhd_spec().modality('image')).to_model(paper)
    assert array[0, 14, 14] == 1.0 and array[0, 0, 0] == 0.0


@pytest.mark.parametrize('shape', [(480, 640), (1080, 1920), (239, 317), (28, 28)])
def test_image_is_the_mean_over_areas(shape: tuple[int, int]) -> None:
    modality = build_modality(ModalitySpec('image', 'image', 8, preprocessing={'square': False}))
    image = RNG.integers(0, 255, shape, dtype=np.uint8)
    weights = [_area_weights(length, 28) for length in shape]
    expected = weights[0] @ (image / 255.0) @ weights[1].T
    np.testing.assert_allclose(modality.to_model(image)[0], expected, atol=6 / 255)


def _area_weights(length: int, parts: int) -> np.ndarray:
    """Share of each pixel in each part, ``float64[parts, length]``."""
    edges = np.linspace(0.0, length, parts + 1)[:, None]
    pixels = np.arange(length)
    overlap = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return np.maximum(overlap, 0.0) / (length / parts)


def test_image_16_bit_and_8_bit_agree() -> None:
    modality = build_modality(mhd_spec().modality('image'))
    grey = RNG.integers(0, 255, (56, 56)).astype(np.uint8)
    deep = (grey.astype(np.uint16) * 257).astype(np.uint16)
    np.testing.assert_allclose(modality.to_model(grey), modality.to_model(deep), atol=0.005)


def test_trajectory_ignores_place_size_and_speed() -> None:
    modality = build_modality(mhd_spec().modality('trajectory'))
    slow = np.repeat(CIRCLE, 2, axis=0) * 37.0 - 500.0
    moved = modality.to_model(Motion(slow, np.arange(len(slow), dtype=np.float32)))
    np.testing.assert_allclose(moved, modality.to_model(RAW['trajectory']), atol=1e-3)


def test_trajectory_keeps_its_aspect() -> None:
    modality = build_modality(mhd_spec().modality('trajectory'))
    line = np.stack([np.zeros(20), np.linspace(0, 1, 20)], 1).astype(np.float32)
    points = modality.to_model(Motion(line, np.arange(20.0))).reshape(-1, 2)
    np.testing.assert_allclose(points[:, 0], 0.5, atol=1e-6)
    assert points[0, 1] == 0 and points[-1, 1] == 1


def test_sound_ignores_loudness_and_rate() -> None:
    modality = build_modality(mhd_spec().modality('sound'))
    quiet = Waveform(chirp().samples * 0.1, 8000)
    fast = chirp(0.6, 16000)
    expected = modality.to_model(chirp())
    np.testing.assert_allclose(modality.to_model(quiet), expected, atol=1e-3)
    assert np.abs(modality.to_model(fast) - expected).mean() < 0.02


@pytest.mark.parametrize('chunk', [80, 240, 1000])
def test_an_utterance_in_a_stream_equals_the_recording(chunk: int) -> None:
    modality = build_modality(mhd_spec().modality('sound'))
    noise = RNG.normal(0, 2e-4, 40_000).astype(np.float32)
    stream = noise.copy()
    speech = chirp().samples
    stream[9_000 : 9_000 + len(speech)] += speech
    window = modality.new_window()
    for start in range(0, len(stream), chunk):
        part = Waveform(stream[start : start + chunk], 8000)
        window.push(part, int(start / 8000 * 1e9))
    assert window.latest is not None
    end_s = window.latest.stamp_ns * 1e-9
    assert end_s == pytest.approx((9_000 + len(speech)) / 8000, abs=0.06)
    live = modality.to_model(window.latest.raw)
    assert np.abs(live - modality.to_model(chirp())).mean() < 0.06


def test_silence_after_a_stopped_stream_ends_the_utterance() -> None:
    window = build_modality(mhd_spec().modality('sound')).new_window()
    samples = chirp(0.5).samples
    for start in range(0, len(samples), 400):
        window.push(Waveform(samples[start : start + 400], 8000), int(start / 8 * 1e6))
    window.advance(int(3e9))
    assert window.latest is not None


def test_streamed_points_become_a_stroke_after_a_pause() -> None:
    modality = build_modality(mhd_spec().modality('trajectory'))
    window = modality.new_window()
    for k, point in enumerate(CIRCLE):
        window.push(Motion(point[None], np.zeros(1, np.float32)), k * 10_000_000)
        assert window.latest is None
    window.advance(59 * 10_000_000 + 200_000_000)
    assert window.latest is not None
    np.testing.assert_allclose(
        modality.to_model(window.latest.raw), modality.to_model(RAW['trajectory']), atol=1e-6
    )


def test_a_sliding_window_keeps_the_last_seconds() -> None:
    spec = arm_spec().modality('joints')
    window = build_modality(spec).new_window()
    for k in range(500):
        point = np.full((1, 3), k * 1e-3, np.float32)
        window.push(Motion(point, np.zeros(1, np.float32)), k * 10_000_000)
    assert window.latest is not None
    assert len(window.latest.raw.points) == 201
    assert window.latest.stamp_ns == 499 * 10_000_000


def test_labels_name_the_elements() -> None:
    assert build_modality(mhd_spec().modality('symbol')).labels == LABELS


@pytest.mark.parametrize('side', [64, 160])
@pytest.mark.parametrize('spec', SPECS)
def test_draw_shows_different_values_differently(spec: ModalitySpec, side: int) -> None:
    modality = build_modality(spec)
    array = modality.to_model(RAW[spec.name])
    picture = modality.draw(array, side)
    assert picture.shape == (side, side, 3) and picture.dtype == np.uint8
    other = modality.draw(np.roll(array, array.shape[-1] // 2, axis=-1), side)
    assert np.abs(picture.astype(int) - other).mean() > 0.1


def undecided(**options: object) -> Modality[Any]:
    """A vector whose range the training data choose."""
    return build_modality(ModalitySpec('joints', 'vector', 2, options))


def test_range_of_a_vector_comes_from_the_training_data() -> None:
    modality = undecided()
    assert modality.undecided == ('low', 'high')
    with pytest.raises(ConfigError, match='joints: low and high are not known; import the split'):
        _ = modality.shape
    raws = [np.array([x, 2 * x, 7.0], np.float32) for x in np.linspace(-1, 1, 2001)]
    raws[1000][0] = 1e6  # a glitch
    raws[3][1] = np.nan
    options = modality.decide(raws)
    # A glitch counts as far as the data are wide; what never changes has the widest range.
    np.testing.assert_allclose(options['low'], [-2.99, -4.0, 5.0], atol=0.02)
    np.testing.assert_allclose(options['high'], [4.99, 4.0, 9.0], atol=0.02)
    decided = undecided(**options)
    assert decided.undecided == () and decided.shape == (3,)
    array = decided.to_model(raws[500])
    np.testing.assert_allclose(decided.from_model(array), raws[500], atol=1e-5)


def test_range_of_what_never_changes_is_around_it() -> None:
    options = undecided().decide([np.array([3.0, -2.0])] * 4)
    assert options == {'low': (2.5, -2.5), 'high': (3.5, -1.5)}


def test_data_that_decide_no_range_say_why() -> None:
    with pytest.raises(InvalidInput, match='2 or 3 elements; pick some with names'):
        undecided().decide([np.zeros(2), np.zeros(3)])
    with pytest.raises(InvalidInput, match='no finite vector'):
        undecided().decide([np.full(2, np.nan)])
    with pytest.raises(ConfigError, match='low < high'):
        undecided(low=(0.0,))


def test_what_is_configured_leaves_nothing_open() -> None:
    for spec in (*mhd_spec().modalities, *arm_spec().modalities):
        assert build_modality(spec).undecided == ()
    assert build_modality(mhd_spec().modality('image')).decide([]) == {}


def test_ranges_may_be_as_large_as_their_unit_makes_them() -> None:
    def ticks(high: float) -> ModelSpec:
        return ModelSpec((ModalitySpec('ticks', 'vector', 2, {'low': [-3e7], 'high': [high]}),))

    check_sizes(ticks(101_325_000.0))
    with pytest.raises(ConfigError, match=r'high\[0\]: inf is more than'):
        check_sizes(ticks(float('inf')))
