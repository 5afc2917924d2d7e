"""What is drawn on a page, whatever light, paper, pen and place are."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mm_perception.errors import ConfigError, InvalidInput
from mm_perception.modalities import build_modality
from mm_perception.modalities.base import BLACK, SATURATED, Array, Thresholds
from mm_perception.modalities.image import ImageModality
from mm_perception.spec import ModalitySpec

PAPER, INK = 255, 15
OPTIONS = {'invert': True, 'square': False, 'normalise': 'ink'}


def camera(**options: object) -> ImageModality:
    modality = build_modality(ModalitySpec('image', 'image', preprocessing={**OPTIONS, **options}))
    assert isinstance(modality, ImageModality)
    return modality


def page(
    scale: float = 1.0,
    move: tuple[int, int] = (0, 0),
    pen: int = 36,
    ink: int = INK,
    size: tuple[int, int] = (480, 640),
) -> NDArray[np.uint8]:
    """A four, drawn in one stroke."""
    corners = np.array([(60, -160), (-100, 60), (100, 60), (60, -160), (60, 160)]) * scale
    image = np.full(size, PAPER, np.uint8)
    points = np.rint(corners + np.array(size[::-1]) / 2 + move).astype(np.int32)
    cv2.polylines(image, [points], False, ink, round(pen * scale), cv2.LINE_AA)
    return image


def alike(one: Array, other: Array) -> float:
    """Correlation of two arrays."""
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def with_desk(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    image = image.copy()
    image[:, :110] = 50
    image[:30] = 90
    return image


def with_light(image: NDArray[np.uint8], share: float = 0.5) -> NDArray[np.uint8]:
    light = np.linspace(1.0, 1.0 - share, image.shape[1])
    return np.asarray(image * light, np.uint8)


def with_noise(image: NDArray[np.uint8], sigma: float = 40.0) -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).normal(0.0, sigma, image.shape)
    return np.asarray(np.clip(image + noise, 0, 255), np.uint8)


def in_yellow(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Ink that is hardly darker than white, but has another colour."""
    return np.stack((np.full_like(image, 250), np.full_like(image, 250), image), axis=2)


def with_squares(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    lined = image.copy()
    lined[::40] = np.minimum(lined[::40], 170)
    lined[:, ::40] = np.minimum(lined[:, ::40], 170)
    return lined


STRANGE = {
    'as usual': page(),
    'small': page(0.4),
    'off centre': page(0.7, (-150, 60)),
    'cut off at the top': page(move=(0, -70)),
    'half in shadow': with_light(page()),
    'thin pen': page(pen=12),
    'thick pen': page(pen=66),
    'faint ink': page(ink=190),
    'dark paper': np.asarray(page() * 0.4, np.uint8),
    'noise': with_noise(page()),
    'blurred': np.asarray(cv2.GaussianBlur(page(), (0, 0), 8)),
    'on a desk': with_desk(page()),
    'faint, on a desk': with_desk(page(ink=190)),
    'squared paper': with_squares(page()),
    'light on dark': 255 - page(),
    'small camera': np.asarray(cv2.resize(page(), (56, 42), interpolation=cv2.INTER_AREA)),
    'in colour': np.repeat(page()[:, :, None], 3, axis=2),
    'yellow ink': in_yellow(page()),
    'one channel': page()[:, :, None],
    'float': page().astype(np.float32) / np.float32(255),
    '16 bits': page().astype(np.uint16) * 257,
}


@pytest.mark.parametrize('name', STRANGE)
def test_ink_gives_about_the_same_array_whatever_the_page_is(name: str) -> None:
    usual, strange = (camera().to_model(image) for image in (page(), STRANGE[name]))
    assert strange.shape == (1, 28, 28) and strange.dtype == np.float32
    assert strange.min() >= 0 and strange.max() <= 1
    assert alike(usual, strange) > 0.85


def test_ink_is_centred_and_fills_three_quarters() -> None:
    array = camera().to_model(page(0.5, (100, -80)))[0]
    rows, columns = (np.flatnonzero(array.max(axis=k) > 0.5) for k in (1, 0))
    assert len(rows) == pytest.approx(0.75 * 28, abs=1.5)
    for places in (rows, columns):
        assert places.mean() == pytest.approx(13.5, abs=1.0)


BLANK = {
    'white': (np.full((480, 640), 250, np.uint8), SATURATED),
    'black': (np.zeros((480, 640), np.uint8), BLACK),
    'black, with noise': (with_noise(np.zeros((480, 640), np.uint8), 3.0), BLACK),
    'white, with noise': (with_noise(np.full((480, 640), 230, np.uint8)), SATURATED),
    'half in shadow': (with_light(np.full((480, 640), 240, np.uint8)), SATURATED),
    'with a desk': (with_desk(np.full((480, 640), 240, np.uint8)), SATURATED),
}


@pytest.mark.parametrize('name', BLANK)
def test_ink_of_a_blank_page_is_none_and_a_fault(name: str) -> None:
    image, fault = BLANK[name]
    array = camera().to_model(image)
    assert not array.any()
    found = camera().find_fault(image, array, Thresholds())
    assert found is not None and found.name == fault


def test_ink_leaves_holes_of_depth_images_out() -> None:
    holes = page().astype(np.float32) / np.float32(255)
    holes[200:204] = np.nan
    assert alike(camera().to_model(holes), camera().to_model(page())) > 0.9
    with pytest.raises(InvalidInput, match='nothing but NaN'):
        camera().to_model(np.full((60, 80), np.nan, np.float32))


@pytest.mark.parametrize(('options', 'words'), [
    ({'normalise': 'skin'}, 'normalise is "skin"; known: none, ink'),
    ({'channels': 3}, 'normalise: ink needs channels: 1'),
])  # fmt: skip
def test_ink_wrong_options_are_one_line(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        camera(**options)


@pytest.mark.parametrize('size', [(1, 1), (1, 60_000), (60_000, 2), (2, 3), (28, 28)])
def test_ink_takes_images_of_any_size(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 255, size, np.uint8)
    began = time.process_time()
    array = camera().to_model(image)
    assert array.shape == (1, 28, 28) and np.isfinite(array).all()
    assert time.process_time() - began < 0.5  # some ms; no memory for a page of 60,000 columns


def test_ink_costs_little_beside_resizing_in_python() -> None:
    image = page()
    began = time.process_time()
    for _ in range(20):
        camera().to_model(image)
    assert (time.process_time() - began) / 20 < 0.01  # some 1 ms; ten times of it is a mistake
