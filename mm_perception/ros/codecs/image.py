"""Camera images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from mm_perception.errors import InvalidInput
from mm_perception.modalities import Modality
from mm_perception.ros.codecs.base import (
    OutputCodec,
    as_bytes,
    as_sensor,
    make_header,
    register_input,
    register_output,
    stamp_of,
)
from mm_perception.ros.picture_process import decode_apart, essential_picture

DECODED_APART = (CompressedImage,)
"""Messages that another process reads, in a thread of their own: others do not wait for it."""
MAX_PIXELS = 40_000_000
MAX_PIXELS_PER_BYTE = 10_000  # more than PNG and JPEG can compress


@dataclass(frozen=True)
class _Layout:
    dtype: str
    channels: int = 1
    to_rgb: int | None = None  # OpenCV's conversion; None: as it is


_LAYOUTS = {
    'mono8': _Layout('u1'),
    '8UC1': _Layout('u1'),
    'rgb8': _Layout('u1', 3),
    'bgr8': _Layout('u1', 3, cv2.COLOR_BGR2RGB),
    'rgba8': _Layout('u1', 4, cv2.COLOR_RGBA2RGB),
    'bgra8': _Layout('u1', 4, cv2.COLOR_BGRA2RGB),
    'mono16': _Layout('u2'),
    '16UC1': _Layout('u2'),
    '32FC1': _Layout('f4'),
}
_DECOMPRESSED = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}
_ENCODINGS = {('u1', 1): 'mono8', ('u1', 3): 'rgb8', ('u2', 1): '16UC1', ('f4', 1): '32FC1'}


@register_input('image', Image)
def decode_image(message: Image, receipt_ns: int, modality: Modality[Any]) -> tuple[Any, int]:
    """View the pixels, copied only if the layout asks for it: ``[H, W]`` or RGB ``[H, W, 3]``."""
    layout = _LAYOUTS.get(message.encoding)
    if layout is None:
        known = ', '.join(_LAYOUTS)
        raise InvalidInput(f'encoding {message.encoding[:32]!r} is not one of {known}')
    height, width, step = message.height, message.width, message.step
    if height == 0 or width == 0:
        raise InvalidInput(f'image is empty ({width}x{height})')
    dtype = np.dtype(('>' if message.is_bigendian else '<') + layout.dtype)
    row = width * layout.channels * dtype.itemsize
    if step < row:
        raise InvalidInput(f'step {step} is less than a row of {row} bytes ({message.encoding})')
    if len(message.data) != step * height:
        raise InvalidInput(
            f'data has {len(message.data)} bytes; step {step} x height {height} = {step * height}'
        )
    strides = (step, layout.channels * dtype.itemsize, dtype.itemsize)
    shape = (height, width, layout.channels)
    pixels: NDArray[Any] = np.ndarray(shape, dtype, memoryview(message.data), 0, strides)
    image = pixels[:, :, 0] if layout.channels == 1 else pixels
    if layout.to_rgb is not None:
        image = cv2.cvtColor(image, layout.to_rgb)
    if not (dtype.isnative and image.flags.aligned):
        image = image.astype(dtype.newbyteorder('='))
    return image, stamp_of(message.header, receipt_ns)


@register_input('image', CompressedImage)
def decode_compressed(
    message: CompressedImage, receipt_ns: int, modality: Modality[Any]
) -> tuple[Any, int]:
    """Decompress JPEG or PNG: ``[H, W]`` or ``uint8[H, W, 3]`` RGB."""
    data = np.frombuffer(message.data, np.uint8)
    if data.size == 0:
        raise InvalidInput('compressed image is empty')
    picture, size = essential_picture(data)
    # A file of a few bytes can promise any size, and it would be allocated.
    count = 0 if size is None else size[0] * size[1]
    if size is not None and count > MAX_PIXELS:
        raise InvalidInput(f'compressed image of {size[0]}x{size[1]} is larger than 8K')
    if size is not None and count > MAX_PIXELS_PER_BYTE * data.size:
        raise InvalidInput(
            f'compressed image claims {size[0]}x{size[1]} pixels in {data.size} bytes'
        )
    pixels = None if size is None else decode_apart(picture)
    if pixels is None:
        raise InvalidInput(
            f'compressed image of {data.size} bytes ({message.format[:32]!r}) is neither a'
            ' complete JPEG nor PNG'
        )
    image = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, _DECOMPRESSED[pixels.shape[2]])
    return image, stamp_of(message.header, receipt_ns)


def image_message(pixels: NDArray[Any], stamp_ns: int, frame_id: str = 'camera') -> Image:
    """
    Build an image message.

    :param pixels: ``uint8[H, W]`` grey, ``uint8[H, W, 3]`` RGB, ``uint16[H, W]`` or
        ``float32[H, W]``.
    """
    return _image(pixels, make_header(stamp_ns, frame_id))


def picture_message(picture: NDArray[Any], header: Header) -> Image:
    """
    Build an image message of something that was drawn.

    :param picture: ``uint8[H, W, 3]``, BGR.
    """
    message = _image(picture, header)
    message.encoding = 'bgr8'
    return message


def encode_float_image(modality: Modality[Any], array: NDArray[Any], header: Header) -> Image:
    """Encode model values as they are: 32FC1, channels beside each other if several."""
    planes = np.asarray(array, '<f4').reshape(-1, *array.shape[-2:])
    return _image(np.concatenate(list(planes), axis=1), header)


def _encode_image(modality: Modality[Any], array: NDArray[Any], header: Header) -> Image:
    return _image(modality.from_model(array), header)


def _image(pixels: NDArray[Any], header: Header) -> Image:
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    return Image(
        header=header,
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=_ENCODINGS[f'{pixels.dtype.kind}{pixels.dtype.itemsize}', channels],
        is_bigendian=0,
        step=pixels.shape[1] * channels * pixels.dtype.itemsize,
        data=as_bytes(pixels),
    )


register_output(
    'image',
    OutputCodec(_encode_image, Image, as_sensor(decode_image), encode_float_image, Image),
)
