"""Why an engine cannot run here, if so."""

from __future__ import annotations

import ctypes

from mm_perception.bundle import Bundle
from mm_perception.inference.graphs import EXPORT, no_graphs
from mm_perception.inference.precision import FLOAT32, INT8, SIXTEEN_BITS
from mm_perception.inference.providers import (
    CPU,
    CUDA,
    LABELS,
    TENSORRT,
    has_onnxruntime,
    has_provider,
)
from mm_perception.inference.quantization import PREFIX

ONNX, TORCH = 'onnx', 'torch'
_SIXTEEN_BITS_TOO = (FLOAT32, *SIXTEEN_BITS)
_PRECISIONS = {
    (ONNX, CPU): (FLOAT32, INT8),
    (ONNX, CUDA): (FLOAT32,),
    (TORCH, CPU): _SIXTEEN_BITS_TOO,
    (TORCH, CUDA): _SIXTEEN_BITS_TOO,
    (TENSORRT, CUDA): _SIXTEEN_BITS_TOO,
}
NO_GPU = 'no CUDA GPU is usable here'


def obstacle(bundle: Bundle, kind: str, device: str, precision: str) -> str:
    """
    Why an engine cannot run on a device, as far as that is known before it is built.

    :returns: one line; empty if it can.
    """
    if device == CUDA and not has_driver():
        return NO_GPU
    offered = _PRECISIONS[kind, device]
    if precision not in offered:
        return f'{kind} on {device} computes in {" or ".join(offered)}, not {precision}'
    if kind == TORCH:
        return _torch_obstacle(device)
    found = _onnx_obstacle(bundle, TENSORRT if kind == TENSORRT else device)
    if not found and precision == INT8 and not any(n.startswith(PREFIX) for n in bundle.graphs):
        return (
            f'{bundle.path}: has no graph with a large layer in 8 bits; for a bundle from before'
            f' there were, {EXPORT} {bundle.path}'
        )
    return found


def has_driver() -> bool:
    """Whether NVIDIA's driver is there; asking torch would load it in vain on most robots."""
    try:
        ctypes.CDLL('libcuda.so.1')
    except OSError:
        return False
    return True


def _onnx_obstacle(bundle: Bundle, provider: str) -> str:
    if not has_onnxruntime():
        return 'onnxruntime is not installed; pip install onnxruntime'
    if provider != CPU and not has_provider(provider):
        return f'this ONNX Runtime has no {LABELS[provider]} provider; pip install onnxruntime-gpu'
    return '' if bundle.graphs else no_graphs(bundle)


def _torch_obstacle(device: str) -> str:
    try:
        import torch
    except ImportError:
        return 'torch is not installed; pip install torch'
    return NO_GPU if device == CUDA and not torch.cuda.is_available() else ''
