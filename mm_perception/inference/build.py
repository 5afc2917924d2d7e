"""The choice of an engine."""

from __future__ import annotations

from typing import NamedTuple

from mm_perception.bundle import Bundle
from mm_perception.errors import EngineUnavailable
from mm_perception.inference.engine import Engine
from mm_perception.inference.obstacles import ONNX, TORCH, obstacle
from mm_perception.inference.precision import BOUNDS, FLOAT32, SIXTEEN_BITS
from mm_perception.inference.proof import prove, refused
from mm_perception.inference.providers import CPU, CUDA, TENSORRT

AUTO = 'auto'
DEVICES = (AUTO, CPU, CUDA)
ENGINES = (AUTO, ONNX, TORCH, TENSORRT)
PRECISIONS = tuple(BOUNDS)
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
            found = obstacle(bundle, kind, where, precision)
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

    from mm_perception.inference.torch_engine import TorchEngine

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
    engine.reason += '; ' + prove(engine, reference, bundle.spec)
    return engine


def _create(bundle: Bundle, choice: _Choice, reason: str) -> Engine:
    kind, device, threads, precision = choice
    if kind == TORCH:
        from mm_perception.inference.torch_engine import TorchEngine

        return TorchEngine(bundle, device, threads, precision, reason)
    from mm_perception.inference.onnx_engine import OnnxEngine

    provider = TENSORRT if kind == TENSORRT else device
    return OnnxEngine(bundle, provider, threads, precision, reason)
