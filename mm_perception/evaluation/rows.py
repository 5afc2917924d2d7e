"""One measured figure, complete in itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Row:
    """
    One metric of one target given one subset of observed modalities.

    :param metric: such as ``accuracy``, ``mfd``, ``log_likelihood``.
    :param target: the modality that was generated, or ``latent``.
    :param observed: the observed modalities.
    :param estimator: ``mean`` or ``sample`` of the latents, or how else it was estimated.
    :param n: number of test samples.
    :param standard_error: of ``value``, where it is a mean over the test samples.
    """

    metric: str
    target: str
    observed: tuple[str, ...]
    estimator: str
    value: float
    n: int
    standard_error: float | None = None


def mean_row(
    metric: str, target: str, observed: tuple[str, ...], estimator: str, values: np.ndarray
) -> Row:
    """
    Row of the mean of one value per test sample, with its standard error.

    :param values: ``[N]``.
    """
    values = values.astype(np.float64)
    count = len(values)
    error = float(values.std(ddof=1)) / math.sqrt(count) if count > 1 else None
    return Row(metric, target, observed, estimator, float(values.mean()), count, error)
