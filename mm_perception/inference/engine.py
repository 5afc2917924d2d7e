"""What every engine offers, and the choice of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from mm_perception.bundle import Bundle
from mm_perception.errors import EngineUnavailable
from mm_perception.modalities.raw import Array

DEVICES = ('auto', 'cpu', 'cuda')
ENGINES = ('auto', 'onnx', 'torch')


class Engine(Protocol):
    """
    The networks of one bundle, numpy in and out: encode each modality, fuse, decode.

    An engine is used by one thread at a time. Codes are only for :meth:`fuse` of the same
    engine, but where the model :attr:`predicts`, ``code[:, :d_m]`` is the standardised latent
    of the modality and :meth:`predict` says, in the same scale, which one the joint latent
    expects.
    """

    name: str
    device: str
    reason: str
    """Why this engine and this device."""
    predicts: bool
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

    def predict(self, name: str, joint: Array) -> Array:
        """
        Latent of one modality expected under ``float32[B, D]``, where the model predicts.

        :returns: standardised, ``float32[B, d_m]``: comparable with ``code[:, :d_m]``.
        """
        ...

    def decode(self, name: str, joint: Array) -> Array:
        """Expected data of one modality given ``float32[B, D]``: ``float32[B, *shape]``."""
        ...

    def decode_sample(self, name: str, joint: Array, seed: int) -> Array:
        """Like :meth:`decode`, with the latents below the joint one sampled, by the seed."""
        ...


def build_engine(
    bundle: Bundle, device: str = 'auto', engine: str = 'auto', threads: int = 0
) -> Engine:
    """
    Build the fastest engine for a device.

    :param device: ``auto`` (CUDA where it is, else the CPU), ``cpu`` or ``cuda``.
    :param engine: ``auto`` (the fastest that is there), ``onnx`` or ``torch``.
    :param threads: of the processor, for one call; 0 for what suits small models.
    :raises EngineUnavailable: if the device or the engine is not there.
    :raises BundleError: if the bundle's weights do not fit its spec.
    """
    for what, asked, known in (('device', device, DEVICES), ('engine', engine, ENGINES)):
        if asked not in known:
            raise EngineUnavailable(f'unknown {what} "{asked}"; known: {", ".join(known)}')
    try:
        from mm_perception.inference.torch_engine import TorchEngine
    except ImportError as error:
        raise EngineUnavailable(f'torch is not installed ({error}); pip install torch') from error
    return TorchEngine(bundle, device, threads)
