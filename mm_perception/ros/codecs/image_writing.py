"""Images as the camera would have sent them: its size, encoding, step and compression."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

from mm_perception.ros.codecs.base import Draft, as_bytes, register_write
from mm_perception.ros.codecs.image import (
    COMPRESSED_DEPTH,
    DEPTH_HEAD,
    Layout,
    decode_image,
    encode_image,
    layout_of,
)
from mm_perception.ros.picture_process import essential_picture


@register_write('image', Image)
def _write_image(draft: Draft) -> Image:
    """An image of the size, encoding and step of the last one; around the crop it stays."""
    like, modality = draft.like, draft.modality
    if like is None:
        return encode_image(modality, draft.array, draft.header)
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


@register_write('image', CompressedImage)
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


def encode_pixels(pixels: NDArray[Any], encoding: str, step: int, big: bool) -> NDArray[Any]:
    """
    Lay pixels out as an encoding has them: the way back from what is read of an image.

    :param pixels: grey ``[H, W]`` or RGB ``[H, W, 3]`` in the numbers of the encoding; NaN is
        no return.
    :param step: bytes of a row, at least.
    :param big: whether numbers are big-endian.
    :returns: ``uint8[rows, step]``.
    """
    layout = layout_of(encoding)
    dtype = np.dtype(('>' if big else '<') + layout.dtype)
    if layout.to_rgb is not None or layout.channels > 1:
        pixels = _as_colour(pixels)
    elif pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    if dtype.kind == 'u' and pixels.dtype.kind == 'f':
        limit = np.iinfo(dtype).max
        pixels = np.clip(np.rint(np.nan_to_num(pixels, nan=0.0)), 0, limit).astype(
            f'u{dtype.itemsize}'
        )
    laid = _laid_out(pixels, encoding, layout)
    rows = np.ascontiguousarray(laid, dtype).view(np.uint8).reshape(len(laid), -1)
    padding = step - rows.shape[1]
    return np.pad(rows, ((0, 0), (0, padding))) if padding > 0 else rows


def _as_colour(pixels: NDArray[Any]) -> NDArray[Any]:
    return np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else pixels


def _laid_out(pixels: NDArray[Any], encoding: str, layout: Layout) -> NDArray[Any]:
    """Grey or RGB in the order of an encoding: ``[rows, W]`` or ``[rows, W, channels]``."""
    if encoding.startswith('bayer'):
        mosaic = np.empty_like(pixels[:, :, 0])
        for k, colour in enumerate(encoding[6:10]):
            row, column = divmod(k, 2)
            mosaic[row::2, column::2] = pixels[row::2, column::2, 'rgb'.index(colour)]
        return mosaic
    if layout.chroma_rows:
        return _with_chroma(pixels, encoding == 'nv21')
    if layout.channels == 2:
        code = layout.to_rgb == cv2.COLOR_YUV2RGB_UYVY
        return cv2.cvtColor(pixels, cv2.COLOR_RGB2YUV_UYVY if code else cv2.COLOR_RGB2YUV_YUY2)
    if layout.channels > 1 and layout.to_rgb in _BGR:
        pixels = pixels[:, :, ::-1]
    if layout.channels == 4:
        opaque = np.full_like(pixels[:, :, :1], np.iinfo(pixels.dtype).max)
        pixels = np.concatenate((pixels, opaque), axis=2)
    return pixels


_BGR = (cv2.COLOR_BGR2RGB, cv2.COLOR_BGRA2RGB)


def _with_chroma(pixels: NDArray[Any], swapped: bool) -> NDArray[Any]:
    """Brightness, then rows in which the two planes of colour alternate."""
    height, width = pixels.shape[:2]
    planes = cv2.cvtColor(pixels, cv2.COLOR_RGB2YUV_I420)
    chroma = planes[height:].reshape(2, height // 2, width // 2)
    pairs = np.stack(chroma[::-1] if swapped else chroma, axis=2).reshape(height // 2, width)
    return np.concatenate((planes[:height], pairs))
