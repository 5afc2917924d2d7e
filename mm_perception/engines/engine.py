"""What every engine offers, and the precisions that it may compute in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from mm_perception.modalities.base import Array

FLOAT32, INT8 = 'float32', 'int8'
SIXTEEN_BITS = FLOAT16, BFLOAT16 = 'float16', 'bfloat16'
BOUNDS = {FLOAT32: 1e-3, FLOAT16: 1e-2, BFLOAT16: 1e-1, INT8: 5e-2}
"""
By precision: how far an engine may be from float32 on the CPU, see
:func:`~mm_perception.engines.build.difference`.
"""


class Engine(Protocol):
    """
    The networks of one bundle, numpy in and out: encode each modality, fuse, decode.

    An engine is used by one thread at a time. Codes are only for :meth:`fuse` of the same
    engine, but where the model has :attr:`own_latents`, ``code[:, :d_m]`` is the standardised
    latent of the modality.
    """

    name: str
    device: str
    precision: str
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

    def fuse(self, codes: Mapping[str, Array], present: NDArray[Any]) -> tuple[Array, Array]:
        """
        Joint posterior of the present modalities.

        :param codes: ``float32[B, C_m]`` of every modality; absent rows are ignored.
        :param present: ``bool[B, M]``, at least one per row.
        :returns: mean and standard deviation, ``float32[B, D]`` each.
        :raises NothingObserved: if a row has no modality present.
        """
        ...

    def fuse_sample(self, codes: Mapping[str, Array], present: NDArray[Any], seed: int) -> Array:
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
