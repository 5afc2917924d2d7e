"""
The sigma-lognormal model of pen strokes: trajectories from parameters, and the fit.

A stroke is a sum of primitives. Each leads from one virtual target to the next along an arc, with
a speed of lognormal shape; neighbours overlap in time, which rounds the corners (Plamondon 1995;
O'Reilly and Plamondon 2009; the action plan of virtual targets as in Berio et al. 2017).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from mm_perception.modalities.base import Array

PRIMITIVES = 10
FIT_POINTS = 64
FIT_STEPS = 250
MAX_TURN = 1.8
CHUNK = 1024


@dataclass(frozen=True)
class Plans:
    """
    Action plans of S strokes with up to K primitives each; unused ones do not move.

    :param start: where the plan begins, ``float32[S, 2]``.
    :param chord: from one virtual target to the next, ``float32[S, K, 2]``.
    :param turn: angle of the arc, radians, ``float32[S, K]``.
    :param median: time at which half of the primitive is done, in stroke durations, ``[S, K]``.
    :param log_spread: log of its duration (a standard deviation), ``[S, K]``.
    :param log_skew: log of the lognormal's sigma, ``[S, K]``.
    :param count: primitives in use, ``int64[S]``.
    """

    start: Array
    chord: Array
    turn: Array
    median: Array
    log_spread: Array
    log_skew: Array
    count: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    def subset(self, rows: np.ndarray) -> Plans:
        """Pick rows."""
        return Plans(*(getattr(self, name)[rows] for name in (*FIELDS, 'count')))


FIELDS = ('start', 'chord', 'turn', 'median', 'log_spread', 'log_skew')


def join_plans(plans: Sequence[Plans], how: Callable[[list[np.ndarray]], np.ndarray]) -> Plans:
    """Join plans by ``np.concatenate``, or those of single strokes by ``np.stack``."""
    return Plans(*(how([getattr(plan, name) for plan in plans]) for name in (*FIELDS, 'count')))


def draw(plans: Plans, points: int) -> Array:
    """
    Positions at equal times from pen-down to pen-up, ``float32[S, points, 2]``.

    :param points: number of times.
    """
    tensors = [torch.from_numpy(np.ascontiguousarray(getattr(plans, n))) for n in FIELDS]
    with torch.no_grad():
        return np.asarray(_positions(tensors, torch.linspace(0.0, 1.0, points)).numpy())


def normalise(stroke: Array, points: int = FIT_POINTS) -> Array:
    """
    Prepare a recording for the fit: in a unit box, at equal times, without pauses.

    :param stroke: ``float32[T, 2]`` at a fixed rate.
    :returns: ``float32[points, 2]``, the longer side of the bounding box from -0.5 to 0.5.
    """
    moved = np.ones(len(stroke), bool)
    moved[1:] = (np.diff(stroke, axis=0) != 0).any(axis=1)
    stroke = stroke[moved].astype(np.float64)
    padded = np.concatenate([stroke[:1], stroke, stroke[-1:]])
    smooth = 0.25 * padded[:-2] + 0.5 * stroke + 0.25 * padded[2:]
    low, high = smooth.min(axis=0), smooth.max(axis=0)
    smooth = (smooth - (low + high) / 2) / (high - low).max()
    steps = np.linalg.norm(np.diff(smooth, axis=0), axis=1)
    # Tablets sample unevenly when slow: half time, half path length.
    time = np.linspace(0.0, 1.0, len(smooth))
    time = 0.5 * time + 0.5 * np.concatenate(([0.0], np.cumsum(steps))) / steps.sum()
    grid = np.linspace(0.0, 1.0, points)
    return np.stack([np.interp(grid, time, axis) for axis in smooth.T], 1).astype(np.float32)


def fit_plans(
    strokes: Array, progress: bool = True, steps: int = FIT_STEPS
) -> tuple[Plans, Array]:
    """
    Fit an action plan to every stroke, in batches, by gradient descent.

    :param strokes: from :func:`normalise`, ``float32[S, FIT_POINTS, 2]``.
    :returns: the plans, and the root mean square error of each, ``float32[S]``.
    """
    plans, errors = [], []
    chunks = range(0, len(strokes), CHUNK)
    with tqdm(total=len(chunks) * steps, desc='fit strokes', disable=not progress) as bar:
        for first in chunks:
            plan, error = _fit_chunk(strokes[first : first + CHUNK], steps, bar)
            plans.append(plan)
            errors.append(error)
    return join_plans(plans, np.concatenate), np.concatenate(errors)


def _fit_chunk(strokes: Array, steps: int, bar: tqdm) -> tuple[Plans, Array]:
    first = join_plans([_initial_plan(stroke) for stroke in strokes], np.stack)
    tensors = [torch.from_numpy(getattr(first, name)).requires_grad_() for name in FIELDS]
    used = torch.arange(PRIMITIVES) < torch.from_numpy(first.count)[:, None]
    # Primitives that are not in use never move.
    tensors[1].register_hook(lambda gradient: gradient * used[..., None])
    target = torch.from_numpy(strokes)
    times = torch.linspace(0.0, 1.0, strokes.shape[1])
    origin = [tensor.detach().clone() for tensor in tensors]
    optimiser = torch.optim.Adam(
        [{'params': [t], 'lr': rate} for t, rate in zip(tensors, RATES, strict=True)],
        betas=(0.9, 0.98),
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, list(RATES), total_steps=steps, pct_start=0.1
    )
    for _ in range(steps):
        optimiser.zero_grad()
        error = (_positions(tensors, times) - target).square().sum(-1).mean(1)
        # A weak prior keeps the plan near its reading of the shape, so that it can be perturbed.
        prior = sum(
            weight * (tensor - start).square().flatten(1).sum(1)
            for tensor, start, weight in zip(tensors, origin, PRIOR, strict=True)
        )
        (error + prior).sum().backward()
        optimiser.step()
        schedule.step()
        bar.update()
    values = {n: tensor.detach().numpy() for n, tensor in zip(FIELDS, tensors, strict=True)}
    return Plans(**values, count=first.count), np.sqrt(error.detach().numpy())


RATES = (0.01, 0.02, 0.05, 0.008, 0.03, 0.03)
PRIOR = (0.0, 1e-4, 2e-5, 1e-2, 1e-4, 1e-4)


def _positions(tensors: Sequence[torch.Tensor], times: torch.Tensor) -> torch.Tensor:
    """Closed form of O'Reilly and Plamondon 2009: arcs traversed with lognormal speed."""
    start, chord, turn, median, log_spread, log_skew = (t.unsqueeze(1) for t in tensors)
    skew = log_skew.exp()
    late = skew * (times[:, None] - median) / log_spread.exp()
    done = torch.special.ndtr(torch.log1p(late.clamp(min=-0.999)) / skew)
    half = turn / 2
    length = done * torch.sinc(half * done / torch.pi) / torch.sinc(half / torch.pi)
    angle = half * (done - 1)
    along, across = length * angle.cos(), length * angle.sin()
    x = along * chord[..., 0] - across * chord[..., 1]
    y = across * chord[..., 0] + along * chord[..., 1]
    return start + torch.stack([x.sum(-1), y.sum(-1)], -1)


def _initial_plan(stroke: Array) -> Plans:
    """Read the plan off the shape: a primitive per piece between corners of the path."""
    borders, angle = _segment(stroke)
    count = len(borders) - 1
    times = borders / (len(stroke) - 1)
    chord = np.zeros((PRIMITIVES, 2), np.float32)
    chord[:count] = np.diff(stroke[borders], axis=0)
    turn = np.zeros(PRIMITIVES, np.float32)
    turn[:count] = np.clip(np.diff(angle[borders]) * 0.8, -2.0, 2.0)
    median = np.ones(PRIMITIVES, np.float32)
    median[:count] = (times[1:] + times[:-1]) / 2
    spread = np.full(PRIMITIVES, 0.1, np.float32)
    spread[:count] = np.diff(times) / 3.0
    skew = np.full(PRIMITIVES, 0.25, np.float32)
    return Plans(
        stroke[0].copy(), chord, turn, median, np.log(spread), np.log(skew), np.array(count)
    )


def _segment(stroke: Array) -> tuple[np.ndarray, np.ndarray]:
    """
    Split a path where it is most curved, until no piece turns by more than MAX_TURN.

    :returns: indices of the borders (first and last point included), and the unwrapped
        direction of the path at every point.
    """
    velocity = np.gradient(stroke.astype(np.float64), axis=0)
    kernel = np.array([1.0, 2.0, 3.0, 2.0, 1.0]) / 9.0
    padded = np.pad(velocity, ((2, 2), (0, 0)), mode='edge')
    velocity = np.stack([np.convolve(padded[:, k], kernel, 'valid') for k in (0, 1)], axis=1)
    angle = np.unwrap(np.arctan2(velocity[:, 1], velocity[:, 0]))
    curvature = np.abs(np.gradient(angle))
    total = np.concatenate(([0.0], np.cumsum(curvature)))
    borders = [0, len(stroke) - 1]
    while len(borders) <= PRIMITIVES:
        loads = np.where(np.diff(borders) >= 8, np.diff(total[borders]), 0.0)
        worst = int(np.argmax(loads))
        if loads[worst] < MAX_TURN and len(borders) > 2:
            break
        a, b = borders[worst], borders[worst + 1]
        borders.insert(worst + 1, _split(curvature, total, a, b))
    return np.array(borders), angle


def _split(curvature: np.ndarray, total: np.ndarray, a: int, b: int) -> int:
    """A corner inside of the piece if there is one, else where half of the turn is done."""
    inner = np.arange(a + 3, b - 2)
    corner = int(inner[np.argmax(curvature[inner])])
    if curvature[corner] > 3.0 * curvature[a:b].mean():
        return corner
    half = (total[a] + total[b]) / 2
    return int(np.clip(np.searchsorted(total, half), a + 3, b - 3))
