"""Learn on held-out data, strange ones among them, how likely a label is right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.optimize import minimize

from mm_perception.bundle import Health
from mm_perception.data.dataset import Dataset
from mm_perception.engines.engine import Engine
from mm_perception.evaluation.consistency import evidence_alone
from mm_perception.evaluation.generation import batches, class_modality, encode_all, label_indices
from mm_perception.fusion.confidence import FEATURES, TABLE, WEIGHTS, features
from mm_perception.fusion.consistency import ConsistencyCheck, log_sum
from mm_perception.modalities.base import Array
from mm_perception.spec import ModelSpec

MOST_ROWS = 4000
LEAST_WRONG = 20
CONTRADICTORY, LABEL_SEEN = 0.03, 0.25
"""Shares of rows in which one modality shows another row, and the label may be observed."""
_DECAY = 1e-3


def with_confidence(
    engine: Engine, spec: ModelSpec, health: Health, held: Dataset, seed: int
) -> Health:
    """
    Add what :class:`~mm_perception.fusion.confidence.Confidence` needs.

    :param held: held out from the training, strange rows among them.
    :returns: the same where no labels are known, or too few are told wrong to learn from.
    """
    kind, labels = class_modality(spec), label_indices(held, spec)
    if kind is None or labels is None:
        return health
    generator = np.random.default_rng(seed)
    rows = generator.permutation(np.flatnonzero(labels >= 0))[:MOST_ROWS]
    held, labels = held.subset(rows), labels[rows]
    check = ConsistencyCheck(engine, spec, health)
    codes = encode_all(engine, held)
    evidence = evidence_alone(engine, check, codes)
    table = _label_table(evidence, held.present, labels, len(kind.classes))
    column = spec.names.index(kind.spec.name)
    shown = _shown(held.present, column, generator)
    _contradict(codes, evidence, generator)
    evidence = np.where(shown[:, :, None], evidence, 0.0)
    joint = [
        engine.fuse({n: c[part] for n, c in codes.items()}, shown[part])
        for part in batches(len(rows))
    ]
    mean, std = (np.concatenate(parts) for parts in zip(*joint))
    told = engine.decode(kind.spec.name, mean)
    right = told.argmax(axis=1) == labels
    if min(right.sum(), (~right).sum()) < LEAST_WRONG:
        return health
    found = features(table, told, evidence, check.largest_surprise(evidence, shown), std)
    arrays = {TABLE: table, WEIGHTS: _regression(found, right)}
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    return replace(health, class_heads={**health.class_heads, **arrays})


def _label_table(
    evidence: np.ndarray, present: np.ndarray, labels: np.ndarray, count: int
) -> np.ndarray:
    """p(label | shared class), of what all present modalities say together, ``float64[K, L]``."""
    total = np.where(present[:, :, None], evidence, 0.0).sum(axis=1)
    shares = np.exp(total - log_sum(total)[:, None])
    table: np.ndarray = shares.T @ np.eye(count)[labels] + 1e-3
    return table / table.sum(axis=1, keepdims=True)


def _contradict(
    codes: dict[str, Array], evidence: np.ndarray, generator: np.random.Generator
) -> None:
    """Let one modality show another row, in some rows."""
    lying = np.flatnonzero(generator.random(len(evidence)) < CONTRADICTORY)
    columns = generator.integers(len(codes), size=len(lying))
    others = generator.integers(len(evidence), size=len(lying))
    for each, code in enumerate(codes.values()):
        one = columns == each
        code[lying[one]] = code[others[one]]
        evidence[lying[one], each] = evidence[others[one], each]


def _shown(present: np.ndarray, column: int, generator: np.random.Generator) -> np.ndarray:
    """Draw a part of what each row has, ``bool[N, M]``, seldom with the label itself."""
    keys = np.where(present, generator.random(present.shape), 2.0)
    keys[generator.random(len(keys)) >= LABEL_SEEN, column] += 1.0
    kept = generator.integers(1, present.shape[1] + 1, size=len(keys))
    rank = keys.argsort(axis=1).argsort(axis=1)
    first = rank == 0
    return first | ((rank < kept[:, None]) & (keys < 1.0))


def _regression(found: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Weights ``float64[F]`` of a logistic regression, by maximum likelihood."""
    scale = np.maximum(found.std(axis=0), 0.1)
    scale[-1] = 1.0
    scaled, sign = found / scale, np.where(right, 1.0, -1.0)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (scaled @ weights)
        slope = -sign / (1.0 + np.exp(np.clip(margin, -30.0, 30.0)))
        value = np.logaddexp(0.0, -margin).mean() + _DECAY * weights @ weights
        return float(value), scaled.T @ slope / len(sign) + 2.0 * _DECAY * weights

    fitted: np.ndarray = minimize(loss, np.zeros(FEATURES), jac=True, method='L-BFGS-B').x
    return fitted / scale
