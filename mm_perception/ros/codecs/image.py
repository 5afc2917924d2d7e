"""Camera images."""

from __future__ import annotations

import struct
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
class Layout:
    """
    How one encoding lies in memory.

    :param dtype: of one element, without its byte order.
    :param channels: elements per pixel of a row.
    :param to_rgb: OpenCV's conversion to RGB; None: grey or RGB as it is.
    :param chroma_rows: a second plane of colour follows, of half as many rows.
    :param even: width and height (or, of packed pixels, width) come in pairs.
    """

    dtype: str
    channels: int = 1
    to_rgb: int | None = None
    chroma_rows: bool = False
    even: bool = False


# The order of channels without a name is that of OpenCV, as for cv_bridge.
LAYOUTS = {
    'mono8': Layout('u1'),
    '8UC1': Layout('u1'),
    'rgb8': Layout('u1', 3),
    'bgr8': Layout('u1', 3, cv2.COLOR_BGR2RGB),
    '8UC3': Layout('u1', 3, cv2.COLOR_BGR2RGB),
    'rgba8': Layout('u1', 4, cv2.COLOR_RGBA2RGB),
    'bgra8': Layout('u1', 4, cv2.COLOR_BGRA2RGB),
    '8UC4': Layout('u1', 4, cv2.COLOR_BGRA2RGB),
    'mono16': Layout('u2'),
    '16UC1': Layout('u2'),
    'rgb16': Layout('u2', 3),
    'bgr16': Layout('u2', 3, cv2.COLOR_BGR2RGB),
    'rgba16': Layout('u2', 4, cv2.COLOR_RGBA2RGB),
    'bgra16': Layout('u2', 4, cv2.COLOR_BGRA2RGB),
    '16UC3': Layout('u2', 3, cv2.COLOR_BGR2RGB),
    '16UC4': Layout('u2', 4, cv2.COLOR_BGRA2RGB),
    '32FC1': Layout('f4'),
    '32FC3': Layout('f4', 3, cv2.COLOR_BGR2RGB),
    'yuv422': Layout('u1', 2, cv2.COLOR_YUV2RGB_UYVY, even=True),
    'uyvy': Layout('u1', 2, cv2.COLOR_YUV2RGB_UYVY, even=True),
    'yuv422_yuy2': Layout('u1', 2, cv2.COLOR_YUV2RGB_YUY2, even=True),
    'yuyv': Layout('u1', 2, cv2.COLOR_YUV2RGB_YUY2, even=True),
    'nv12': Layout('u1', 1, cv2.COLOR_YUV2RGB_NV12, chroma_rows=True, even=True),
    'nv21': Layout('u1', 1, cv2.COLOR_YUV2RGB_NV21, chroma_rows=True, even=True),
    **{
        f'bayer_{order.lower()}{8 * size}': Layout(
            f'u{size}', 1, getattr(cv2, f'COLOR_Bayer{order}2RGB'), even=True
        )
        for order in ('RGGB', 'BGGR', 'GBRG', 'GRBG')
        for size in (1, 2)
    },
}
DEPTH = '16UC1'
"""Depth in whole units (REP 118): 0 is no return."""


def layout_of(encoding: str) -> Layout:
    """
    Find the layout of an encoding.

    :raises InvalidInput: if it is not in the table.
    """
    layout = LAYOUTS.get(encoding)
    if layout is None:
        raise InvalidInput(f'encoding {encoding[:32]!r} is not one of {", ".join(LAYOUTS)}')
    return layout


def check_even(encoding: str, layout: Layout, width: int, rows: int) -> None:
    """
    Check that pixels which share colour come in pairs.

    :raises InvalidInput: if one is left over.
    """
    if layout.even and (width % 2 or (layout.channels == 1 and rows % 2)):
        raise InvalidInput(f'{encoding} image of {width}x{rows}: pixels come in pairs')


def mark_no_return(image: NDArray[Any]) -> NDArray[Any]:
    """
    Depth in whole units as numbers that can be missing.

    :param image: ``uint16[H, W]``, 0 where nothing came back.
    :returns: ``float32[H, W]``, NaN there.
    """
    depth = image.astype(np.float32)
    depth[image == 0] = np.nan
    return depth


# By channels, and whether RGB was taken for BGR when it was compressed.
_AS_RGB = {
    (3, False): cv2.COLOR_BGR2RGB,
    (4, False): cv2.COLOR_BGRA2RGB,
    (4, True): cv2.COLOR_RGBA2RGB,
}
_ENCODINGS = {('u1', 1): 'mono8', ('u1', 3): 'rgb8', ('u2', 1): '16UC1', ('f4', 1): '32FC1'}


@register_input('image', Image)
def decode_image(message: Image, receipt_ns: int, modality: Modality[Any]) -> tuple[Any, int]:
    """
    View the pixels, copied only if the layout asks for it: ``[H, W]`` or RGB ``[H, W, 3]``.

    Depth in whole units becomes ``float32[H, W]`` with NaN for what did not come back, where the
    modality tells its unit by ``full_scale``.
    """
    layout = layout_of(message.encoding)
    image = _view(message, layout)
    if layout.to_rgb is not None:
        image = cv2.cvtColor(_native(image), layout.to_rgb)
    if message.encoding == DEPTH:
        return _depth(_native(image), modality), stamp_of(message.header, receipt_ns)
    return _native(image), stamp_of(message.header, receipt_ns)


def _view(message: Image, layout: Layout) -> NDArray[Any]:
    """Rows as they lie in the message: ``[rows, W]`` or ``[rows, W, channels]``."""
    height, width, step = message.height, message.width, message.step
    if height == 0 or width == 0:
        raise InvalidInput(f'image is empty ({width}x{height})')
    dtype = np.dtype(('>' if message.is_bigendian else '<') + layout.dtype)
    row = width * layout.channels * dtype.itemsize
    if step < row:
        raise InvalidInput(f'step {step} is less than a row of {row} bytes ({message.encoding})')
    rows = height * 3 // 2 if layout.chroma_rows else height
    check_even(message.encoding, layout, width, height)
    if len(message.data) != step * rows:
        raise InvalidInput(
            f'data has {len(message.data)} bytes; step {step} x {rows} rows = {step * rows}'
        )
    strides = (step, layout.channels * dtype.itemsize, dtype.itemsize)
    shape = (rows, width, layout.channels)
    pixels: NDArray[Any] = np.ndarray(shape, dtype, memoryview(message.data), 0, strides)
    return pixels[:, :, 0] if layout.channels == 1 else pixels


def _native(image: NDArray[Any]) -> NDArray[Any]:
    """Numbers as this machine has them."""
    if image.dtype.isnative and image.flags.aligned:
        return image
    return image.astype(image.dtype.newbyteorder('='))


def _depth(image: NDArray[Any], modality: Modality[Any]) -> NDArray[Any]:
    return mark_no_return(image) if modality.options.full_scale != 1.0 else image


@register_input('image', CompressedImage)
def decode_compressed(
    message: CompressedImage, receipt_ns: int, modality: Modality[Any]
) -> tuple[Any, int]:
    """
    Decompress JPEG or PNG: ``[H, W]`` or RGB ``[H, W, 3]``; of compressedDepth the depth.

    Channels lie in a file in its own order, unless ``format`` says ``compressed rgb8``: then what
    was compressed was taken for BGR, as image_transport defines it.
    """
    stamp_ns = stamp_of(message.header, receipt_ns)
    if COMPRESSED_DEPTH in message.format:
        return _decompress_depth(message, modality), stamp_ns
    pixels = _decompress(np.frombuffer(message.data, np.uint8), message.format)
    if pixels.ndim == 2:
        return pixels, stamp_ns
    conversion = _AS_RGB.get((pixels.shape[2], 'compressed rgb' in message.format))
    return pixels if conversion is None else cv2.cvtColor(pixels, conversion), stamp_ns


def _decompress(data: NDArray[Any], form: str) -> NDArray[Any]:
    """What OpenCV makes of a JPEG or PNG: ``[H, W]``, BGR or BGRA."""
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
            f'compressed image of {data.size} bytes ({form[:32]!r}) is neither a'
            ' complete JPEG nor PNG'
        )
    return np.asarray(pixels)


COMPRESSED_DEPTH = 'compressedDepth'
DEPTH_HEAD = struct.Struct('<iff')


def _decompress_depth(message: CompressedImage, modality: Modality[Any]) -> NDArray[Any]:
    """
    Depth of compressed_depth_image_transport: a head of 12 bytes, then a PNG of 16 bits.

    Of 32FC1 the PNG holds quantised inverse depth: depth = a / (value - b), 0 for no return.
    """
    data = np.frombuffer(message.data, np.uint8)
    if len(data) <= DEPTH_HEAD.size:
        raise InvalidInput(f'compressedDepth has {len(data)} bytes; a head has {DEPTH_HEAD.size}')
    if ' rvl' in message.format:
        raise InvalidInput('compressedDepth is rvl; set the format of its publisher to png')
    pixels = _decompress(data[DEPTH_HEAD.size :], message.format)
    if pixels.dtype != np.uint16 or pixels.ndim != 2:
        raise InvalidInput(f'compressedDepth holds {pixels.dtype}{pixels.shape}; expected 16 bits')
    if not message.format.startswith('32FC1'):
        return _depth(pixels, modality)
    _, a, b = DEPTH_HEAD.unpack(data[: DEPTH_HEAD.size].tobytes())
    with np.errstate(all='ignore'):
        depth = np.float32(a) / (pixels.astype(np.float32) - np.float32(b))
    return np.where((pixels > 0) & (depth > 0), depth, np.float32(np.nan))


def image_message(pixels: NDArray[Any], stamp_ns: int, frame_id: str = 'camera') -> Image:
    """
    Build an image message.

    :param pixels: ``uint8[H, W]`` grey, ``uint8[H, W, 3]`` RGB, ``uint16[H, W]`` or
        ``float32[H, W]``.
    """
    return _image(pixels, make_header(stamp_ns, frame_id))


def compressed_message(
    pixels: NDArray[Any], stamp_ns: int, frame_id: str = 'camera'
) -> CompressedImage:
    """
    Build a compressed image message, as a PNG.

    :param pixels: ``uint8[H, W]`` grey or ``uint8[H, W, 3]`` RGB.
    """
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    _, data = cv2.imencode('.png', pixels[..., ::-1] if colour else pixels)
    name = 'rgb8; png compressed bgr8' if colour else 'mono8; png compressed '
    return CompressedImage(
        header=make_header(stamp_ns, frame_id), format=name, data=as_bytes(data)
    )


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


def _encode_std(modality: Modality[Any], std: NDArray[Any], header: Header) -> Image:
    """In the unit of the sensor: levels of 255, or that of full_scale."""
    full = modality.options.full_scale
    return encode_float_image(modality, std * (255.0 if full == 1.0 else full), header)


def encode_image(modality: Modality[Any], array: NDArray[Any], header: Header) -> Image:
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
    OutputCodec(encode_image, Image, as_sensor(decode_image), _encode_std, Image),
)
