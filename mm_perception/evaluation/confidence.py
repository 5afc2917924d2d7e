"""Does the published confidence tell right labels from wrong ones?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from mm_perception.bundle import Bundle
from mm_perception.data.dataset import Dataset
from mm_perception.engines.engine import Engine
from mm_perception.evaluation.calibration import auroc
from mm_perception.evaluation.consistency import alone
from mm_perception.evaluation.generation import (
    Row,
    encode_all,
    label_indices,
    presence,
)
from mm_perception.fusion.confidence import Confidence, read_confidence
from mm_perception.fusion.consistency import ConsistencyCheck
from mm_perception.modalities.base import Array

AUROC, ERROR = 'confidence_auroc', 'confidence_error'
BINS = 10


def confidence_of(engine: Engine, bundle: Bundle) -> tuple[ConsistencyCheck, Confidence] | None:
    """What a bundle tells its confidence by; None where it has none."""
    health = bundle.health
    found = read_confidence(bundle.spec, health) if health else None
    if health is None or found is None:
        return None
    return ConsistencyCheck(engine, bundle.spec, health), found


def tell(
    engine: Engine,
    check: ConsistencyCheck,
    confidence: Confidence,
    codes: Mapping[str, Array],
    present: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Labels that the means of joint latents give, and how likely each of them is right.

    :param codes: of every modality, ``float32[B, C_m]``.
    :param present: ``bool[B, M]``, at least one in each row.
    :returns: ``int64[B]`` and ``float64[B]``.
    """
    evidence = np.zeros((*present.shape, check.classes))
    for column, name in enumerate(check.names):
        rows = np.flatnonzero(present[:, column])
        if len(rows):
            part = {other: code[rows] for other, code in codes.items()}
            mean, std = alone(engine, part, check.names, name)
            evidence[rows, column] = check.evidence(name, part[name], mean, std)
    mean, std = engine.fuse(codes, present)
    labels = engine.decode(confidence.name, mean)
    surprise = check.largest_surprise(evidence, present)
    return labels.argmax(axis=1), confidence(labels, evidence, surprise, std)


def measure_confidence(
    engine: Engine, bundle: Bundle, dataset: Dataset, observed: Iterable[tuple[str, ...]]
) -> list[Row]:
    """
    Compare the confidence with what was right.

    :param observed: subsets; those with the label itself are left out.
    :returns: ``confidence_auroc`` where some labels are right and some wrong, and
        ``confidence_error``: how far confidence and share of right ones are apart, the mean over
        bins of equal width, by how many rows are in them.
    """
    found, labels = confidence_of(engine, bundle), label_indices(dataset, bundle.spec)
    if found is None or labels is None:
        return []
    check, confidence = found
    codes, rows = encode_all(engine, dataset), []
    for subset in observed:
        if confidence.name in subset:
            continue
        present = np.repeat(presence(dataset.names, subset)[None], len(dataset), axis=0)
        told, chance = tell(engine, check, confidence, codes, present)
        right = told == labels
        about = confidence.name, subset, 'mean'
        if right.any() and not right.all():
            value = auroc(chance[right], chance[~right])
            rows.append(Row(AUROC, *about, value, len(dataset)))
        rows.append(Row(ERROR, *about, calibration_error(chance, right), len(dataset)))
    return rows


def calibration_error(chance: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error (Guo et al. 2017, eq. 5) of ``float[N]`` and ``bool[N]``."""
    place = np.minimum((chance * BINS).astype(int), BINS - 1)
    apart = np.bincount(place, weights=chance - right, minlength=BINS)
    return float(np.abs(apart).sum() / len(chance))
