"""Weights by which ways to fill in are mixed, from their errors on recordings left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from mm_perception.fusion.memory import PARTS
from mm_perception.modalities.base import Array

OWN_WAYS = [0, 1, 2, 3, 6]
"""Those that need no model."""
UNSURE = 1.0
"""Standard errors of its gain up to which a mix is not used; fully from one more."""
FEW, ENOUGH = 2, 4
"""Folds in which something moved: too few to learn a mix from, and enough."""
NOTHING = 1e-6
"""Part of the mean error of the folds up to which nothing moved in one."""
SHRINKAGE, HELD_SHRINKAGE = 0.1, 0.3
QUIET = 0.1
"""Part of the error in training below which recordings held out hardly moved."""


class Cell:
    """
    Errors of each way to fill in a target, with some others observed, at one age.

    :param parts: holding first, then :data:`PARTS`, ``float32[7, Q, E']`` of each fold.
    """

    def __init__(self, parts: Sequence[Array]) -> None:
        self._parts = parts
        flat = [part.reshape(len(part), -1).astype(np.float64) for part in parts]
        self.grams = np.stack([part @ part.T / part.shape[1] for part in flat])
        """Mean product of the errors of two ways in each fold, ``float64[F, 7, 7]``."""

    @property
    def held(self) -> Array:
        """Error of holding, ``float32[Q, E']``."""
        return np.concatenate([part[0] for part in self._parts])

    def mixed(self, weight: NDArray[np.float64]) -> Array:
        """Error of a mix, ``float32[Q, E']``."""
        result: Array = np.tensordot(weight.astype(np.float32), np.concatenate(self._parts, 1), 1)
        return result

    def best(self, near: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """
        Weights without what the model generates, from holding or damped velocity.

        Where little is known it is damped velocity: how long that lasts was learned too.

        :param near: weights at the age before, which they are drawn to.
        """
        hold, damped = np.eye(len(self.grams[0]))[:2]
        number, sure = self._sure(hold, [damped] * len(self.grams))
        simple = hold + (sure if number > FEW else 1.0) * (damped - hold)
        weights = [self._own(gram, near) for gram in self._left_out()]
        return self._as_far_as_sure(simple, self._own(self.grams.mean(0), near), weights)

    def towards(self, prior: NDArray[np.float64], usual: float) -> NDArray[np.float64]:
        """
        Weights of all ways, from those that were learned without the model.

        :param usual: squared error of these in training; where it is far larger than here, less
            moved here than there, and they are the better known.
        """
        together = _convex(self.grams.mean(0), prior, HELD_SHRINKAGE, QUIET * usual)
        return self._as_far_as_sure(prior, together, self._towards_left_out(prior, usual))

    def cross_mixed(self, prior: NDArray[np.float64], usual: float) -> Array:
        """Error in each fold of :meth:`towards` of the others, ``float32[Q, E']``."""
        left = [
            np.tensordot(weight, part, 1)
            for weight, part in zip(self._towards_left_out(prior, usual), self._parts)
        ]
        return np.concatenate(left).astype(np.float32)

    def _left_out(self) -> list[NDArray[np.float64]]:
        """Mean of the other folds' grams, for each fold; of itself if it is the only one."""
        folds = range(len(self.grams))
        if len(folds) == 1:
            return [self.grams[0]]
        return [np.delete(self.grams, k, 0).mean(0) for k in folds]

    def _towards_left_out(
        self, prior: NDArray[np.float64], usual: float
    ) -> list[NDArray[np.float64]]:
        return [_convex(gram, prior, HELD_SHRINKAGE, QUIET * usual) for gram in self._left_out()]

    def _as_far_as_sure(
        self,
        simple: NDArray[np.float64],
        mix: NDArray[np.float64],
        left_out: Sequence[NDArray[np.float64]],
    ) -> NDArray[np.float64]:
        """From simple weights to a mix, as far as folds left out show that it is better."""
        number, sure = self._sure(simple, left_out)
        sure *= np.clip((number - FEW) / (ENOUGH - FEW), 0.0, 1.0)
        result: NDArray[np.float64] = simple + sure * (mix - simple)
        return result

    def _sure(
        self, simple: NDArray[np.float64], left_out: Sequence[NDArray[np.float64]]
    ) -> tuple[int, float]:
        """
        How sure folds are that other weights are better than simple ones, 0 to 1.

        A fold in which nothing moved tells nothing.

        :param left_out: the other weights, for each fold.
        :returns: number of folds that tell something, and how sure they are.
        """
        before, after = (
            np.array([w @ gram @ w for w, gram in zip(weights, self.grams)])
            for weights in ([simple] * len(left_out), left_out)
        )
        power = np.maximum(before, after)
        told = power > NOTHING * power.mean()
        if told.sum() < 2:
            return int(told.sum()), 0.0
        gain = (before[told] - after[told]) / power[told]
        error = np.std(gain, ddof=1) / np.sqrt(len(gain))
        return len(gain), float(np.clip(np.mean(gain) / (error + 1e-9) - UNSURE, 0.0, 1.0))

    def _own(
        self, gram: NDArray[np.float64], near: NDArray[np.float64] | None
    ) -> NDArray[np.float64]:
        gram = gram[np.ix_(OWN_WAYS, OWN_WAYS)]
        prior = np.zeros(len(gram))
        prior[gram.diagonal().argmin()] = 1.0
        if near is not None:
            prior = (prior + near[OWN_WAYS] / near[OWN_WAYS].sum()) / 2.0
        weight = np.zeros(1 + len(PARTS))
        weight[OWN_WAYS] = _convex(gram, prior, SHRINKAGE)
        return weight


def _convex(
    gram: NDArray[np.float64],
    prior: NDArray[np.float64],
    shrinkage: float,
    least: float = 0.0,
) -> NDArray[np.float64]:
    """
    Weights of at least 0 and 1 in all with the least squared error, drawn to prior ones.

    :param gram: mean products of errors.
    :param shrinkage: in parts of the least error of one way alone, or of ``least``.
    """
    size = len(gram)
    pull = shrinkage * max(gram.diagonal().min(), least) + 1e-12
    heavy = 1e4 * (np.trace(gram) / size + pull)  # holds the sum at 1
    values, vectors = np.linalg.eigh(gram)  # of errors that are alike, singular
    root = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
    rows = np.vstack([root, np.sqrt(pull) * np.eye(size), np.full(size, np.sqrt(heavy))])
    wanted = np.concatenate([np.zeros(size), np.sqrt(pull) * prior, [np.sqrt(heavy)]])
    weight, _ = nnls(rows, wanted)
    return weight / weight.sum()
