"""What every engine offers, and the choice of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from mm_perception.bundle import Bundle
from mm_perception.errors import EngineUnavailable
from mm_perception.modalities.raw import Array

DEVICES = ('auto', 'cpu', 'cuda')


class Engine(Protocol):
    """
    The networks of one bundle, numpy in and out: encode each modality, fuse, decode.

    An engine is used by one thread at a time.
    """

    name: str
    device: str
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
        """Like :meth:`decode`, with the latents below the joint one sampled, by the seed."""
        ...


def build_engine(bundle: Bundle, device: str = 'auto') -> Engine:
    """
    Build the fastest engine for a device.

    :param device: ``auto`` (CUDA where it is, else the CPU), ``cpu`` or ``cuda``.
    :raises EngineUnavailable: if the device is not there.
    :raises BundleError: if the bundle's weights do not fit its spec.
    """
    if device not in DEVICES:
        raise EngineUnavailable(f'unknown device "{device}"; known: {", ".join(DEVICES)}')
    try:
        from mm_perception.inference.torch_engine import TorchEngine
    except ImportError as error:
        raise EngineUnavailable(f'torch is not installed ({error}); pip install torch') from error
    return TorchEngine(bundle, device)
