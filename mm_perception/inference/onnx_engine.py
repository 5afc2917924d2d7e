"""The fast engines: ONNX Runtime, with TensorRT where asked for, without torch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mm_perception.bundle import Bundle
from mm_perception.errors import EngineUnavailable, NothingObserved
from mm_perception.inference.graphs import MODEL, Graph, folded_weights, read_index
from mm_perception.inference.precision import FLOAT32, INT8
from mm_perception.inference.providers import CPU, CUDA, TENSORRT
from mm_perception.inference.quantization import PREFIX
from mm_perception.modalities.raw import Array


class OnnxEngine:
    """
    The graphs of a bundle on ONNX Runtime.

    :param provider: of ONNX Runtime, ``cpu``, ``cuda`` or ``tensorrt``; and ``threads``,
        ``precision``: see :class:`~mm_perception.inference.graphs.Graph`.
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
        index = read_index(bundle)
        found = set(index['weights'])
        prefix = PREFIX if precision == INT8 else ''
        graphs = {
            name: prefix + name if prefix + name in found else name
            for name in found
            if not name.startswith(('classify.', PREFIX))
        }
        weights = folded_weights(bundle, MODEL, graphs.values())
        self.name = TENSORRT if provider == TENSORRT else 'onnx'
        self.device = CPU if provider == CPU else CUDA
        self.precision = precision
        self.reason = reason
        self._graphs = {
            name: Graph(bundle, graph, weights, threads, provider, precision)
            for name, graph in graphs.items()
        }
        self._fuse = self._graphs['fuse']
        self.fuses: bool = index['fuses']
        self.draws: bool = index['draws']
        self.own_latents: bool = index['own_latents']
        self.noise_dims: dict[str, int] = dict(index['noise_dims'])
        self.code_dims: dict[str, int] = dict(index['code_dims'])

    def encode(self, name: str, data: Array) -> Array:
        """Code of a modality, see :class:`Engine`."""
        return self._graphs[f'encode.{name}']({'data': np.asarray(data, np.float32)})[0]

    def fuse(self, codes: Mapping[str, Array], present: np.ndarray) -> tuple[Array, Array]:
        """Mean and standard deviation of the joint posterior, see :class:`Engine`."""
        if not present.any(axis=1).all():
            raise NothingObserved('no modality is present; at least one is needed to fuse')
        mean, std = self._fuse({'present': present, **codes})
        return mean, std

    def fuse_sample(self, codes: Mapping[str, Array], present: np.ndarray, seed: int) -> Array:
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
