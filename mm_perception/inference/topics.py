"""What modalities have in common: topics, and how likely each is given one modality alone."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

SLOPE = 0.01
"""Of the leaky ReLU."""


@dataclass(frozen=True)
class Reader:
    """
    Reads topics off what one modality alone says: a perceptron with one hidden layer.

    The more the published std exceeds the usual, the less its reading counts: unusual data are
    read wrong with confidence.

    :param hidden: weights ``float32[F, H]`` and biases ``float32[H]``.
    :param output: weights ``float32[H, K]`` and biases ``float32[K]``.
    :param usual: mean log std of usual data; ``spread``: how far above it still is common.
    """

    hidden: tuple[np.ndarray, np.ndarray]
    output: tuple[np.ndarray, np.ndarray]
    usual: float
    spread: float

    def evidence(self, features: np.ndarray, std: np.ndarray) -> np.ndarray:
        """
        Log p(topic | modality) / p(topic), all topics as likely beforehand.

        :param features: of the modality, ``float32[B, F]``.
        :param std: of the joint posterior given it alone, ``float32[B, D]``.
        :returns: ``float64[B, K]``.
        """
        state = features @ self.hidden[0] + self.hidden[1]
        logits = np.maximum(state, SLOPE * state) @ self.output[0] + self.output[1]
        excess = np.maximum(0.0, log_std(std) - self.usual) / self.spread
        logits = logits.astype(np.float64) / (1.0 + excess[:, None])
        evidence: np.ndarray = logits - log_sum(logits)[:, None] + np.log(logits.shape[1])
        return evidence

    def to_plain(self) -> dict[str, Any]:
        """Plain data, rounded to half precision."""
        layers = {'hidden': self.hidden, 'output': self.output}
        plain = {name: [_packed(part) for part in layer] for name, layer in layers.items()}
        return {**plain, 'usual': self.usual, 'spread': self.spread}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], features: int) -> Reader:
        """
        Undo :meth:`to_plain`.

        :raises ValueError: if it does not take so many features.
        """
        hidden, output = (
            tuple(_unpacked(part) for part in plain[name]) for name in ('hidden', 'output')
        )
        width, topics = len(hidden[1]), len(output[1])
        return cls(
            (hidden[0].reshape(features, width), hidden[1]),
            (output[0].reshape(width, topics), output[1]),
            float(plain['usual']),
            float(plain['spread']),
        )


def log_std(std: np.ndarray) -> np.ndarray:
    """Mean log of ``float[B, D]``: how unsure a posterior is, ``float[B]``."""
    mean: np.ndarray = np.log(np.maximum(std, 1e-6)).mean(axis=1)
    return mean


def surprise_nats(evidence: np.ndarray) -> np.ndarray:
    """
    Negative log of p(modality | others) / p(modality), counted from its least value.

    :param evidence: log p(topic | modality) / p(topic), ``float64[B, P, K]``, P at least 2.
    :returns: ``float64[B, P]``, from 0 on.
    """
    topics = evidence.shape[-1]
    total = evidence.sum(axis=1, keepdims=True)
    surprise: np.ndarray = log_sum(total - evidence) - log_sum(total) + np.log(topics)
    return surprise


def log_sum(values: np.ndarray) -> np.ndarray:
    largest = values.max(axis=-1)
    result: np.ndarray = largest + np.log(np.exp(values - largest[..., None]).sum(axis=-1))
    return result


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(values.astype('<f2').tobytes()).decode('ascii')


def _unpacked(text: str) -> np.ndarray:
    raw = base64.b64decode(text, validate=True)
    values: np.ndarray = np.frombuffer(raw, '<f2').astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError('weights that are not finite')
    return values
