"""The choice of an engine: availability, parity with float32 on the CPU, construction."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from mm_perception.bundle import Bundle
from mm_perception.engines.engine import BOUNDS, FLOAT32, INT8, SIXTEEN_BITS, Engine
from mm_perception.engines.onnx_engine import (
    CPU,
    CUDA,
    EXPORT,
    LABELS,
    PREFIX,
    TENSORRT,
    has_onnxruntime,
    has_provider,
    no_graphs,
)
from mm_perception.errors import EngineUnavailable, MMPerceptionError
from mm_perception.modalities import build_modality
from mm_perception.modalities.base import Array
from mm_perception.spec import DEVICES, ENGINES, PRECISIONS, ModelSpec

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


def why_unavailable(bundle: Bundle, kind: str, device: str, precision: str) -> str:
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


@contextmanager
def refused(what: str) -> Iterator[None]:
    """Turn whatever a driver or a library raises into one line: another engine may work."""
    try:
        yield
    except MMPerceptionError:
        raise
    except Exception as error:
        reason = ' '.join(str(error).split()) or repr(error)
        raise EngineUnavailable(f'{what}: {reason[:200]}') from error


def check_parity(engine: Engine, reference: Engine, spec: ModelSpec) -> str:
    """
    Run an engine once, and compare what it gives.

    :param reference: the same bundle in float32 on the CPU.
    :returns: the difference, in words.
    :raises EngineUnavailable: if the engine fails, or differs by more than its bound.
    """
    where = f'{engine.name} on {engine.device}, {engine.precision}'
    bound = BOUNDS[engine.precision]
    with refused(f'{where}: fails at its first call'):
        found = difference(engine, reference, spec)
    if not found <= bound:  # nor if it is not a number
        raise EngineUnavailable(
            f'{where}: differs by {found:.2g} from float32 on the CPU; {bound:g} is allowed'
        )
    return f'{engine.precision}, differs by {found:.1g} from float32 on the CPU'


def difference(engine: Engine, reference: Engine, spec: ModelSpec) -> float:
    """
    How far two engines of one bundle are apart on random data.

    :returns: the largest root mean square, over the numbers of one output, of differences of
        the joint mean and std, in units of the std, and of generated data, in its own units
        (0..1), given each modality alone and all of them.
    """
    random = np.random.default_rng(0)
    data = {
        m.name: random.random((1, *build_modality(m).shape), np.float32) for m in spec.modalities
    }
    errors: list[Array] = []
    for ours, theirs in zip(_outputs(engine, data), _outputs(reference, data)):
        std = theirs[1]
        scales = [std, std, *(np.ones(1, np.float32) for _ in data)]
        errors += [(a - b) / scale for a, b, scale in zip(ours, theirs, scales)]
    return float(np.max([np.sqrt(np.mean(np.square(error))) for error in errors]))


def _outputs(engine: Engine, data: Mapping[str, Array]) -> Iterator[list[Array]]:
    """Given each modality alone, and all."""
    codes = {name: engine.encode(name, value) for name, value in data.items()}
    for present in (*np.eye(len(data), dtype=bool), np.ones(len(data), bool)):
        mean, std = engine.fuse(codes, present[None])
        yield [mean, std, *(engine.decode(name, mean) for name in data)]


AUTO = 'auto'
_FASTEST_FIRST = ((TORCH, CUDA), (ONNX, CUDA), (ONNX, CPU), (TORCH, CPU))
_ONLY_ASKED_FOR = ((TENSORRT, CUDA),)  # builds for minutes


def build_engine(
    bundle: Bundle,
    device: str = AUTO,
    engine: str = AUTO,
    threads: int = 0,
    precision: str = FLOAT32,
) -> Engine:
    """
    Build the fastest engine that is there, or the one asked for.

    Any but float32 on the CPU is compared with that before it is given out.

    :param device: ``auto`` (CUDA where it is, else the CPU), ``cpu`` or ``cuda``.
    :param engine: ``auto``, ``onnx``, ``torch``, or ``tensorrt``, which ``auto`` never takes.
    :param threads: of the processor, for one call; 0 for what suits small models.
    :param precision: of matrix products and convolutions: ``float32``, ``float16`` or
        ``bfloat16``; or ``int8`` for large dense layers.
    :raises EngineUnavailable: if the device or the engine is not there, or not that precise.
    :raises BundleError: if the bundle's weights do not fit its spec.
    """
    _check('device', device, DEVICES)
    _check('engine', engine, ENGINES)
    _check('precision', precision, PRECISIONS)
    obstacles: list[str] = []
    for kind, where in _ONLY_ASKED_FOR if engine == TENSORRT else _FASTEST_FIRST:
        if engine in (AUTO, kind) and device in (AUTO, where):
            choice = _Choice(kind, where, threads, precision)
            found = why_unavailable(bundle, kind, where, precision)
            if not found and device == AUTO and where == CPU and precision in SIXTEEN_BITS:
                found = f'on a CPU {precision} is no faster: only with device cpu'
            if not found:
                reason = '; '.join(dict.fromkeys(obstacles)) or 'the fastest allowed'
                try:
                    return _build(bundle, choice, f'{kind} on {where}: {reason}')
                except EngineUnavailable as error:
                    found = str(error)
            obstacles.append(found)
    reasons = '; '.join(dict.fromkeys(obstacles)) or 'it does not run there'
    raise EngineUnavailable(f'engine {engine} on device {device}: {reasons}')


def reference_engine(bundle: Bundle, device: str = AUTO) -> Engine:
    """
    Build the engine that evaluation uses: eager torch, with samples, on all its threads.

    :raises EngineUnavailable: if the device is not there.
    """
    import torch

    from mm_perception.engines.torch_engine import TorchEngine

    return TorchEngine(bundle, device, torch.get_num_threads(), reason='the reference', eager=True)


class _Choice(NamedTuple):
    kind: str
    device: str
    threads: int
    precision: str


def _check(what: str, asked: str, known: tuple[str, ...]) -> None:
    if asked not in known:
        raise EngineUnavailable(f'unknown {what} "{asked}"; known: {", ".join(known)}')


def _build(bundle: Bundle, choice: _Choice, reason: str) -> Engine:
    if choice.device == CPU and choice.precision == FLOAT32:
        return _create(bundle, choice, reason)
    with refused(f'{choice.kind} on {choice.device}: cannot be built'):
        engine = _create(bundle, choice, reason)
    kind = TORCH if choice.kind == TORCH else ONNX
    reference = build_engine(bundle, CPU, kind, choice.threads)
    engine.reason += '; ' + check_parity(engine, reference, bundle.spec)
    return engine


def _create(bundle: Bundle, choice: _Choice, reason: str) -> Engine:
    kind, device, threads, precision = choice
    if kind == TORCH:
        from mm_perception.engines.torch_engine import TorchEngine

        return TorchEngine(bundle, device, threads, precision, reason)
    from mm_perception.engines.onnx_engine import OnnxEngine

    provider = TENSORRT if kind == TENSORRT else device
    return OnnxEngine(bundle, provider, threads, precision, reason)
