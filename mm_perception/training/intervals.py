"""How far off what fills in may be: intervals that hold 90 % of the time, by what is left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mm_perception.fusion.memory import INTERVAL
from mm_perception.modalities.base import Array

HELD = 0.9
STILL = 0.3
"""What moves by less than this part of the usual counts as still."""
NARROWEST = 0.1
"""Factor on intervals, at least: of what never moved on a few recordings little is known."""
FEWEST = 20
"""Queries below which still and moving are not told apart."""


class Spread(NamedTuple):
    """
    Std of what fills in: the root of ``still`` squared and ``moving`` times its change squared.

    :param still: where nothing seems to move, ``float32[E]``, or ``[1]`` for all elements.
    :param moving: in parts of how far what fills in has moved, alike.
    """

    still: Array
    moving: Array

    @classmethod
    def of(cls, half: Array, more: Array) -> Spread:
        """Spread of halves of intervals."""
        still, moving = (np.asarray(part / INTERVAL, np.float32) for part in (half, more))
        return cls(still, moving)

    def half(self, moved: Array) -> Array:
        """Half of the interval of 90 %, ``float32[Q, E or 1]``; see :func:`learn_spread`."""
        half: Array = INTERVAL * np.hypot(self.still, self.moving * moved[:, None])
        return half

    def times(self, factor: float) -> Spread:
        """Wider or narrower."""
        return Spread(self.still * np.float32(factor), self.moving * np.float32(factor))


def learn_spread(left: Array, moved: Array, stretches: float, least: Array) -> Spread:
    """
    Learn a spread from errors on recordings left out.

    Those in which little moved are taken alone: many recordings are mostly still, and what holds
    for nine in ten of their rows does not hold while they move.

    :param left: absolute errors, ``float32[Q, E]``.
    :param moved: root mean square of the change since the loss, ``float32[Q]``.
    :param stretches: how many pieces of the recordings, each as long as the loss, the errors are
        from; the fewer, the further above 90 % of the errors the interval reaches.
    :param least: that an interval reaches, ``float32[E]``, or ``[1]`` for one figure for all.
    """
    still = moved <= STILL * np.sqrt((moved**2).mean())
    axis = 0 if len(least) == left.shape[1] else None
    if min(still.sum(), (~still).sum()) < FEWEST:
        half = np.maximum(_quantile(left, stretches, axis), least)
        return Spread.of(half, np.zeros_like(half))
    share = still.mean()
    half = np.maximum(_quantile(left[still], share * stretches, axis), least)
    rest = np.sqrt(np.maximum(left[~still] ** 2 - half**2, 0.0)) / moved[~still, None]
    more = _quantile(rest, (1.0 - share) * stretches, axis)
    return Spread.of(half, more)


def correction(parts: Sequence[Array], recordings: int) -> float:
    """
    By how much intervals are too narrow on recordings that nothing was learned from.

    :param parts: absolute errors in halves of the intervals, of any shape; at least one.
    :param recordings: how many there were; one alone is no evidence against many.
    """
    together = np.concatenate([part.ravel() for part in parts])
    if not len(together) or recordings < 2:
        return 1.0
    needed = float(np.quantile(together, HELD))
    return max(needed, NARROWEST) ** (1.0 - 1.0 / recordings)


def _quantile(values: Array, stretches: float, axis: int | None) -> Array:
    """Quantile that holds 9 in 10 times on new recordings, ``float32[E]`` or ``[1]``."""
    level = min(HELD * (1.0 + 1.0 / max(stretches, 1e-3)), 1.0)
    return np.atleast_1d(np.quantile(values, level, axis=axis)).astype(np.float32)
