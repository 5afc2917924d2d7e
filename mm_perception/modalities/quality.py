"""What can be wrong with a sensor's data although it can be read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FROZEN, STILL, SILENT = 'frozen', 'still', 'silent'
BLACK, SATURATED, CLIPPED = 'black', 'saturated', 'clipped'
HOLES, OUT_OF_RANGE = 'holes', 'out_of_range'

SAMPLED_ROWS = 60


@dataclass(frozen=True)
class Trace:
    """
    What stays exactly equal from message to message while a sensor is stuck.

    :param mark: equal for equal data.
    :param fault: what it is called if it stays equal for too long; empty: normal.
    :param alone: a fault even if no other sensor changes meanwhile.
    """

    mark: bytes
    fault: str = ''
    alone: bool = False


@dataclass(frozen=True)
class Fault:
    """
    Something wrong with one complete value.

    :param name: one of the constants of this module.
    :param reason: one line with the figure.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Thresholds:
    """
    From where on a complete value is faulty.

    :param min_contrast: std of a model array, in parts of ``usual_std``.
    :param max_clipped: share of samples at full scale.
    :param range_margin: distance beyond a configured range, in parts of its span.
    :param max_invalid_fraction: share of elements without a finite value.
    :param usual_std: of the modality's training data.
    """

    min_contrast: float = 0.1
    max_clipped: float = 0.1
    range_margin: float = 1.0
    max_invalid_fraction: float = 0.5
    usual_std: float = 0.25


def sampled_rows(values: np.ndarray) -> np.ndarray:
    """View of some 60 whole rows, evenly spread."""
    return values[:: max(1, len(values) // SAMPLED_ROWS)]


def beyond_range(
    values: np.ndarray, low: np.ndarray, high: np.ndarray, thresholds: Thresholds
) -> Fault | None:
    """
    Find values far outside of the range that is configured for them.

    :param values: ``float[..., n]``.
    :param low: ``float[n]``.
    :param high: ``float[n]``.
    """
    excess = np.maximum(low - values, values - high) / (high - low)
    worst = float(excess.max())
    if worst <= thresholds.range_margin:
        return None
    element = int(np.unravel_index(excess.argmax(), excess.shape)[-1])
    return Fault(
        OUT_OF_RANGE,
        f'element {element} lies {worst:.3g} spans outside of its range'
        f' {low[element]:.4g} to {high[element]:.4g}',
    )
