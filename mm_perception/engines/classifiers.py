"""Evaluation classifiers: which label a value of one modality shows. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mm_perception.bundle import Bundle
from mm_perception.engines.onnx_engine import Graph, has_onnxruntime
from mm_perception.errors import BundleError
from mm_perception.modalities.base import Array

LEAST_PROBABILITY = 1e-6
Logits = Callable[[Array], Array]


class Classifiers:
    """
    One network per modality; a modality with labels of its own is read directly.

    :param networks: logits ``float32[B, classes]`` of ``float32[B, *shape]``, by modality.
    """

    def __init__(self, networks: Mapping[str, Logits]) -> None:
        self._networks = dict(networks)

    def read(self, name: str, arrays: Array) -> NDArray[Any]:
        """
        Index of the label that each array shows.

        :param arrays: ``float32[B, *shape]``.
        :returns: ``int64[B]``.
        """
        scores = self._networks[name](arrays) if name in self._networks else arrays
        return np.asarray(np.argmax(scores, axis=1))

    def log_probabilities(self, name: str, arrays: Array) -> Array:
        """Of every label, given each array alone: ``float32[B, classes]``."""
        if name not in self._networks:
            return np.asarray(np.log(np.maximum(arrays, LEAST_PROBABILITY)))
        logits = self._networks[name](arrays)
        return np.asarray(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))


def load_classifiers(bundle: Bundle) -> Classifiers:
    """
    Load the classifiers that a bundle carries: on ONNX Runtime if it can, else on torch.

    :raises BundleError: if it carries none, or they do not fit.
    """
    if not bundle.classifiers:
        raise BundleError(f'{bundle.path}: carries no classifiers; train it with some')
    if bundle.graphs and has_onnxruntime():
        graphs = {
            name.removeprefix('classify.'): Graph(bundle, name)
            for name in bundle.graphs.content
            if name.startswith('classify.')
        }
        return Classifiers({name: partial(_logits, graph) for name, graph in graphs.items()})
    from mm_perception.engines.torch_classifiers import load_modules, run_batched

    modules = load_modules(bundle)
    return Classifiers({name: partial(run_batched, module) for name, module in modules.items()})


def _logits(graph: Graph, arrays: Array) -> Array:
    return graph({'data': np.asarray(arrays, np.float32)})[0]
