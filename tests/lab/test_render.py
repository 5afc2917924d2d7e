import numpy as np
import pytest

from mm_perception.lab.digits.pen import render_stroke
from mm_perception.modalities import build_modality
from mm_perception.spec import ModalitySpec

SEVEN = np.array([[0, 10], [6, 10], [3, 5], [2, 0]], np.float32)


def seen(image):
    spec = ModalitySpec('image', 'image', 1, preprocessing={'invert': True})
    return build_modality(spec).to_model(image)[0]


def test_render_draws_dark_ink_on_white_paper_in_the_middle():
    image = render_stroke(SEVEN)
    assert image.shape == (480, 640, 3) and image.dtype == np.uint8
    assert image[0, 0].tolist() == [255, 255, 255] and image.min() < 30
    rows, columns = np.nonzero(image[:, :, 0] < 128)
    assert 0.70 < np.ptp(rows) / 480 < 0.80
    assert (rows.min() + rows.max()) / 2 == pytest.approx(239.5, abs=2)
    assert (columns.min() + columns.max()) / 2 == pytest.approx(319.5, abs=2)


def test_render_keeps_y_up():
    ink = seen(render_stroke(SEVEN))
    assert ink[:10].sum() > 1.5 * ink[-10:].sum()


def test_render_is_independent_of_unit_and_place():
    np.testing.assert_array_equal(render_stroke(SEVEN), render_stroke(SEVEN * 64 + 1024))


def test_render_looks_the_same_to_the_model_at_any_frame_size():
    small, large = (seen(render_stroke(SEVEN, *size)) for size in ((240, 320), (480, 640)))
    assert np.abs(small - large).mean() < 0.01
    assert np.abs(small - large).max() < 0.15


def test_render_has_about_the_ink_of_mnist():
    ink = seen(render_stroke(SEVEN))
    assert 0.05 < ink.mean() < 0.2 and ink.max() > 0.9


def test_render_draws_a_dot():
    assert render_stroke(np.zeros((2, 2), np.float32)).min() < 30
