"""The reference engine: PyTorch, on a CPU or a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np
import torch
from torch import nn

from mm_perception.bundle import Bundle
from mm_perception.errors import EngineUnavailable, NothingObserved
from mm_perception.inference.cuda_graphs import CudaGraphs, Function
from mm_perception.inference.graphs import SMALL_MODEL_THREADS
from mm_perception.inference.precision import FLOAT32
from mm_perception.inference.shapes import check_shapes
from mm_perception.modalities.raw import Array
from mm_perception.model.base import MultimodalModel, Posterior
from mm_perception.model.build import build_model

CAPTURED_ROWS = 32
_IN_TYPE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)


class TorchEngine:
    """
    PyTorch in evaluation mode: eager on the CPU, captured graphs on a GPU.

    Batches of more than :data:`CAPTURED_ROWS` run eagerly on a GPU too.

    :param device: ``auto``, ``cpu`` or ``cuda``.
    :param threads: of the processor, for the whole process; 0 for what suits small models.
    :param precision: of matrix products and convolutions: ``float32``, ``float16`` or
        ``bfloat16``; all else is float32.
    :param reason: why this engine and device.
    :param eager: whether a GPU too captures nothing.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str = 'auto',
        threads: int = 0,
        precision: str = FLOAT32,
        reason: str = '',
        eager: bool = False,
    ) -> None:
        cuda = torch.cuda.is_available()
        if device == 'cuda' and not cuda:
            raise EngineUnavailable('device cuda: no CUDA GPU is usable here; use device cpu')
        self.device = 'cuda' if cuda and device != 'cpu' else 'cpu'
        self.precision = precision
        self.reason = reason
        torch.set_num_threads(threads or min(SMALL_MODEL_THREADS, torch.get_num_threads()))
        captures = self.device == 'cuda' and not eager
        self.name = 'torch-cuda-graph' if captures else 'torch'
        self._device = torch.device(self.device)
        if self.device == 'cuda':
            _check_gpu(self._device)
            torch.backends.cudnn.allow_tf32 = False  # float32 as on the CPU
        self._graphs = CudaGraphs(self._device) if captures else None
        self._type: torch.dtype = getattr(torch, precision)
        self._model = load_model(bundle).to(self._device)
        if precision != FLOAT32:
            _narrow(self._model, self._type)
        self.fuses = self._model.fuses
        self.draws = True
        self.noise_dims = self._model.noise_dims
        self.own_latents = self._model.own_latents
        self.code_dims = self._model.code_dims

    @torch.inference_mode()
    def encode(self, name: str, data: Array) -> Array:
        """Code of a modality, see :class:`Engine`."""
        return self._run(f'encode.{name}', lambda x: (self._model.encode(name, x),), data)[0]

    @torch.inference_mode()
    def fuse(self, codes: Mapping[str, Array], present: np.ndarray) -> tuple[Array, Array]:
        """Mean and standard deviation of the joint posterior, see :class:`Engine`."""
        _check_present(present)
        inputs = (codes[name] for name in self._model.spec.names)
        mean, std = self._run('fuse', partial(fuse_statistics, self._model), present, *inputs)
        return mean, std

    @torch.inference_mode()
    def fuse_sample(self, codes: Mapping[str, Array], present: np.ndarray, seed: int) -> Array:
        """Sample of the joint posterior, see :class:`Engine`."""
        generator = torch.Generator(self._device).manual_seed(seed)
        with self._autocast():
            return _numpy(self._posterior(codes, present).sample(generator))

    @torch.inference_mode()
    def decode(self, name: str, joint: Array) -> Array:
        """Expected data of one modality, see :class:`Engine`."""
        return self._run(f'decode.{name}', lambda z: (self._model.decode(name, z),), joint)[0]

    @torch.inference_mode()
    def decode_sample(self, name: str, joint: Array, seed: int) -> Array:
        """Data of one modality with its own latent sampled, see :class:`Engine`."""
        generator = torch.Generator(self._device).manual_seed(seed)
        with self._autocast():
            return _numpy(self._model.decode_sample(name, self._tensor(joint), generator))

    def _posterior(self, codes: Mapping[str, Array], present: np.ndarray) -> Posterior:
        _check_present(present)
        tensors = {name: self._tensor(code) for name, code in codes.items()}
        return self._model.fuse(tensors, self._tensor(present))

    def _run(self, key: str, function: Function, *inputs: np.ndarray) -> list[Array]:
        with self._autocast():
            return self._run_in_type(key, function, *inputs)

    def _autocast(self) -> AbstractContextManager[None]:
        if self.precision == FLOAT32:
            return nullcontext()
        # Weights are narrow already: nothing of them to keep between calls, or in a graph.
        return torch.autocast(self.device, self._type, cache_enabled=False)

    def _run_in_type(self, key: str, function: Function, *inputs: np.ndarray) -> list[Array]:
        if self._graphs is not None and len(inputs[0]) <= CAPTURED_ROWS:
            return self._graphs(key, function, [_plain(array) for array in inputs])
        return [_numpy(output) for output in function(*map(self._tensor, inputs))]

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(_plain(array)).to(self._device)


def fuse_statistics(
    model: MultimodalModel, present: torch.Tensor, *codes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the joint posterior; codes in the spec's order."""
    posterior = model.fuse(dict(zip(model.spec.names, codes)), present)
    return posterior.mean, posterior.std


def load_model(bundle: Bundle) -> MultimodalModel:
    """
    Build the model of a bundle with its weights, in evaluation mode, on the CPU.

    :raises BundleError: if the weights do not fit the spec exactly.
    """
    check_shapes(bundle)
    model = build_model(bundle.spec)
    weights = {name: torch.from_numpy(np.array(array)) for name, array in bundle.weights.items()}
    model.load_state_dict(weights, strict=True)
    return model.eval()


def _plain(array: np.ndarray) -> np.ndarray:
    kind = np.bool_ if array.dtype == np.bool_ else np.float32
    return np.ascontiguousarray(array, kind)


def _narrow(model: nn.Module, kind: torch.dtype) -> None:
    """Keep the weights of what computes in 16 bits in 16 bits: half the memory to read."""
    for module in model.modules():
        if isinstance(module, _IN_TYPE):
            module.to(kind)


def _check_gpu(device: torch.device) -> None:
    """Run something: a PyTorch that was not built for a GPU finds out only then."""
    try:
        torch.ones(1, device=device).add(1.0).item()
    except RuntimeError as error:
        reason = ' '.join(str(error).split())[:200]
        raise EngineUnavailable(f'device cuda: PyTorch cannot use this GPU: {reason}') from error


def _check_present(present: np.ndarray) -> None:
    if not present.any(axis=1).all():
        raise NothingObserved('no modality is present; at least one is needed to fuse')


def _numpy(tensor: torch.Tensor) -> Array:
    return tensor.float().cpu().numpy()
