"""Batch normalisation merged into the layer before it, for graphs that only run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mm_perception.modalities.raw import Array

Weights = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Fold:
    """
    A linear layer or convolution and the normalisation that follows it.

    :param layer: prefix of the layer's weights.
    :param norm: prefix of the normalisation's weights.
    :param axis: of the layer's outputs in its weight.
    :param epsilon: of the normalisation.
    """

    layer: str
    norm: str
    axis: int
    epsilon: float


def fold(weights: Weights, folds: list[Fold]) -> dict[str, Array]:
    """
    Weights with which each layer gives what its normalisation would have given.

    :param weights: of the trained model, by name.
    :returns: the same with other ``weight`` and ``bias`` of the folded layers.
    :raises KeyError: if weights of a layer are missing.
    """
    folded = dict(weights)
    for part in folds:
        mean, variance = (weights[f'{part.norm}.running_{what}'] for what in ('mean', 'var'))
        scale = weights[f'{part.norm}.weight'] / np.sqrt(variance + part.epsilon)
        weight = weights[f'{part.layer}.weight']
        shape = [1] * weight.ndim
        shape[part.axis] = -1
        bias = weights.get(f'{part.layer}.bias', np.zeros_like(mean))
        folded[f'{part.layer}.weight'] = (weight * scale.reshape(shape)).astype(np.float32)
        folded[f'{part.layer}.bias'] = np.asarray(
            (bias - mean) * scale + weights[f'{part.norm}.bias'], np.float32
        )
    return folded
