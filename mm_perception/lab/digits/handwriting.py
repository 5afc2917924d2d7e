"""
The handwriting resampler: new strokes from a probabilistic model of each digit.

The model is a kernel density in the space of action plans (Yin et al. 2017 perturb in such a
kinematic feature space): around every recorded plan a Gaussian whose covariance is that of the
most similar plans of the same digit and structure, plus independent noise in proportion to the
digit's own spread, followed by the slant, rotation and aspect of a writer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from mm_perception.lab.digits.kinematics import FIELDS, Plans, draw, fit_plans, normalise
from mm_perception.lab.digits.pen import RATE_HZ, PenDigit
from mm_perception.modalities import Motion

NEIGHBOURS = 8
LOCAL_SPREAD = 0.35
OWN_SPREAD = 0.04
MAX_FIT_ERROR = 0.03
MAX_CHANGE = 0.065
SLANT, ROTATION_RAD, LOG_ASPECT = 0.09, 0.05, 0.07
FEATURE_WEIGHTS = {'chord': 1.0, 'turn': 0.2, 'median': 0.5}


@dataclasses.dataclass(frozen=True)
class Handwriting:
    """
    Fitted plans of recorded digits.

    :param plans: of S recordings.
    :param labels: index of the digit, ``int64[S]``.
    :param seconds: duration of each recording, ``float32[S]``.
    :param writers: name per recording.
    :param dropped: recordings whose fit was too poor to use.
    """

    plans: Plans
    labels: np.ndarray
    seconds: np.ndarray
    writers: tuple[str, ...]
    dropped: int = 0


def fit_handwriting(digits: Sequence[PenDigit], progress: bool = True) -> Handwriting:
    """Fit the sigma-lognormal model to recordings; poor fits are dropped."""
    strokes = np.stack([normalise(digit.strokes[0]) for digit in digits])
    plans, errors = fit_plans(strokes, progress)
    good = errors <= MAX_FIT_ERROR
    kept = [digit for digit, fits in zip(digits, good, strict=True) if fits]
    return Handwriting(
        plans.subset(np.flatnonzero(good)),
        np.array([int(digit.label) for digit in kept]),
        np.array([len(digit.strokes[0]) / RATE_HZ for digit in kept], np.float32),
        tuple(digit.writer for digit in kept),
        len(digits) - len(kept),
    )


class StrokeSampler:
    """
    Draws new strokes.

    :param handwriting: the fitted recordings.
    """

    def __init__(self, handwriting: Handwriting) -> None:
        self.handwriting = handwriting
        self._neighbours = _neighbours(handwriting)
        self._spread = _spread(handwriting)

    def sources(
        self, label: int, count: int, rng: np.random.Generator, by_writer: float = 0.0
    ) -> np.ndarray:
        """
        Choose recordings of a digit to start from.

        :param by_writer: share that takes every writer equally often, however few recordings
            there are of the writer; the rest takes every recording equally often.
        :returns: rows of the handwriting, ``int64[count]``.
        """
        rows = np.flatnonzero(self.handwriting.labels == label)
        writers = np.array(self.handwriting.writers)[rows]
        favoured = round(by_writer * count)
        names = in_turn(np.unique(writers), favoured, rng)
        chosen = [rng.choice(rows[writers == name]) for name in names]
        return np.array([*chosen, *in_turn(rows, count - favoured, rng)], np.int64)

    def sample(
        self, rows: np.ndarray, points: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Draw one new stroke around each of some recordings.

        :param rows: recordings to start from, ``int64[N]``.
        :param points: positions per stroke, at equal times.
        :returns: strokes ``float32[N, points, 2]``, y up, about a unit box; durations in
            seconds, ``float32[N]``.
        """
        recorded = draw(self.handwriting.plans.subset(rows), points)
        strokes = draw(self._perturb(rows, 1.0, rng), points)
        scale = 0.5
        # A change too large to keep the character is drawn again, smaller each time.
        while (far := np.flatnonzero(_distance(strokes, recorded) > MAX_CHANGE)).size:
            strokes[far] = draw(self._perturb(rows[far], scale, rng), points)
            scale *= 0.5
        strokes = _affine(strokes, rng)
        seconds = self.handwriting.seconds[rows] * np.exp(rng.normal(0.0, 0.1, len(rows)))
        return strokes, seconds.astype(np.float32)

    def motion(self, row: int, rng: np.random.Generator) -> Motion:
        """Draw one new stroke around a recording, as a tablet would give it."""
        seconds = float(self.handwriting.seconds[row])
        count = max(int(seconds * RATE_HZ), 20)
        strokes, durations = self.sample(np.array([row]), count, rng)
        times = np.linspace(0.0, durations[0], count, dtype=np.float32)
        return Motion(strokes[0], times)

    def _perturb(self, rows: np.ndarray, scale: float, rng: np.random.Generator) -> Plans:
        plans = self.handwriting.plans
        neighbours = self._neighbours[rows]
        deviation = LOCAL_SPREAD * scale / np.sqrt(neighbours.shape[1])
        weights = rng.normal(0.0, deviation, neighbours.shape)
        changed = {}
        for name in FIELDS:
            values = getattr(plans, name)
            extra = (1,) * (values.ndim - 1)
            towards = values[neighbours] - values[rows][:, None]
            change = (weights.reshape(*weights.shape, *extra) * towards).sum(axis=1)
            noise = rng.normal(0.0, OWN_SPREAD * scale, change.shape)
            change += noise * self._spread[name][self.handwriting.labels[rows]]
            changed[name] = (values[rows] + change).astype(np.float32)
        used = np.arange(plans.chord.shape[1]) < plans.count[rows][:, None]
        changed['chord'] *= used[..., None]
        return Plans(**changed, count=plans.count[rows])


def in_turn(items: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Take items at random, none twice before all were taken."""
    rounds = -(-count // len(items))
    return np.concatenate([items[:0], *(rng.permutation(items) for _ in range(rounds))])[:count]


def _neighbours(handwriting: Handwriting) -> np.ndarray:
    """Most similar plans of the same digit and number of primitives, ``int64[S, k]``."""
    plans = handwriting.plans
    features = np.concatenate(
        [
            (np.cumsum(getattr(plans, n), axis=1) if n == 'chord' else getattr(plans, n)).reshape(
                len(plans), -1
            )
            * weight
            for n, weight in FEATURE_WEIGHTS.items()
        ],
        axis=1,
    )
    result = np.repeat(np.arange(len(plans))[:, None], NEIGHBOURS, axis=1)
    groups = handwriting.labels * 100 + plans.count
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        part = features[rows]
        square = (part**2).sum(axis=1)
        distance = square[:, None] + square - 2.0 * part @ part.T
        near = np.argsort(distance, axis=1, kind='stable')[:, 1 : NEIGHBOURS + 1]
        result[rows, : near.shape[1]] = rows[near]
    return result


def _spread(handwriting: Handwriting) -> dict[str, np.ndarray]:
    """Standard deviation of every parameter, per digit."""
    plans = handwriting.plans
    result = {}
    for name in FIELDS:
        values = getattr(plans, name)
        result[name] = np.zeros((10, *values.shape[1:]), np.float32)
        for label in np.unique(handwriting.labels):
            result[name][label] = values[handwriting.labels == label].std(axis=0)
    return result


def _distance(strokes: np.ndarray, recorded: np.ndarray) -> np.ndarray:
    difference = strokes - recorded
    difference -= difference.mean(axis=1, keepdims=True)
    return np.sqrt((difference**2).sum(axis=2).mean(axis=1))


def _affine(strokes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Slant, rotate and stretch every stroke by a little."""
    count = len(strokes)
    slant = np.clip(rng.normal(0.0, SLANT, count), -0.25, 0.25)
    angle = np.clip(rng.normal(0.0, ROTATION_RAD, count), -0.15, 0.15)
    aspect = np.exp(np.clip(rng.normal(0.0, LOG_ASPECT, count), -0.2, 0.2))
    cosine, sine = np.cos(angle), np.sin(angle)
    matrix = np.empty((count, 2, 2))
    matrix[:, 0, 0], matrix[:, 0, 1] = cosine * aspect, cosine * slant - sine
    matrix[:, 1, 0], matrix[:, 1, 1] = sine * aspect, sine * slant + cosine
    return (strokes @ matrix.transpose(0, 2, 1)).astype(np.float32)
