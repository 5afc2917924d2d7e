"""ONNX graphs of a bundle on ONNX Runtime; their weights come from the bundle's weight files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import numpy as np

from mm_perception.bundle import Bundle
from mm_perception.errors import BundleError, EngineUnavailable
from mm_perception.inference.folding import Fold, fold
from mm_perception.inference.graph_check import check_graph
from mm_perception.inference.precision import FLOAT32
from mm_perception.inference.providers import CPU, NAMES, remedy, with_options
from mm_perception.inference.quantization import with_quantized
from mm_perception.modalities.raw import Array

INDEX = 'index'
"""
Entry of the graphs in JSON: ``fuses``, ``draws``, ``own_latents``, ``code_dims``, ``noise_dims``,
the ``weights`` of each graph, and the ``folds`` of model and classifiers.
"""
EXPORT = 'run mm-perception export'
MODEL, CLASSIFIERS = 'model', 'classifiers'
SMALL_MODEL_THREADS = 2
ONLY_ERRORS = 3
_pool_threads: int | None = None


def read_index(bundle: Bundle) -> dict[str, Any]:
    """
    What a bundle's graphs need.

    :raises BundleError: if it has none, or their index cannot be read.
    """
    if INDEX not in bundle.graphs:
        raise BundleError(no_graphs(bundle))
    try:
        index = dict(json.loads(bundle.graphs[INDEX]))
        flags = ('fuses', 'draws', 'own_latents')
        maps = ('code_dims', 'noise_dims', 'weights', 'folds')
        kinds = dict.fromkeys(flags, bool) | dict.fromkeys(maps, dict)
        wrong = [key for key, kind in kinds.items() if not isinstance(index[key], kind)]
        if wrong:
            raise TypeError(f'{wrong[0]} is of a wrong type')
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f'{bundle.path}: index of the graphs: {error}; export again') from error
    return index


def folded_weights(bundle: Bundle, part: str, graphs: Iterable[str] = ()) -> dict[str, Array]:
    """
    Weights as the graphs of a part, ``model`` or ``classifiers``, take them.

    :param graphs: names of those of them that may take weights in 8 bits.
    :raises BundleError: if they do not fit the graphs.
    """
    weights = bundle.weights if part == MODEL else bundle.classifiers
    index = read_index(bundle)
    try:
        folded = fold(weights, [Fold(**each) for each in index['folds'][part]])
        return with_quantized(folded, chain.from_iterable(index['weights'][g] for g in graphs))
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f'{bundle.path}: graphs: lack {error}; export again') from error


def names_of(bundle: Bundle, stage: str) -> list[str]:
    """Modalities for which a bundle has a graph of a stage (``encode``, ``classify``, ...)."""
    names = (name.partition('.') for name in bundle.graphs)
    return [modality for part, _, modality in names if part == stage]


def no_graphs(bundle: Bundle) -> str:
    """The line that says what to do about a bundle without graphs."""
    return f'{bundle.path}: has no ONNX graphs; {EXPORT} {bundle.path}'


class Graph:
    """
    One graph, ready to run.

    :param bundle: that it is of.
    :param name: of the graph.
    :param weights: that it takes its own from, see :func:`folded_weights`.
    :param threads: of the processor; 0 for what suits small models. More than one are shared
        by all graphs of the process, which have to agree on the number.
    :param provider: ``cpu``, ``cuda`` or ``tensorrt``.
    :param precision: see :func:`~mm_perception.inference.providers.with_options`.
    :raises BundleError: if the graph is broken or does not fit the weights.
    :raises EngineUnavailable: if the provider does not work here, or graphs of this process use
        another number of threads.
    """

    def __init__(
        self,
        bundle: Bundle,
        name: str,
        weights: Mapping[str, np.ndarray],
        threads: int = 0,
        provider: str = CPU,
        precision: str = FLOAT32,
    ) -> None:
        import onnxruntime

        where = f'{bundle.path}: graph {name}'
        try:
            needed = list(read_index(bundle)['weights'][name])
            arrays = [np.ascontiguousarray(weights[key]) for key in needed]
            values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in arrays]
            content = bundle.graphs[name]
        except (KeyError, TypeError) as error:
            raise BundleError(f'{where}: lacks {error}; export again') from error
        try:
            check_graph(content, needed)
        except ValueError as error:
            raise BundleError(f'{where}: {error}; not one of this package') from error
        options = _options(threads)
        options.add_external_initializers(needed, values)
        providers = with_options(provider, precision, content, arrays)
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers, enable_fallback=0
            )
        except _failures() as error:
            reason = ' '.join(str(error).split())[:200]
            if provider != CPU:
                raise EngineUnavailable(f'{remedy(provider)} ({reason})') from error
            raise BundleError(f'{where}: does not fit the weights: {reason}') from error
        if self._session.get_providers()[0] != NAMES[provider]:  # on another one, in silence
            raise EngineUnavailable(remedy(provider))
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> list[Array]:
        """Outputs for a batch of inputs."""
        outputs: list[Array] = self._session.run(self._outputs, inputs)
        return outputs


def _options(threads: int) -> Any:
    """Several threads are one pool for all sessions: pools of their own would spin on and on."""
    import onnxruntime

    threads = threads or min(SMALL_MODEL_THREADS, len(os.sched_getaffinity(0)))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ONLY_ERRORS
    if threads > 1:
        _share_pool(threads)
        options.use_per_session_threads = False
    else:
        options.intra_op_num_threads = options.inter_op_num_threads = 1
    return options


def _share_pool(threads: int) -> None:
    import onnxruntime

    global _pool_threads
    if _pool_threads is None:
        onnxruntime.set_global_thread_pool_sizes(threads, 1)
        _pool_threads = threads
    elif _pool_threads != threads:
        raise EngineUnavailable(
            f'engine onnx: {threads} threads asked for, but this process began with'
            f' {_pool_threads}; use that number, or another process'
        )


def _failures() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ('Fail', 'InvalidArgument', 'InvalidGraph', 'InvalidProtobuf', 'NotImplemented')
    return (*(getattr(state, name) for name in names), state.RuntimeException, RuntimeError)
