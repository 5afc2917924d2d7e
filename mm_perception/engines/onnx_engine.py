"""The fast engines: ONNX graphs of a bundle on ONNX Runtime, without torch."""

from __future__ import annotations

import functools
import hashlib
import importlib
import io
import os
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mm_perception.bundle import CLASSIFIERS, WEIGHTS, Bundle, Graphs
from mm_perception.engines.engine import BFLOAT16, FLOAT16, FLOAT32, INT8
from mm_perception.engines.graph_check import check_graph
from mm_perception.errors import BundleError, EngineUnavailable, NothingObserved
from mm_perception.modalities.base import Array

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
    provider: str, precision: str, content: bytes, weights: Iterable[NDArray[Any]]
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
    precision: str, content: bytes, weights: Iterable[NDArray[Any]]
) -> dict[str, str]:
    options: dict[str, str] = {
        'trt_engine_cache_enable': '1',
        'trt_engine_cache_path': str(_cache_folder(precision, content, weights)),
    }
    if precision in _SIXTEEN_BITS:
        options[_SIXTEEN_BITS[precision]] = '1'
    return options


def _cache_folder(precision: str, content: bytes, weights: Iterable[NDArray[Any]]) -> Path:
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


EIGHT_BITS = 'int8.'
"""Begins the names of graphs whose large layers are in 8 bits."""
EXPORT = 'run mm-perception export'
SMALL_MODEL_THREADS = 2
_ONLY_ERRORS = 3
_pool_threads: int | None = None


def graphs_of(bundle: Bundle) -> Graphs:
    """
    The graphs of a bundle.

    :raises BundleError: if it has none.
    """
    if bundle.graphs is None:
        raise BundleError(no_graphs(bundle))
    return bundle.graphs


def no_graphs(bundle: Bundle) -> str:
    """The line that says what to do about a bundle without graphs."""
    return f'{bundle.path}: has no ONNX graphs; {EXPORT} {bundle.path}'


class Graph:
    """
    One graph, ready to run.

    :param bundle: that it is of. ONNX Runtime opens none of its files: what runs is what was
        read, and its hash checked, when the bundle was loaded.
    :param name: of the graph.
    :param threads: of the processor; 0 for what suits small models. More than one are shared
        by all graphs of the process, which have to agree on the number.
    :param provider: ``cpu``, ``cuda`` or ``tensorrt``.
    :param precision: see :func:`with_options`.
    :raises BundleError: if the graph is broken or does not fit the weights.
    :raises EngineUnavailable: if the provider does not work here, or graphs of this process use
        another number of threads.
    """

    def __init__(
        self,
        bundle: Bundle,
        name: str,
        threads: int = 0,
        provider: str = CPU,
        precision: str = FLOAT32,
    ) -> None:
        import onnxruntime

        where = f'{bundle.path}: graph {name}'
        content = graphs_of(bundle).content[name]
        weights, file = bundle.weights, WEIGHTS
        if name.startswith('classify.'):
            weights, file = bundle.classifiers, CLASSIFIERS
        try:
            needed = check_graph(content, file, weights)
        except ValueError as error:
            raise BundleError(f'{where}: {error}; not one of this package') from error
        arrays = [np.ascontiguousarray(weights[key]) for key in needed]
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in arrays]
        options = session_options(threads)
        options.add_external_initializers(needed, values)
        providers = with_options(provider, precision, content, arrays)
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers, enable_fallback=0
            )
        except _failures() as error:
            reason = ' '.join(str(error).split())[:200]
            if provider != CPU:
                raise EngineUnavailable(f'{remedy(provider)} ({reason})') from error
            raise BundleError(f'{where}: does not fit the weights: {reason}') from error
        if self._session.get_providers()[0] != NAMES[provider]:  # on another one, in silence
            raise EngineUnavailable(remedy(provider))
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> list[Array]:
        """Outputs for a batch of inputs."""
        outputs: list[Array] = self._session.run(self._outputs, inputs)
        return outputs


def session_options(threads: int) -> Any:
    """
    Options of a session of ONNX Runtime.

    Several threads are one pool for all sessions: pools of their own would spin on and on.

    :param threads: how many; 0 for as many as help.
    """
    import onnxruntime

    threads = threads or min(SMALL_MODEL_THREADS, len(os.sched_getaffinity(0)))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ONLY_ERRORS
    # Else bytes that look like its own format too would be taken for that, unchecked.
    options.add_session_config_entry('session.load_model_format', 'ONNX')
    if threads > 1:
        _share_pool(threads)
    if _pool_threads is not None:  # then no session may have threads of its own, not even one
        options.use_per_session_threads = False
    else:
        options.intra_op_num_threads = options.inter_op_num_threads = 1
    return options


def _share_pool(threads: int) -> None:
    import onnxruntime

    global _pool_threads
    if _pool_threads is None:
        onnxruntime.set_global_thread_pool_sizes(threads, 1)
        _pool_threads = threads
    elif _pool_threads != threads:
        raise EngineUnavailable(
            f'engine onnx: {threads} threads asked for, but this process began with'
            f' {_pool_threads}; use that number, or another process'
        )


def _failures() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ('Fail', 'InvalidArgument', 'InvalidGraph', 'InvalidProtobuf', 'NotImplemented')
    return (*(getattr(state, name) for name in names), state.RuntimeException, RuntimeError)


class OnnxEngine:
    """
    The graphs of a bundle on ONNX Runtime.

    :param provider: of ONNX Runtime, ``cpu``, ``cuda`` or ``tensorrt``; and ``threads``,
        ``precision``: see :class:`~mm_perception.engines.onnx_engine.Graph`.
    :param reason: why this engine and device.
    :raises BundleError: if the bundle has no graphs, or broken ones.
    :raises EngineUnavailable: if the provider does not work here.
    """

    def __init__(
        self,
        bundle: Bundle,
        provider: str = CPU,
        threads: int = 0,
        precision: str = FLOAT32,
        reason: str = '',
    ) -> None:
        graphs = graphs_of(bundle)
        names = {
            name: EIGHT_BITS + name
            if precision == INT8 and EIGHT_BITS + name in graphs.content
            else name
            for name in graphs.content
            if not name.startswith(('classify.', EIGHT_BITS))
        }
        self.name = TENSORRT if provider == TENSORRT else 'onnx'
        self.device = CPU if provider == CPU else CUDA
        self.precision = precision
        self.reason = reason
        self._graphs = {
            name: Graph(bundle, graph, threads, provider, precision)
            for name, graph in names.items()
        }
        self.fuses, self.draws, self.own_latents = graphs.fuses, graphs.draws, graphs.own_latents
        self.noise_dims, self.code_dims = dict(graphs.noise_dims), dict(graphs.code_dims)

    def encode(self, name: str, data: Array) -> Array:
        """Code of a modality, see :class:`Engine`."""
        return self._graphs[f'encode.{name}']({'data': np.asarray(data, np.float32)})[0]

    def fuse(self, codes: Mapping[str, Array], present: NDArray[Any]) -> tuple[Array, Array]:
        """Mean and standard deviation of the joint posterior, see :class:`Engine`."""
        if not present.any(axis=1).all():
            raise NothingObserved('no modality is present; at least one is needed to fuse')
        mean, std = self._graphs['fuse']({'present': present, **codes})
        return mean, std

    def fuse_sample(self, codes: Mapping[str, Array], present: NDArray[Any], seed: int) -> Array:
        """
        Not offered.

        :raises EngineUnavailable: always.
        """
        raise EngineUnavailable(
            f'engine {self.name}: draws no samples of a posterior; use engine torch'
        )

    def decode(self, name: str, joint: Array) -> Array:
        """Expected data of one modality, see :class:`Engine`."""
        size = self.noise_dims.get(name)
        noise = None if size is None else np.zeros((len(joint), size), np.float32)
        return self._decode(name, joint, noise)

    def decode_sample(self, name: str, joint: Array, seed: int) -> Array:
        """
        Sample of the data of one modality, see :class:`Engine`.

        :raises EngineUnavailable: for families that sample below the joint latent otherwise.
        """
        if not self.draws:
            raise EngineUnavailable(
                f'engine {self.name}: draws no samples of this family; use engine torch'
            )
        size = self.noise_dims.get(name)
        shape = len(joint), size or 0
        noise = np.random.default_rng(seed).standard_normal(shape, np.float32)
        return self._decode(name, joint, noise if size else None)

    def _decode(self, name: str, joint: Array, noise: Array | None) -> Array:
        inputs = {'joint': np.asarray(joint, np.float32)}
        if noise is not None:
            inputs['noise'] = noise
        return self._graphs[f'decode.{name}'](inputs)[0]
