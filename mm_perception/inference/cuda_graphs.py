"""Functions of tensors as captured CUDA graphs, one per function and shape."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

from mm_perception.modalities.raw import Array

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

    def __call__(self, key: str, function: Function, inputs: Sequence[np.ndarray]) -> list[Array]:
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
        self, function: Function, inputs: Sequence[np.ndarray], device: torch.device
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

    def __call__(self, inputs: Sequence[np.ndarray]) -> list[Array]:
        for given, array in zip(self._given, inputs):
            np.copyto(given.numpy(), array)
        self._graph.replay()
        torch.cuda.current_stream().synchronize()
        return [made.numpy().copy() for made in self._made]


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all captures: cuBLAS keeps a workspace for every stream that it has seen."""
    return torch.cuda.Stream(device)
