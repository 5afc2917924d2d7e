"""What of ONNX Runtime can run graphs: the CPU, CUDA."""

from __future__ import annotations

import functools
import io
from contextlib import redirect_stdout
from importlib.util import find_spec

PROVIDERS = {'cpu': 'CPUExecutionProvider', 'cuda': 'CUDAExecutionProvider'}
"""By device, the names that ONNX Runtime has for them."""
REMEDY = (
    'ONNX Runtime cannot load its CUDA provider; install CUDA and cuDNN'
    ' (pip install onnxruntime-gpu[cuda,cudnn])'
)
_ONLY_FATAL = 4


def has_onnxruntime() -> bool:
    """Whether ONNX Runtime is installed."""
    return find_spec('onnxruntime') is not None


def has_provider(device: str) -> bool:
    """Whether the installed ONNX Runtime was built for ``cpu`` or ``cuda``."""
    import onnxruntime

    return PROVIDERS[device] in onnxruntime.get_available_providers()


def with_options(device: str) -> list[tuple[str, dict[str, str]]]:
    """Give the provider of a device, with its options; on a GPU float32 is float32."""
    if device == 'cpu':
        return [(PROVIDERS['cpu'], {})]
    _load_libraries()
    return [(PROVIDERS['cuda'], {'use_tf32': '0'})]


@functools.cache
def _load_libraries() -> None:
    """CUDA and cuDNN as pip installs them; what is missing is told in one line by a graph."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(_ONLY_FATAL)
    with redirect_stdout(io.StringIO()):
        onnxruntime.preload_dlls()
