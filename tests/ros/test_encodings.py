"""Image encodings: the same scene in each of them is the same picture."""

from __future__ import annotations

import struct
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image

from mm_perception.errors import ConfigError, InvalidInput
from mm_perception.modalities import build_modality
from mm_perception.ros.codecs import Draft, input_codec, make_header
from mm_perception.ros.codecs.image import LAYOUTS
from mm_perception.spec import ModalitySpec

WIDTH, HEIGHT = 64, 48
COLOUR = build_modality(
    ModalitySpec('colour', 'image', 4, {'channels': 3, 'height': 4, 'width': 4, 'square': False})
)
DEPTH = build_modality(
    ModalitySpec('depth', 'image', 4, {'full_scale': 4000.0, 'height': 6, 'width': 8})
)
METRES = build_modality(
    ModalitySpec('depth', 'image', 4, {'full_scale': 4.0, 'height': 6, 'width': 8})
)


def scene() -> np.ndarray:
    """Even patches of 16x12 in other colours: ``uint8[H, W, 3]`` RGB."""
    patches = np.random.default_rng(3).integers(40, 210, (4, 4, 3), np.uint8)
    return patches.repeat(HEIGHT // 4, axis=0).repeat(WIDTH // 4, axis=1)


def planes(rgb: np.ndarray) -> tuple[np.ndarray, ...]:
    """Y, U and V of BT.601, limited range, colour once per two columns."""
    r, g, b = (rgb[..., k].astype(float) for k in range(3))
    y = 16 + (65.481 * r + 128.553 * g + 24.966 * b) / 255
    u = 128 + (-37.797 * r - 74.203 * g + 112.0 * b) / 255
    v = 128 + (112.0 * r - 93.786 * g - 18.214 * b) / 255
    return tuple(np.rint(each).astype(np.uint8) for each in (y, u[:, ::2], v[:, ::2]))


def packed(rgb: np.ndarray, luma_first: bool) -> np.ndarray:
    y, u, v = planes(rgb)
    chroma = np.stack((u, v), axis=2).reshape(HEIGHT, WIDTH)
    return np.stack((y, chroma) if luma_first else (chroma, y), axis=2)


def semi_planar(rgb: np.ndarray, u_first: bool) -> np.ndarray:
    y, u, v = planes(rgb)
    pair = (u[::2], v[::2]) if u_first else (v[::2], u[::2])
    return np.concatenate((y, np.stack(pair, axis=2).reshape(HEIGHT // 2, WIDTH)))


def mosaic(rgb: np.ndarray, order: str) -> np.ndarray:
    bayer = np.empty((HEIGHT, WIDTH), np.uint8)
    for k, colour in enumerate(order):
        bayer[k // 2 :: 2, k % 2 :: 2] = rgb[k // 2 :: 2, k % 2 :: 2, 'rgb'.index(colour)]
    return bayer


def wide(values: np.ndarray) -> np.ndarray:
    return values.astype(np.uint16) * 257


def grey(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)


def alpha(pixels: np.ndarray) -> np.ndarray:
    return np.dstack((pixels, np.full(pixels.shape[:2], 7, pixels.dtype)))


ENCODED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    'mono8': grey,
    '8UC1': grey,
    'rgb8': lambda rgb: rgb,
    'bgr8': lambda rgb: rgb[..., ::-1],
    '8UC3': lambda rgb: rgb[..., ::-1],
    'rgba8': alpha,
    'bgra8': lambda rgb: alpha(rgb[..., ::-1]),
    '8UC4': lambda rgb: alpha(rgb[..., ::-1]),
    'mono16': lambda rgb: wide(grey(rgb)),
    '16UC1': lambda rgb: wide(grey(rgb)),
    'rgb16': wide,
    'bgr16': lambda rgb: wide(rgb[..., ::-1]),
    'rgba16': lambda rgb: alpha(wide(rgb)),
    'bgra16': lambda rgb: alpha(wide(rgb[..., ::-1])),
    '16UC3': lambda rgb: wide(rgb[..., ::-1]),
    '16UC4': lambda rgb: alpha(wide(rgb[..., ::-1])),
    '32FC1': lambda rgb: (grey(rgb) / 255).astype(np.float32),
    '32FC3': lambda rgb: (rgb[..., ::-1] / 255).astype(np.float32),
    'yuv422': lambda rgb: packed(rgb, luma_first=False),
    'uyvy': lambda rgb: packed(rgb, luma_first=False),
    'yuv422_yuy2': lambda rgb: packed(rgb, luma_first=True),
    'yuyv': lambda rgb: packed(rgb, luma_first=True),
    'nv12': lambda rgb: semi_planar(rgb, u_first=True),
    'nv21': lambda rgb: semi_planar(rgb, u_first=False),
    **{
        f'bayer_{order}{bits}': lambda rgb, order=order, bits=bits: (
            mosaic(rgb, order) if bits == 8 else wide(mosaic(rgb, order))
        )
        for order in ('rggb', 'bggr', 'gbrg', 'grbg')
        for bits in (8, 16)
    },
}


def message(encoding: str, pixels: np.ndarray, padding: int = 0) -> Image:
    """Image message of pixels as they lie in memory, with bytes after each row."""
    rows = [np.ascontiguousarray(row).tobytes() + b'\xff' * padding for row in pixels]
    return Image(
        height=HEIGHT, width=WIDTH, encoding=encoding, step=len(rows[0]), data=b''.join(rows)
    )


def read(message: Image | CompressedImage, modality=COLOUR) -> np.ndarray:
    """Model array of a message."""
    name = f'sensor_msgs/msg/{type(message).__name__}'
    raw, _ = input_codec('image', name).decode(message, 1, modality)
    return modality.to_model(raw)


def test_encodings_all_of_the_table_are_tried_here():
    assert set(ENCODED) == set(LAYOUTS)


@pytest.mark.parametrize('encoding', ENCODED)
@pytest.mark.parametrize('padding', [0, 32])
def test_encoding_shows_the_scene(encoding: str, padding: int):
    rgb = scene()
    colourless = encoding in ('mono8', '8UC1', 'mono16', '16UC1', '32FC1')
    expected = COLOUR.to_model(np.dstack([grey(rgb)] * 3) if colourless else rgb)
    found = read(message(encoding, ENCODED[encoding](rgb), padding))
    # Bayer patterns mix the colours at the edges of the patches.
    tolerance = 0.05 if encoding.startswith('bayer') else 0.012
    np.testing.assert_allclose(found, expected, atol=tolerance)


@pytest.mark.parametrize('encoding', [name for name, layout in LAYOUTS.items() if layout.even])
def test_encoding_of_pairs_refuses_odd_sizes(encoding: str):
    odd = message(encoding, ENCODED[encoding](scene()))
    odd.width -= 1
    with pytest.raises(InvalidInput, match='come in pairs'):
        read(odd)


def test_format_of_a_compressed_image_decides_the_order_of_its_channels():
    rgb = scene()
    expected = COLOUR.to_model(rgb)
    usual, swapped = (cv2.imencode('.png', each)[1].tobytes() for each in (rgb[..., ::-1], rgb))
    for form in ('', 'png', 'rgb8; png compressed bgr8', 'bgr8; png compressed bgr8'):
        np.testing.assert_array_equal(read(CompressedImage(format=form, data=usual)), expected)
    for form in ('rgb8; png compressed rgb8', 'bgr8; png compressed rgb8'):
        np.testing.assert_array_equal(read(CompressedImage(format=form, data=swapped)), expected)
    with_alpha = cv2.imencode('.png', alpha(rgb))[1].tobytes()
    found = read(CompressedImage(format='rgba8; png compressed rgba8', data=with_alpha))
    np.testing.assert_array_equal(found, expected)


def depth_mm() -> np.ndarray:
    """A ramp of depths with 30 % holes, which are 0."""
    depth = np.tile(np.linspace(600, 3800, WIDTH), (HEIGHT, 1))
    holes = np.random.default_rng(1).random(depth.shape) < 0.3
    return np.where(holes, 0, depth).astype(np.uint16)


def depth_expected() -> np.ndarray:
    square = np.linspace(600, 3800, WIDTH)[(WIDTH - HEIGHT) // 2 :][:HEIGHT] / 4000
    return np.tile(square.reshape(8, -1).mean(axis=1), (1, 6, 1))


def compressed_depth(head: bytes, png: np.ndarray, form: str) -> CompressedImage:
    data = head + cv2.imencode('.png', png)[1].tobytes()
    return CompressedImage(format=form, data=data)


def test_depth_without_a_return_stays_out_of_the_mean():
    depth = depth_mm()
    expected = depth_expected()
    np.testing.assert_allclose(read(message('16UC1', depth), DEPTH), expected, atol=0.02)
    metres = np.where(depth == 0, np.nan, depth / 1000).astype(np.float32)
    np.testing.assert_allclose(read(message('32FC1', metres), METRES), expected, atol=0.02)


def test_compressed_depth_is_the_depth():
    depth, expected = depth_mm(), depth_expected()
    plain = compressed_depth(bytes(12), depth, '16UC1; compressedDepth png')
    np.testing.assert_allclose(read(plain, DEPTH), expected, atol=0.02)
    # As compressed_depth_image_transport quantises: png_level 100, depth_max 10 m.
    a = 100.0 * (100.0 + 1.0)
    b = 1.0 - a / 10.0
    metres = np.maximum(depth, 1) / 1000
    inverse = np.where(depth == 0, 0, np.rint(a / metres + b)).astype(np.uint16)
    head = struct.pack('<iff', 0, a, b)
    quantised = compressed_depth(head, inverse, '32FC1; compressedDepth')
    np.testing.assert_allclose(read(quantised, METRES), expected, atol=0.02)


def test_compressed_depth_that_cannot_be_read_says_why():
    colour = compressed_depth(bytes(12), scene(), '16UC1; compressedDepth png')
    for bad, reason in (
        (colour, 'expected 16 bits'),
        (CompressedImage(format='16UC1; compressedDepth', data=bytes(5)), '5 bytes'),
        (CompressedImage(format='16UC1; compressedDepth', data=bytes(50)), 'neither'),
        (CompressedImage(format='16UC1; compressedDepth rvl', data=bytes(50)), 'to png'),
    ):
        with pytest.raises(InvalidInput, match=reason):
            read(bad, DEPTH)


@pytest.mark.parametrize('encoding', ENCODED)
@pytest.mark.parametrize('padding', [0, 32])
def test_encoding_is_written_as_it_is_read(encoding: str, padding: int):
    """A picture of the model becomes an image in the form of another one."""
    shape = message(encoding, ENCODED[encoding](scene()), padding)
    across, down = np.meshgrid(np.linspace(0.3, 0.6, 4), np.linspace(0.3, 0.6, 4))
    array = np.stack((across, down, np.full_like(down, 0.5))).astype(np.float32)
    write = input_codec('image').write
    assert write is not None
    made = write(Draft(COLOUR, array, make_header(3), shape))
    for name in ('height', 'width', 'encoding', 'step', 'is_bigendian'):
        assert getattr(made, name) == getattr(shape, name), name
    assert len(made.data) == len(shape.data)
    found = read(made)
    if encoding in ('mono8', '8UC1', 'mono16', '16UC1', '32FC1'):
        array = np.repeat(np.tensordot([0.299, 0.587, 0.114], array, 1)[None], 3, 0)
    np.testing.assert_allclose(found, array, atol=0.04)


def test_compressed_image_is_written_in_the_form_of_the_last_one():
    codec = input_codec('image', 'sensor_msgs/msg/CompressedImage')
    assert codec.write is not None
    array = np.full((3, 4, 4), 0.25, np.float32) * np.array([1.0, 2.0, 3.0])[:, None, None]
    for form, ending in (('bgr8; jpeg compressed bgr8', '.jpg'), ('png', '.png')):
        data = cv2.imencode(ending, scene())[1].tobytes()
        made = codec.write(
            Draft(COLOUR, array, make_header(3), CompressedImage(format=form, data=data))
        )
        assert made.format == form
        assert cv2.imdecode(np.frombuffer(made.data, np.uint8), -1).shape == scene().shape
        np.testing.assert_allclose(read(made), array, atol=0.03)


def test_compressed_depth_is_written_in_the_form_of_the_last_one():
    codec = input_codec('image', 'sensor_msgs/msg/CompressedImage')
    assert codec.write is not None
    array = np.full((1, 6, 8), 0.5, np.float32)
    picture = cv2.imencode('.png', np.full((48, 64), 900, np.uint16))[1].tobytes()
    for form, kind in (
        ('16UC1; compressedDepth png', DEPTH),
        ('32FC1; compressedDepth png', METRES),
    ):
        last = CompressedImage(format=form, data=struct.pack('<iff', 0, 3000.0, 100.0) + picture)
        made = codec.write(Draft(kind, array, make_header(3), last))
        np.testing.assert_allclose(read(made, kind), array, atol=0.01)


def test_roi_is_what_the_model_sees_and_what_is_painted():
    options = {'channels': 3, 'height': 4, 'width': 4, 'square': False, 'roi': (16, 12, 32, 24)}
    kind = build_modality(ModalitySpec('part', 'image', 4, options))
    rgb = scene()
    np.testing.assert_array_equal(kind.to_model(rgb), COLOUR.to_model(rgb[12:36, 16:48]))
    painted = kind.paint(rgb, np.zeros((3, 4, 4), np.float32))
    assert not painted[12:36, 16:48].any()
    painted[12:36, 16:48] = rgb[12:36, 16:48]
    np.testing.assert_array_equal(painted, rgb)
    with pytest.raises(InvalidInput, match='image is 40x30; roi reaches to 48x36'):
        kind.to_model(rgb[:30, :40])
    with pytest.raises(ConfigError, match=r'roi is \[1, 2\]; give x, y, width, height'):
        build_modality(ModalitySpec('part', 'image', 4, {'roi': (1, 2)}))
