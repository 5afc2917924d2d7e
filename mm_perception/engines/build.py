"""The choice of an engine: availability, construction, parity with float32 on the CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from mm_perception.bundle import Bundle
from mm_perception.engines.engine import BOUNDS, FLOAT32, INT8, SIXTEEN_BITS, Engine
from mm_perception.engines.onnx_engine import (
    CPU,
    CUDA,
    EIGHT_BITS,
    EXPORT,
    LABELS,
    TENSORRT,
    has_onnxruntime,
    has_provider,
    no_graphs,
)
from mm_perception.errors import EngineUnavailable, MMPerceptionError
from mm_perception.modalities import build_modality
from mm_perception.modalities.base import Array
from mm_perception.spec import DEVICES, ENGINES, PRECISIONS, ModelSpec

AUTO, ONNX, TORCH = 'auto', 'onnx', 'torch'
NO_GPU = 'no CUDA GPU is usable here'
_SIXTEEN_BITS_TOO = (FLOAT32, *SIXTEEN_BITS)
_OFFERED = {
    (TORCH, CUDA): _SIXTEEN_BITS_TOO,
    (ONNX, CUDA): (FLOAT32,),
    (ONNX, CPU): (FLOAT32, INT8),
    (TORCH, CPU): _SIXTEEN_BITS_TOO,
    (TENSORRT, CUDA): _SIXTEEN_BITS_TOO,
}
"""Precisions by engine and device, the fastest first."""


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
    :param engine: ``auto``, ``onnx``, ``torch``, or ``tensorrt``: builds for minutes, never auto.
    :param threads: of the processor, for one call; 0 for what suits small models.
    :param precision: of matrix products and convolutions: ``float32``, ``float16`` or
        ``bfloat16``; or ``int8`` for large dense layers.
    :raises EngineUnavailable: if the device or the engine is not there, or not that precise.
    :raises BundleError: if the bundle's weights do not fit its spec.
    """
    _check('device', device, DEVICES)
    _check('engine', engine, ENGINES)
    _check('precision', precision, PRECISIONS)
    reasons: list[str] = []
    for kind, where in _OFFERED:
        chosen = kind != TENSORRT if engine == AUTO else kind == engine
        if not chosen or device not in (AUTO, where):
            continue
        reason = why_unavailable(bundle, kind, where, precision)
        if not reason and device == AUTO and where == CPU and precision in SIXTEEN_BITS:
            reason = f'on a CPU {precision} is no faster: only with device cpu'
        if not reason:
            why = '; '.join(dict.fromkeys(reasons)) or 'the fastest allowed'
            try:
                return _build(bundle, kind, where, threads, precision, f'{kind} on {where}: {why}')
            except EngineUnavailable as error:
                reason = str(error)
        reasons.append(reason)
    why = '; '.join(dict.fromkeys(reasons)) or 'it does not run there'
    raise EngineUnavailable(f'engine {engine} on device {device}: {why}')


def _check(what: str, asked: str, known: tuple[str, ...]) -> None:
    if asked not in known:
        raise EngineUnavailable(f'unknown {what} "{asked}"; known: {", ".join(known)}')


def reference_engine(bundle: Bundle, device: str = AUTO) -> Engine:
    """
    Build the engine that evaluation uses: eager torch, with samples, on all its threads.

    :raises EngineUnavailable: if the device is not there.
    """
    import torch

    from mm_perception.engines.torch_engine import TorchEngine

    return TorchEngine(bundle, device, torch.get_num_threads(), reason='the reference', eager=True)


def why_unavailable(bundle: Bundle, kind: str, device: str, precision: str) -> str:
    """
    Why an engine cannot run on a device, as far as that is known before it is built.

    :returns: one line; empty if it can.
    """
    if device == CUDA and not has_driver():
        return NO_GPU
    offered = _OFFERED[kind, device]
    if precision not in offered:
        return f'{kind} on {device} computes in {" or ".join(offered)}, not {precision}'
    if kind == TORCH:
        try:
            import torch
        except ImportError:
            return 'torch is not installed; pip install torch'
        return NO_GPU if device == CUDA and not torch.cuda.is_available() else ''
    if not has_onnxruntime():
        return 'onnxruntime is not installed; pip install onnxruntime'
    provider = TENSORRT if kind == TENSORRT else device
    if provider != CPU and not has_provider(provider):
        return f'this ONNX Runtime has no {LABELS[provider]} provider; pip install onnxruntime-gpu'
    if not bundle.graphs:
        return no_graphs(bundle)
    if precision == INT8 and not any(n.startswith(EIGHT_BITS) for n in bundle.graphs.content):
        return (
            f'{bundle.path}: has no graph with a large layer in 8 bits; for a bundle from before'
            f' there were, {EXPORT} {bundle.path}'
        )
    return ''


def has_driver() -> bool:
    """Whether NVIDIA's driver is there; asking torch would load it in vain on most robots."""
    try:
        ctypes.CDLL('libcuda.so.1')
    except OSError:
        return False
    return True


def _build(
    bundle: Bundle, kind: str, device: str, threads: int, precision: str, reason: str
) -> Engine:
    if device == CPU and precision == FLOAT32:
        return _create(bundle, kind, device, threads, precision, reason)
    with refused(f'{kind} on {device}: cannot be built'):
        engine = _create(bundle, kind, device, threads, precision, reason)
    reference = build_engine(bundle, CPU, TORCH if kind == TORCH else ONNX, threads)
    engine.reason += '; ' + check_parity(engine, reference, bundle.spec)
    return engine


def _create(
    bundle: Bundle, kind: str, device: str, threads: int, precision: str, reason: str
) -> Engine:
    if kind == TORCH:
        from mm_perception.engines.torch_engine import TorchEngine

        return TorchEngine(bundle, device, threads, precision, reason)
    from mm_perception.engines.onnx_engine import OnnxEngine

    provider = TENSORRT if kind == TENSORRT else device
    return OnnxEngine(bundle, provider, threads, precision, reason)


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
