"""What of ONNX Runtime can run graphs: the CPU, CUDA, TensorRT."""

from __future__ import annotations

import functools
import hashlib
import importlib
import io
import os
from collections.abc import Iterable
from contextlib import redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from mm_perception.errors import EngineUnavailable
from mm_perception.inference.precision import BFLOAT16, FLOAT16

CPU, CUDA, TENSORRT = 'cpu', 'cuda', 'tensorrt'
NAMES = {
    CPU: 'CPUExecutionProvider',
    CUDA: 'CUDAExecutionProvider',
    TENSORRT: 'TensorrtExecutionProvider',
}
"""The names that ONNX Runtime has for providers."""
LABELS = {CUDA: 'CUDA', TENSORRT: 'TensorRT'}
_RUNTIME = "CUDA and cuDNN (pip install 'onnxruntime-gpu[cuda,cudnn]'"
_PACKAGES = {CUDA: f'{_RUNTIME})', TENSORRT: f"TensorRT 10, {_RUNTIME} 'tensorrt<11')"}
_SIXTEEN_BITS = {FLOAT16: 'trt_fp16_enable', BFLOAT16: 'trt_bf16_enable'}
_ONLY_FATAL = 4
# ONNX Runtime from PyPI reports to its makers, under an identifier that it keeps on the machine;
# a robot does not. It looks when it is imported; somebody who wants it sets 0.
os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')


def has_onnxruntime() -> bool:
    """Whether ONNX Runtime is installed."""
    return find_spec('onnxruntime') is not None


def has_provider(provider: str) -> bool:
    """Whether the installed ONNX Runtime was built for one of :data:`NAMES`."""
    import onnxruntime

    return NAMES[provider] in onnxruntime.get_available_providers()


def remedy(provider: str) -> str:
    """What to do if a provider cannot be loaded."""
    return (
        f'ONNX Runtime cannot load its {LABELS[provider]} provider; install {_PACKAGES[provider]}'
    )


def with_options(
    provider: str, precision: str, content: bytes, weights: Iterable[np.ndarray]
) -> list[tuple[str, dict[str, str]]]:
    """
    Providers that run one graph, the wanted one first, with their options.

    On a GPU float32 is not TF32.

    :param provider: one of :data:`NAMES`.
    :param precision: ``float32``, or with TensorRT ``float16`` or ``bfloat16``.
    :param content: of the graph, and its ``weights``: what TensorRT builds is kept for them
        in the user's cache folder.
    :raises EngineUnavailable: if that folder cannot be made.
    """
    if provider == CPU:
        return [(NAMES[CPU], {})]
    if provider == TENSORRT and precision not in _SIXTEEN_BITS:
        # The only switch that TensorRT has for TF32; read once, before anything is built.
        os.environ['NVIDIA_TF32_OVERRIDE'] = '0'
    _load_libraries(provider)
    cuda = NAMES[CUDA], {'use_tf32': '0'}
    if provider == CUDA:
        return [cuda]
    return [(NAMES[TENSORRT], _tensorrt_options(precision, content, weights)), cuda]


def _tensorrt_options(
    precision: str, content: bytes, weights: Iterable[np.ndarray]
) -> dict[str, str]:
    options: dict[str, str] = {
        'trt_engine_cache_enable': '1',
        'trt_engine_cache_path': str(_cache_folder(precision, content, weights)),
    }
    if precision in _SIXTEEN_BITS:
        options[_SIXTEEN_BITS[precision]] = '1'
    return options


def _cache_folder(precision: str, content: bytes, weights: Iterable[np.ndarray]) -> Path:
    """One per graph, weights, precision and versions: files in it are named by nodes alone."""
    digest = hashlib.sha256(content)
    digest.update(' '.join(map(_version, ('onnxruntime-gpu', 'tensorrt'))).encode())
    for array in weights:
        digest.update(np.ascontiguousarray(array).data)
    root = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    folder = Path(root, 'mm_perception', 'tensorrt', f'{digest.hexdigest()[:32]}-{precision}')
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EngineUnavailable(
            f'{folder}: cannot be made ({error.strerror}); name another cache folder in'
            ' XDG_CACHE_HOME'
        ) from error
    return folder


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # installed in another way
        return ''


@functools.cache
def _load_libraries(provider: str) -> None:
    """What pip installs of NVIDIA; what is missing is told in one line by a graph."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(_ONLY_FATAL)
    with redirect_stdout(io.StringIO()):
        onnxruntime.preload_dlls()
    if provider == TENSORRT and find_spec('tensorrt') is not None:
        importlib.import_module('tensorrt')  # loads its libraries
