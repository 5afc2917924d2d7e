"""Classifiers as they are trained: PyTorch modules."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from mm_perception.evaluation.classifier_modules import run_batched
from mm_perception.evaluation.classifiers import Classifiers
from mm_perception.model.classifier import Classifier


class TorchClassifiers(Classifiers):
    """
    Classifiers that carry their weights.

    :param modules: trained, one per modality.
    """

    def __init__(self, modules: Mapping[str, Classifier]) -> None:
        self._modules = {name: module.eval() for name, module in modules.items()}
        super().__init__({name: partial(run_batched, m) for name, m in self._modules.items()})

    def state(self) -> dict[str, np.ndarray]:
        """All weights, named as in a bundle's ``classifiers.safetensors``."""
        return {
            f'{name}.{key}': value.cpu().numpy()
            for name, module in self._modules.items()
            for key, value in module.state_dict().items()
        }
