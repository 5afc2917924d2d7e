"""Weights of large dense layers in 8 bits, as ONNX Runtime's ``MatMulNBits`` takes them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mm_perception.modalities.raw import Array

BITS, BLOCK = 8, 32
LARGE = 2**16
"""Layers with fewer weights stay in float32: they cost little, and latents pass through them."""
PREFIX = 'int8/'
"""Of the names of graphs whose large layers are in 8 bits."""
BLOCKS, SCALES = ':blocks', ':scales'
_MIDDLE = 2 ** (BITS - 1)


def quantize(weight: Array) -> tuple[np.ndarray, Array]:
    """
    Round a matrix to 8 bits, with a scale per output and block of :data:`BLOCK` inputs.

    :param weight: ``float32[N, K]``.
    :returns: ``uint8[N, B, BLOCK]`` around 128, the last block filled up, and scales
        ``float32[N, B]``, B being K over :data:`BLOCK`, rounded up.
    """
    outputs, inputs = weight.shape
    count = -(-inputs // BLOCK)
    filled = np.zeros((outputs, count * BLOCK), np.float32)
    filled[:, :inputs] = weight
    blocks = filled.reshape(outputs, count, BLOCK)
    scales = np.abs(blocks).max(axis=2) / np.float32(_MIDDLE - 1)
    steps = blocks / np.where(scales > 0.0, scales, 1.0)[:, :, None]
    return (np.rint(steps) + _MIDDLE).astype(np.uint8), scales


def with_quantized(weights: dict[str, Array], names: Iterable[str]) -> dict[str, Array]:
    """
    Add to weights what graphs in 8 bits need of them.

    :param names: of all that the graphs need.
    :raises KeyError: if a weight is missing.
    """
    made = dict(weights)
    for name in names:
        if name.endswith(BLOCKS):
            base = name.removesuffix(BLOCKS)
            made[name], made[base + SCALES] = quantize(weights[base])
    return made
