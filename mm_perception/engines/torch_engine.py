"""The reference engine: PyTorch, eager on a CPU, captured CUDA graphs on a GPU."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mm_perception.bundle import Bundle
from mm_perception.engines.engine import FLOAT32
from mm_perception.engines.onnx_engine import SMALL_MODEL_THREADS
from mm_perception.errors import BundleError, EngineUnavailable, MMPerceptionError, NothingObserved
from mm_perception.modalities.base import Array
from mm_perception.model.base import MultimodalModel
from mm_perception.model.build import build_model
from mm_perception.model.distributions import Posterior


def check_shapes(bundle: Bundle) -> None:
    """
    Compare spec and weights before a network of the spec's sizes takes any memory.

    :raises BundleError: if they do not fit exactly, or the spec cannot be built.
    """
    try:
        with torch.device('meta'):
            model = build_model(bundle.spec)
    except (MMPerceptionError, RuntimeError, ValueError, TypeError) as error:
        reason = ' '.join(str(error).split())[:200]
        raise BundleError(f'{bundle.path}: its spec cannot be built: {reason}') from error
    # Numbers alone are saved as arrays of one.
    asked = {name: tuple(value.shape) or (1,) for name, value in model.state_dict().items()}
    there = {name: array.shape or (1,) for name, array in bundle.weights.items()}
    for name in (*asked, *there):
        if asked.get(name) != there.get(name):
            raise BundleError(
                f'{bundle.path}: weights do not fit the spec: {name[:80]!r} has shape'
                f' {there.get(name)}, the spec asks for {asked.get(name)}; get the bundle again'
            )


Function = Callable[..., tuple[Tensor, ...]]
_WARM_UP_RUNS = 3
_ONE_CAPTURE = threading.Lock()
"""Of a process at a time."""


class CudaGraphs:
    """
    Runs functions as CUDA graphs, captured at the first call with inputs of that shape.

    A graph holds the copies to and from the GPU, through pinned memory, too.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._captured: dict[tuple[object, ...], _Captured] = {}

    def __call__(
        self, key: str, function: Function, inputs: Sequence[NDArray[Any]]
    ) -> list[Array]:
        """
        Run a function of tensors.

        :param key: names the function.
        :param inputs: its arguments; their types do not change between calls.
        """
        shape = (key, *(array.shape for array in inputs))
        if shape not in self._captured:
            self._captured[shape] = _Captured(function, inputs, self._device)
        return self._captured[shape](inputs)


def release_memory() -> None:
    """Give the GPU back what graphs and tensors that are gone took."""
    with _ONE_CAPTURE, suppress(RuntimeError):  # of a GPU that has failed
        torch.cuda.empty_cache()


class _Captured:
    """One function for inputs of one shape."""

    def __init__(
        self, function: Function, inputs: Sequence[NDArray[Any]], device: torch.device
    ) -> None:
        self._given = [torch.from_numpy(np.array(array)).pin_memory() for array in inputs]
        # A graph keeps addresses, not tensors.
        self._static = [torch.empty_like(given, device=device) for given in self._given]
        self._made: list[Tensor] = []
        stream = _side_stream(device)
        with _ONE_CAPTURE, torch.cuda.device(device):
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP_RUNS):
                    self._work(function)
            stream.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            # Another thread may run another model meanwhile, as while a node reloads.
            with torch.cuda.graph(self._graph, stream=stream, capture_error_mode='thread_local'):
                self._work(function)

    def _work(self, function: Function) -> None:
        for there, here in zip(self._static, self._given):
            there.copy_(here, non_blocking=True)
        outputs = [output.float() for output in function(*self._static)]
        self._made = self._made or [torch.empty(o.shape, pin_memory=True) for o in outputs]
        for made, output in zip(self._made, outputs):
            made.copy_(output, non_blocking=True)

    def __call__(self, inputs: Sequence[NDArray[Any]]) -> list[Array]:
        for given, array in zip(self._given, inputs):
            np.copyto(given.numpy(), array)
        self._graph.replay()
        torch.cuda.current_stream().synchronize()
        return [made.numpy().copy() for made in self._made]


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all captures: cuBLAS keeps a workspace for every stream that it has seen."""
    return torch.cuda.Stream(device)


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
    def fuse(self, codes: Mapping[str, Array], present: NDArray[Any]) -> tuple[Array, Array]:
        """Mean and standard deviation of the joint posterior, see :class:`Engine`."""
        _check_present(present)
        inputs = (codes[name] for name in self._model.spec.names)
        mean, std = self._run('fuse', partial(fuse_statistics, self._model), present, *inputs)
        return mean, std

    @torch.inference_mode()
    def fuse_sample(self, codes: Mapping[str, Array], present: NDArray[Any], seed: int) -> Array:
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

    def _posterior(self, codes: Mapping[str, Array], present: NDArray[Any]) -> Posterior:
        _check_present(present)
        tensors = {name: self._tensor(code) for name, code in codes.items()}
        return self._model.fuse(tensors, self._tensor(present))

    def _run(self, key: str, function: Function, *inputs: NDArray[Any]) -> list[Array]:
        with self._autocast():
            return self._run_in_type(key, function, *inputs)

    def _autocast(self) -> AbstractContextManager[None]:
        if self.precision == FLOAT32:
            return nullcontext()
        # Weights are narrow already: nothing of them to keep between calls, or in a graph.
        return torch.autocast(self.device, self._type, cache_enabled=False)

    def _run_in_type(self, key: str, function: Function, *inputs: NDArray[Any]) -> list[Array]:
        if self._graphs is not None and len(inputs[0]) <= CAPTURED_ROWS:
            return self._graphs(key, function, [_plain(array) for array in inputs])
        return [_numpy(output) for output in function(*map(self._tensor, inputs))]

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
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


def _plain(array: NDArray[Any]) -> NDArray[Any]:
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


def _check_present(present: NDArray[Any]) -> None:
    if not present.any(axis=1).all():
        raise NothingObserved('no modality is present; at least one is needed to fuse')


def _numpy(tensor: torch.Tensor) -> Array:
    return tensor.float().cpu().numpy()
