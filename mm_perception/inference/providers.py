"""What of ONNX Runtime can run graphs: the CPU, CUDA, TensorRT."""

from __future__ import annotations

import functools
import io
import os
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path

PROVIDERS = {
    'cpu': 'CPUExecutionProvider',
    'cuda': 'CUDAExecutionProvider',
    'tensorrt': 'TensorrtExecutionProvider',
}
"""By the names that ONNX Runtime has for them."""
_NEEDS = {
    'cuda': 'CUDA and cuDNN (pip install onnxruntime-gpu[cuda,cudnn])',
    'tensorrt': 'TensorRT (pip install tensorrt)',
}
_ONLY_FATAL = 4


def has_onnxruntime() -> bool:
    """Whether ONNX Runtime is installed."""
    return find_spec('onnxruntime') is not None


def has_provider(name: str) -> bool:
    """Whether the installed ONNX Runtime was built with one of :data:`PROVIDERS`."""
    import onnxruntime

    return PROVIDERS[name] in onnxruntime.get_available_providers()


def remedy(name: str) -> str:
    """What to do about a provider that is there but cannot be loaded."""
    return f'ONNX Runtime cannot load its {name} provider; install {_NEEDS[name]}'


def with_options(name: str, key: str) -> list[tuple[str, dict[str, str]]]:
    """
    The provider that runs a graph, and the one that takes what it leaves, with their options.

    :param name: of :data:`PROVIDERS`.
    :param key: names what TensorRT builds, which takes it minutes, in the user's cache folder.
    """
    if name == 'cpu':
        return [(PROVIDERS['cpu'], {})]
    _load_libraries()
    cuda = PROVIDERS['cuda'], {'use_tf32': '0'}
    if name == 'cuda':
        return [cuda]
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    built = str(cache / 'mm_perception' / 'tensorrt' / key)
    options = {'trt_engine_cache_enable': '1', 'trt_engine_cache_path': built}
    return [(PROVIDERS['tensorrt'], options), cuda]


@functools.cache
def _load_libraries() -> None:
    """CUDA and cuDNN as pip installs them; what is missing is told in one line by a graph."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(_ONLY_FATAL)
    with redirect_stdout(io.StringIO()):
        onnxruntime.preload_dlls()
