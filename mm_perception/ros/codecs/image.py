"""Camera images."""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from mm_perception.errors import InvalidInput
from mm_perception.modalities import Modality
from mm_perception.ros.codecs.base import (
    Draft,
    OutputCodec,
    as_bytes,
    as_sensor,
    make_header,
    register_input,
    register_output,
    stamp_of,
)
from mm_perception.ros.codecs.encodings import (
    DEPTH,
    as_native,
    encode_pixels,
    layout_of,
    view_pixels,
)
from mm_perception.ros.picture_process import decode_apart, essential_picture

DECODED_APART = (CompressedImage,)
"""Messages that another process reads, in a thread of their own: others do not wait for it."""
MAX_PIXELS = 40_000_000
MAX_PIXELS_PER_BYTE = 10_000  # more than PNG and JPEG can compress


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


def _write_image(draft: Draft) -> Image:
    """An image of the size, encoding and step of the last one; around the crop it stays."""
    like, modality = draft.like, draft.modality
    if like is None:
        return _encode_image(modality, draft.array, draft.header)
    frame, _ = decode_image(like, 1, modality)
    pixels = modality.paint(frame, draft.array)
    rows = encode_pixels(pixels, like.encoding, like.step, bool(like.is_bigendian))
    return Image(
        header=draft.stamped(),
        height=like.height,
        width=like.width,
        encoding=like.encoding,
        is_bigendian=like.is_bigendian,
        step=rows.shape[1],
        data=as_bytes(rows),
    )


@register_input('image', Image, write=_write_image)
def decode_image(message: Image, receipt_ns: int, modality: Modality[Any]) -> tuple[Any, int]:
    """
    View the pixels, copied only if the layout asks for it: ``[H, W]`` or RGB ``[H, W, 3]``.

    Depth in whole units becomes ``float32[H, W]`` with NaN for what did not come back, where the
    modality tells its unit by ``full_scale``.
    """
    layout = layout_of(message.encoding)
    image = view_pixels(message, layout)
    if layout.to_rgb is not None:
        image = cv2.cvtColor(as_native(image), layout.to_rgb)
    if message.encoding == DEPTH:
        return _depth(as_native(image), modality), stamp_of(message.header, receipt_ns)
    return as_native(image), stamp_of(message.header, receipt_ns)


def _depth(image: NDArray[Any], modality: Modality[Any]) -> NDArray[Any]:
    return mark_no_return(image) if modality.options.full_scale != 1.0 else image


def _write_compressed(draft: Draft) -> CompressedImage:
    """
    A JPEG or PNG as the last one was, of its size; around the crop it is grey.

    The last picture is not decoded again, so that the ticks wait for no other process.
    """
    like, modality = draft.like, draft.modality
    if like is None:
        pixels, form = modality.from_model(draft.array), 'rgb8; jpeg compressed bgr8'
    else:
        form = like.format
        head = DEPTH_HEAD.size if COMPRESSED_DEPTH in form else 0
        _, size = essential_picture(np.frombuffer(like.data, np.uint8)[head:])
        width, height = size or (modality.options.width, modality.options.height)
        if head:
            frame = np.full((height, width), np.nan, np.float32)
            return _compress_depth(like, draft, modality.paint(frame, draft.array))
        grey = 'mono' in form and modality.options.channels == 1
        frame = np.full((height, width) if grey else (height, width, 3), 128, np.uint8)
        pixels = modality.paint(frame, draft.array)
    if pixels.ndim == 3 and 'compressed rgb' not in form:
        pixels = pixels[:, :, ::-1]
    _, data = cv2.imencode('.png' if 'png' in form else '.jpg', pixels)
    return CompressedImage(header=draft.stamped(), format=form, data=as_bytes(data))


@register_input('image', CompressedImage, write=_write_compressed)
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


def _compress_depth(like: CompressedImage, draft: Draft, depth: NDArray[Any]) -> CompressedImage:
    """The way back from :func:`_decompress_depth`, with the head of the last message."""
    head = bytes(like.data[: DEPTH_HEAD.size])
    _, a, b = DEPTH_HEAD.unpack(head)
    with np.errstate(all='ignore'):
        values = (
            np.float32(a) / depth + np.float32(b) if like.format.startswith('32FC1') else depth
        )
    whole = np.clip(np.rint(np.nan_to_num(values, nan=0.0, posinf=0.0)), 0, 65535)
    _, picture = cv2.imencode('.png', whole.astype(np.uint16))
    data = as_bytes(np.concatenate((np.frombuffer(head, np.uint8), picture.reshape(-1))))
    return CompressedImage(header=draft.stamped(), format=like.format, data=data)


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
