"""Evaluation classifiers in PyTorch: as they are trained, and as a bundle carries them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mm_perception.bundle import Bundle
from mm_perception.engines.classifiers import Classifiers
from mm_perception.errors import BundleError
from mm_perception.modalities.base import Array
from mm_perception.model.networks import Classifier


@torch.inference_mode()
def run_batched(module: nn.Module, arrays: Array) -> Array:
    """Outputs ``float32[B, ...]`` of a module for ``float32[B, *shape]``, on its device."""
    device = next(module.parameters()).device
    parts = torch.from_numpy(np.ascontiguousarray(arrays, np.float32)).split(1024)
    return np.concatenate([module(part.to(device)).float().cpu().numpy() for part in parts])


def load_modules(bundle: Bundle) -> dict[str, Classifier]:
    """
    Load the networks of a bundle's classifiers, in evaluation mode; empty if it has none.

    :raises BundleError: if weights do not fit.
    """
    modules = {}
    for name in sorted({key.split('.', 1)[0] for key in bundle.classifiers}):
        module = Classifier(bundle.spec.modality(name), len(bundle.labels))
        weights = {
            key.split('.', 1)[1]: torch.from_numpy(np.array(value))
            for key, value in bundle.classifiers.items()
            if key.startswith(f'{name}.')
        }
        try:
            module.load_state_dict(weights)
        except RuntimeError as error:
            raise BundleError(f'{bundle.path}: classifier of {name} does not fit') from error
        modules[name] = module.eval()
    return modules


class TorchClassifiers(Classifiers):
    """
    Classifiers that carry their weights.

    :param modules: trained, one per modality.
    """

    def __init__(self, modules: Mapping[str, Classifier]) -> None:
        self._modules = {name: module.eval() for name, module in modules.items()}
        super().__init__({name: partial(run_batched, m) for name, m in self._modules.items()})

    def state(self) -> dict[str, NDArray[Any]]:
        """All weights, named as in a bundle's ``classifiers.safetensors``."""
        return {
            f'{name}.{key}': value.cpu().numpy()
            for name, module in self._modules.items()
            for key, value in module.state_dict().items()
        }
