"""Functions of tensors as captured CUDA graphs, one per function and shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from mm_perception.modalities.raw import Array

Function = Callable[..., tuple[Tensor, ...]]
_WARM_UP_RUNS = 3


class CudaGraphs:
    """
    Runs functions as CUDA graphs, captured at the first call with inputs of that shape.

    A graph holds the copies to and from the GPU, through pinned memory, too. Convolutions are
    captured in full float32.
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


class _Captured:
    """One function for inputs of one shape."""

    def __init__(
        self, function: Function, inputs: Sequence[np.ndarray], device: torch.device
    ) -> None:
        self._given = [torch.from_numpy(np.array(array)).pin_memory() for array in inputs]
        static = [torch.empty_like(given, device=device) for given in self._given]

        def work() -> list[Tensor]:
            for there, here in zip(static, self._given):
                there.copy_(here, non_blocking=True)
            return [output.float() for output in function(*static)]

        with torch.cuda.device(device), torch.backends.cudnn.flags(allow_tf32=False):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_WARM_UP_RUNS):
                    outputs = work()
            torch.cuda.current_stream().wait_stream(side)
            torch.cuda.synchronize()
            self._made = [torch.empty(o.shape, pin_memory=True) for o in outputs]
            self._graph = torch.cuda.CUDAGraph()
            # Another thread may run another model meanwhile, as while a node reloads.
            with torch.cuda.graph(self._graph, capture_error_mode='thread_local'):
                for made, output in zip(self._made, work()):
                    made.copy_(output, non_blocking=True)

    def __call__(self, inputs: Sequence[np.ndarray]) -> list[Array]:
        for given, array in zip(self._given, inputs):
            np.copyto(given.numpy(), array)
        self._graph.replay()
        torch.cuda.current_stream().synchronize()
        return [made.numpy().copy() for made in self._made]
