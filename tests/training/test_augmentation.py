"""Augmentations of images, spectrograms and strokes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mm_perception.errors import ConfigError
from mm_perception.training.augmentation import AUGMENTATIONS, build_augmentation

STRONG: dict[str, dict[str, Any]] = {
    'affine': {'shift': [2.0, 2.0], 'scale': [0.1, 0.1], 'rotation_deg': 10.0, 'shear': 0.2,
               'gain': 0.1, 'noise': 0.02},
    'ink': {'shift': [2.0, 2.0], 'scale': [0.1, 0.1], 'pen': 0.8, 'blur': 0.8, 'noise': 0.05},
    'spectral': {'shift': [2.0, 1.0], 'scale': [0.03, 0.06], 'gain': 0.05, 'tilt': 0.3,
                 'background': 0.4, 'echo': 20.0, 'delay': 6, 'frequency_mask': 12,
                 'time_mask': 4},
    'stroke': {'rotation_deg': 10.0, 'scale': 0.2, 'shear': 0.2, 'warp': 0.05},
}  # fmt: skip


def augmented(data: Tensor, kind: str, seed: int = 0, **options: Any) -> Tensor:
    """What an encoder is shown."""
    return both(data, kind, seed, **options)[0]


def both(data: Tensor, kind: str, seed: int = 0, **options: Any) -> tuple[Tensor, Tensor]:
    """What an encoder is shown, and what is wanted of it."""
    torch.manual_seed(seed)
    return build_augmentation({'type': kind, **options}, 'x')(data)


def strokes(count: int = 64) -> Tensor:
    """A right angle, from the top left down and to the right, that fills the unit box."""
    along = torch.linspace(0.0, 1.0, 50)
    down = torch.stack([torch.zeros(50), 1.0 - along], dim=1)
    right = torch.stack([along, torch.zeros(50)], dim=1)
    return torch.cat([down, right]).reshape(1, 200).repeat(count, 1)


def bar(count: int = 64) -> Tensor:
    """A narrow upright bar in the middle."""
    images = torch.zeros(count, 1, 28, 28)
    images[:, :, 4:24, 13:15] = 1.0
    return images


def speech(count: int = 64) -> Tensor:
    """A sound of one level in all rows, then silence."""
    data = torch.full((count, 128, 32), 0.5)
    data[:, :, 20:] = 0.0
    return data


DATA = {'affine': bar, 'ink': bar, 'spectral': speech, 'stroke': strokes}


@pytest.mark.parametrize('kind', STRONG)
def test_augmentation_is_the_same_in_mixed_precision(kind: str) -> None:
    data = DATA[kind]()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        mixed = augmented(data, kind, **STRONG[kind])
    assert torch.equal(mixed, augmented(data, kind, **STRONG[kind]))


@pytest.mark.parametrize('kind', AUGMENTATIONS)
def test_augmentation_without_strength_changes_nothing(kind: str) -> None:
    data = DATA[kind]()
    assert (augmented(data, kind) - data).abs().max() < 1e-5


@pytest.mark.parametrize('kind', AUGMENTATIONS)
def test_augmentation_changes_each_sample_by_seed_and_keeps_shape_and_range(kind: str) -> None:
    data = DATA[kind]()
    before = data.clone()
    result = augmented(data, kind, **STRONG[kind])
    assert (data == before).all()
    assert result.shape == data.shape and result.dtype == data.dtype
    assert result.min() >= 0 and result.max() <= 1
    assert ((result - data).flatten(1).abs().amax(1) > 0.01).all()
    assert len({tuple(sample.flatten().tolist()) for sample in result}) == len(data)
    assert (augmented(data, kind, **STRONG[kind]) == result).all()
    assert (augmented(data, kind, seed=1, **STRONG[kind]) != result).any()


def centre_of_columns(images: Tensor) -> Tensor:
    return (images * torch.arange(28.0)).sum(-1) / images.sum(-1).clamp_min(1e-6)


def test_affine_shear_slants_but_keeps_height() -> None:
    result = augmented(bar(), 'affine', shear=0.3)[:, 0]
    slope = (centre_of_columns(result)[:, 22] - centre_of_columns(result)[:, 5]) / 17.0
    assert 0.25 < slope.abs().max() < 0.31
    torch.testing.assert_close(result.sum((1, 2)), bar().sum((1, 2, 3)), rtol=0.02, atol=0.0)
    assert result[:, :4].max() < 1e-5 and result[:, 24:].max() < 1e-5


def test_affine_rotation_turns_about_the_middle() -> None:
    result = augmented(bar(), 'affine', rotation_deg=20.0)[:, 0]
    slope = (centre_of_columns(result)[:, 18] - centre_of_columns(result)[:, 9]) / 9.0
    assert 0.25 < slope.abs().max() < 0.37
    centre = (result.sum(1) * torch.arange(28.0)).sum(1) / result.sum((1, 2))
    assert (centre - 13.5).abs().max() < 0.1


def test_spectral_tilt_is_a_line_over_frequency_where_there_is_sound() -> None:
    result = augmented(speech(), 'spectral', tilt=0.4)
    assert result[:, :, 21:].abs().max() == 0
    change = result[:, :, 5] - 0.5
    torch.testing.assert_close(change[:, 0], -change[:, -1])
    assert change[:, 63:65].abs().max() < 2e-3
    assert 0.15 < change[:, 0].abs().max() <= 0.2


@pytest.mark.parametrize('options', [
    {'background': 0.6}, {'echo': 20.0}, {'delay': 8}, {'time_mask': 6}, {'noise': 0.1},
])  # fmt: skip
def test_spectral_disturbances_are_to_be_looked_through(options: dict[str, Any]) -> None:
    shown, wanted = both(speech(), 'spectral', **options)
    assert (wanted - speech()).abs().max() < 1e-5
    assert ((shown - wanted).flatten(1).abs().amax(1) > 0.01).float().mean() > 0.5


def test_spectral_background_adds_power_below_the_peak() -> None:
    data = torch.zeros(512, 128, 32)
    data[:, 60:68, :20] = 1.0
    shown = augmented(data, 'spectral', background=0.5)
    torch.testing.assert_close(shown.amax((1, 2)), torch.ones(512))
    level = shown[:, 100:, :20].mean((1, 2))  # 20 log10 of a noise of up to -30 dB
    assert 0.05 < level.mean() < 0.35 and level.max() < 0.7
    assert shown[:, :, 22:].max() == 0  # no longer than the sound but for a frame


def test_spectral_echo_falls_with_time() -> None:
    data = torch.zeros(256, 128, 32)
    data[:, :, 2] = 1.0
    shown = augmented(data, 'spectral', echo=20.0).mean((0, 1))
    assert (shown[3:14] < shown[2:13]).all() and shown[3] > 0.3 and shown[:2].max() == 0


def test_spectral_delay_moves_by_whole_frames() -> None:
    data = torch.zeros(256, 128, 32)
    data[:, :, :2] = 1.0
    shown = augmented(data, 'spectral', delay=8)
    first = shown[:, 0].argmax(1)
    assert first.unique().tolist() == list(range(9))
    assert (shown.sum((1, 2)) == 256).all()


def test_ink_pens_and_lenses_are_to_be_looked_through() -> None:
    shown, wanted = both(bar(512), 'ink', pen=1.0, blur=1.0)
    assert (wanted - bar(512)).abs().max() < 1e-5
    ink = shown.sum((1, 2, 3)) / wanted.sum((1, 2, 3))
    assert ink.min() < 0.3 and ink.max() > 1.8
    blurred = augmented(bar(512), 'ink', blur=1.0)
    torch.testing.assert_close(blurred.sum((1, 2, 3)), wanted.sum((1, 2, 3)), rtol=0.01, atol=0.0)
    assert blurred.amax((1, 2, 3)).min() < 0.8


@pytest.mark.parametrize(('option', 'axis', 'widest'), [
    ('frequency_mask', 1, 20), ('time_mask', 2, 6),
])  # fmt: skip
def test_spectral_masks_one_band(option: str, axis: int, widest: int) -> None:
    data = torch.full((256, 128, 32), 0.5)
    result = augmented(data, 'spectral', **{option: widest})
    silent = (result == 0).all(dim=3 - axis)
    widths = silent.sum(1)
    assert widths.max() <= widest and widths.max() >= widest - 1
    borders = (silent[:, 1:] != silent[:, :-1]).sum(1)
    assert borders.max() <= 2
    assert ((result - data).abs().amax(dim=3 - axis)[~silent] < 1e-5).all()


def points_of(data: Tensor) -> Tensor:
    return data.reshape(len(data), -1, 2)


def test_stroke_fills_the_unit_box_again() -> None:
    points = points_of(augmented(strokes(), 'stroke', **STRONG['stroke']))
    extent = points.amax(1) - points.amin(1)
    torch.testing.assert_close(extent.amax(1), torch.ones(64))
    torch.testing.assert_close(points.amax(1) + points.amin(1), torch.ones(64, 2))


def test_stroke_scale_changes_the_aspect_only() -> None:
    points = points_of(augmented(strokes(), 'stroke', scale=0.2))
    extent = points.amax(1) - points.amin(1)
    assert extent.amin(1).min() < 0.8 and extent.amin(1).min() >= 0.8 / 1.2 - 1e-5
    assert (points[:, :50, 0].amax(1) - points[:, :50, 0].amin(1)).max() < 1e-5


def test_stroke_rotation_keeps_the_right_angle_and_shear_does_not() -> None:
    angles = {}
    for name, options in {'turned': {'rotation_deg': 15.0}, 'slanted': {'shear': 0.3}}.items():
        points = points_of(augmented(strokes(), 'stroke', **options))
        down, right = points[:, 49] - points[:, 0], points[:, 99] - points[:, 50]
        cosine = (down * right).sum(1) / down.norm(dim=1) / right.norm(dim=1)
        angles[name] = cosine.abs().max()
        direction = torch.atan2(right[:, 1], right[:, 0]).rad2deg().abs().max()
        assert direction <= 15.001 if name == 'turned' else direction < 0.01
    assert angles['turned'] < 1e-4 and 0.2 < angles['slanted'] < 0.3


def test_stroke_warp_is_smooth_and_small() -> None:
    data = strokes()
    change = points_of(augmented(data, 'stroke', warp=0.05) - data)
    assert 0.02 < change.abs().max() < 0.2
    steps = change.diff(dim=1)
    assert steps.abs().max() < 0.02
    assert steps.diff(dim=1).abs().max() < 0.005


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (
            {'type': 'twist'},
            r'x\.type: unknown augmentation "twist"; known: affine, ink, spectral',
        ),
        ({'type': 'affine', 'warp': 1.0}, r'x\.warp: unknown key'),
        ({'type': 'affine', 'shift': [1.0]}, r'x\.shift: give two numbers'),
        ({'type': 'affine', 'scale': [0.1, 1.0]}, r'x\.scale: is 1\.0; .*below 1'),
        ({'type': 'affine', 'shear': -0.1}, r'x\.shear: is -0\.1; give 0 or more'),
        ({'type': 'spectral', 'tilt': float('nan')}, r'x\.tilt: is nan'),
        ({'type': 'spectral', 'scale': [2.0, 0.0]}, r'x\.scale: is 2\.0'),
        ({'type': 'spectral', 'time_mask': -1}, r'x\.time_mask: is -1'),
        ({'type': 'spectral', 'time_mask': 1.5}, r'x\.time_mask: expected int'),
        ({'type': 'stroke', 'scale': 1.0}, r'x\.scale: is 1\.0'),
        ({'type': 'stroke', 'warp': float('inf')}, r'x\.warp: is inf'),
    ],
)
def test_augmentation_bad_options_are_one_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        build_augmentation(options, 'x')
    assert '\n' not in str(error.value)
