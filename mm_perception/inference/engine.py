"""What every engine offers, and the choice of one."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from mm_perception.bundle import Bundle
from mm_perception.errors import EngineUnavailable
from mm_perception.inference.graphs import no_graphs
from mm_perception.inference.providers import has_onnxruntime, has_provider
from mm_perception.modalities.raw import Array

DEVICES = ('auto', 'cpu', 'cuda')
ENGINES = ('auto', 'onnx', 'torch')
NO_GPU = 'no CUDA GPU is usable here'
_FASTEST_FIRST = (('torch', 'cuda'), ('onnx', 'cuda'), ('onnx', 'cpu'), ('torch', 'cpu'))


class Engine(Protocol):
    """
    The networks of one bundle, numpy in and out: encode each modality, fuse, decode.

    An engine is used by one thread at a time. Codes are only for :meth:`fuse` of the same
    engine, but where the model has :attr:`own_latents`, ``code[:, :d_m]`` is the standardised
    latent of the modality.
    """

    name: str
    device: str
    reason: str
    """Why this engine and this device."""
    draws: bool
    """Whether :meth:`decode_sample` is offered."""
    noise_dims: dict[str, int]
    """Size of what is drawn for a sample below the joint latent, where that is calibrated."""
    own_latents: bool
    """Whether every modality has a latent of its own (size ``latent_dim`` of its spec)."""
    fuses: bool
    """Whether several present modalities all shape the joint posterior's mean."""
    code_dims: dict[str, int]
    """Size C_m of each modality's code."""

    def encode(self, name: str, data: Array) -> Array:
        """What :meth:`fuse` needs to know of ``float32[B, *shape]``: ``float32[B, C_m]``."""
        ...

    def fuse(self, codes: Mapping[str, Array], present: np.ndarray) -> tuple[Array, Array]:
        """
        Joint posterior of the present modalities.

        :param codes: ``float32[B, C_m]`` of every modality; absent rows are ignored.
        :param present: ``bool[B, M]``, at least one per row.
        :returns: mean and standard deviation, ``float32[B, D]`` each.
        :raises NothingObserved: if a row has no modality present.
        """
        ...

    def fuse_sample(self, codes: Mapping[str, Array], present: np.ndarray, seed: int) -> Array:
        """Like :meth:`fuse`, but a sample of the joint posterior: ``float32[B, D]``."""
        ...

    def decode(self, name: str, joint: Array) -> Array:
        """Expected data of one modality given ``float32[B, D]``: ``float32[B, *shape]``."""
        ...

    def decode_sample(self, name: str, joint: Array, seed: int) -> Array:
        """
        Like :meth:`decode`, with the latents below the joint one sampled, by the seed.

        :raises EngineUnavailable: where the engine does not offer it.
        """
        ...


def build_engine(
    bundle: Bundle, device: str = 'auto', engine: str = 'auto', threads: int = 0
) -> Engine:
    """
    Build the fastest engine that is there, or the one asked for.

    :param device: ``auto`` (CUDA where it is, else the CPU), ``cpu`` or ``cuda``.
    :param engine: ``auto``, ``onnx`` or ``torch``.
    :param threads: of the processor, for one call; 0 for what suits small models.
    :raises EngineUnavailable: if the device or the engine is not there.
    :raises BundleError: if the bundle's weights do not fit its spec.
    """
    for what, asked, known in (('device', device, DEVICES), ('engine', engine, ENGINES)):
        if asked not in known:
            raise EngineUnavailable(f'unknown {what} "{asked}"; known: {", ".join(known)}')
    obstacles: list[str] = []
    for kind, where in _FASTEST_FIRST:
        if engine in ('auto', kind) and device in ('auto', where):
            obstacle = _obstacle(bundle, kind, where)
            if not obstacle:
                chosen = f'{kind} on {where}: '
                reason = chosen + ('; '.join(dict.fromkeys(obstacles)) or 'the fastest allowed')
                try:
                    return _build(bundle, kind, where, threads, reason)
                except EngineUnavailable as error:
                    if where == 'cpu':
                        raise
                    obstacle = str(error)
            obstacles.append(obstacle)
    reasons = '; '.join(dict.fromkeys(obstacles))
    raise EngineUnavailable(f'engine {engine} on device {device}: {reasons}')


def reference_engine(bundle: Bundle, device: str = 'auto') -> Engine:
    """
    Build the engine that evaluation uses: eager torch, with samples, on all its threads.

    :raises EngineUnavailable: if the device is not there.
    """
    import torch

    from mm_perception.inference.torch_engine import TorchEngine

    return TorchEngine(bundle, device, torch.get_num_threads(), 'the reference', eager=True)


def _build(bundle: Bundle, kind: str, device: str, threads: int, reason: str) -> Engine:
    if kind != 'torch':
        from mm_perception.inference.onnx_engine import OnnxEngine

        return OnnxEngine(bundle, device, threads, reason)
    from mm_perception.inference.torch_engine import TorchEngine

    return TorchEngine(bundle, device, threads, reason)


def _obstacle(bundle: Bundle, kind: str, device: str) -> str:
    """Why an engine cannot run on a device; empty if it can."""
    if device == 'cuda' and not _has_driver():
        return NO_GPU
    if kind == 'torch':
        return _torch_obstacle(device)
    return _onnx_obstacle(bundle, device)


def _onnx_obstacle(bundle: Bundle, device: str) -> str:
    if not has_onnxruntime():
        return 'onnxruntime is not installed; pip install onnxruntime'
    if not has_provider(device):
        return 'this ONNX Runtime has no CUDA provider; pip install onnxruntime-gpu'
    return '' if bundle.graphs else no_graphs(bundle)


def _torch_obstacle(device: str) -> str:
    try:
        import torch
    except ImportError:
        return 'torch is not installed; pip install torch'
    return NO_GPU if device == 'cuda' and not torch.cuda.is_available() else ''


def _has_driver() -> bool:
    """Whether NVIDIA's driver is there; asking torch would load it in vain on most robots."""
    try:
        ctypes.CDLL('libcuda.so.1')
    except OSError:
        return False
    return True
