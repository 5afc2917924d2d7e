"""Is the truth within the published std as often as it says?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np
from scipy.special import ndtri
from scipy.stats import mannwhitneyu

from mm_perception.data.dataset import Dataset
from mm_perception.engines.engine import Engine
from mm_perception.evaluation.generation import (
    Row,
    decode_all,
    encode_all,
    fuse_all,
    joint_latents,
    mean_row,
    presence,
)
from mm_perception.progress import tqdm

LEVELS = np.arange(1, 20) / 20
ACTIVE = 0.01
"""Smallest variance of a latent dimension's mean that counts as active (Burda et al. 2016)."""
CERTAIN = 0.01
"""Elements with a smaller std, in units of the data's range, are left out."""


def coverage(z: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """
    Count how often the truth lies within central intervals of the normal distribution claimed.

    :param z: (truth - mean) / std, any shape.
    :param levels: nominal shares of the intervals, ``[L]``.
    :returns: shares that lie in them, ``[L]``.
    """
    inside = np.searchsorted(np.sort(np.abs(z), axis=None), ndtri(0.5 + levels / 2), 'right')
    result: np.ndarray = inside / z.size
    return result


def calibration(z: np.ndarray) -> dict[str, float]:
    """
    Compare deviations with the normal distribution that was claimed.

    Kuleshov et al. 2018, "Accurate uncertainties for deep learning using calibrated
    regression", for central intervals.

    :param z: (truth - mean) / std, any shape.
    :returns: ``calibration_error``, the mean of ``|coverage - level|`` (0 is best);
        ``coverage_90``; ``z_variance``, the mean square: 1 is right, above 1 is too sure.
        Empty without deviations.
    """
    if not z.size:
        return {}
    return {
        'calibration_error': float(np.abs(coverage(z, LEVELS) - LEVELS).mean()),
        'coverage_90': coverage(z, np.array([0.9])).item(),
        'z_variance': float(np.square(z, dtype=np.float64).mean()),
    }


def auroc(scores_positive: np.ndarray, scores_negative: np.ndarray) -> float:
    """
    Probability that a positive scores higher than a negative; ties count half.

    Area under the ROC curve by the rank sum of Mann and Whitney.

    :param scores_positive: ``float[P]``; ``scores_negative``: ``float[N]``.
    """
    above = mannwhitneyu(scores_positive, scores_negative, method='asymptotic').statistic
    return float(above / (len(scores_positive) * len(scores_negative)))


def uncertainty(std: np.ndarray) -> np.ndarray:
    """
    One number for how unsure a posterior is: the mean log std over dimensions.

    :param std: ``float[N, D]``.
    :returns: ``float[N]``; for a normal posterior, its entropy per dimension, but for a constant.
    """
    result: np.ndarray = np.log(std).mean(axis=1)
    return result


def measure_latent_calibration(
    engine: Engine,
    dataset: Dataset,
    observed: Iterable[tuple[str, ...]],
    estimator: str = 'sample',
    seed: int = 0,
) -> list[Row]:
    """
    Compare the posterior given a subset with the one given all modalities.

    Were both exact, samples of the latter would be spread as the former says. Only active
    dimensions count, since the others are trivially right; without any there are no rows.

    :param estimator: what stands for the truth: ``sample`` or ``mean`` of the posterior given
        all modalities; the mean is spread less.
    :returns: ``calibration_error``, ``coverage_90`` and ``z_variance`` per subset.
    """
    codes, everything = encode_all(engine, dataset), presence(dataset.names, dataset.names)
    active = fuse_all(engine, codes, everything)[0].var(axis=0) > ACTIVE
    truth = joint_latents(engine, codes, everything, estimator, seed)
    rows = []
    for subset in tqdm(list(observed), desc='calibration', unit='subset', leave=False):
        mean, std = fuse_all(engine, codes, presence(dataset.names, subset))
        figures = calibration(((truth - mean) / std)[:, active]).items()
        rows += [Row(m, 'latent', subset, estimator, value, len(dataset)) for m, value in figures]
    return rows


def measure_reconstruction_calibration(
    engine: Engine,
    dataset: Dataset,
    observed: Sequence[tuple[str, ...]],
    estimator: str = 'ancestral',
    seed: int = 0,
    rows: int = 500,
    samples: int = 16,
) -> list[Row]:
    """
    Compare the std of what is generated, over latent samples, with its actual error.

    The std does not hold the noise of the data itself, so it is expected to be too small.

    :param estimator: of the latents below the joint one, see
        :data:`~mm_perception.evaluation.generation.ESTIMATORS`; the joint one is drawn in any
        case, from a normal distribution of the published mean and std.
    :param rows: how many rows, drawn at random, are used.
    :param samples: latent samples per row.
    :returns: per subset and modality (observed or not): ``calibration_error``,
        ``coverage_90``, ``z_variance`` and ``error_per_std``, the root mean square error
        divided by the root mean square std.
    """
    chosen = np.random.default_rng(seed).permutation(len(dataset))[:rows]
    part = dataset.subset(np.sort(chosen))
    count, codes = len(part), encode_all(engine, part)
    result = []
    for subset in tqdm(list(observed), desc='spread', unit='subset', leave=False):
        mean, std = fuse_all(engine, codes, presence(part.names, subset))
        noise = np.random.default_rng(seed).standard_normal((samples, *mean.shape), np.float32)
        draws = (mean + std * noise).reshape(samples * count, -1)
        for target in part.names:
            made = [arrays for _, arrays in decode_all(engine, target, draws, estimator, seed)]
            drawn = np.concatenate(made).reshape(samples, count, -1)
            truth = part.rows(target, np.arange(count)).reshape(count, -1)
            for metric, value in _spread(truth, drawn.mean(0), drawn.std(0, ddof=1)).items():
                result.append(Row(metric, target, subset, estimator, value, count))
    return result


def measure_uncertainty(
    engine: Engine, dataset: Dataset, observed: Iterable[tuple[str, ...]]
) -> list[Row]:
    """
    See how unsure the joint posterior is, and whether it grows so when a sensor falls away.

    Rows that show the same data in all observed modalities count once.

    :returns: ``uncertainty`` per subset, and for those of several modalities
        ``uncertainty_growth``: share of (row, sensor that falls away) where it rises.
    """
    codes = encode_all(engine, dataset)

    @cache
    def of(subset: tuple[str, ...]) -> np.ndarray:
        return uncertainty(fuse_all(engine, codes, presence(dataset.names, subset))[1])

    rows = []
    for subset in tqdm(list(observed), desc='uncertainty', unit='subset', leave=False):
        once = _distinct(dataset, subset)
        rows.append(mean_row('uncertainty', 'latent', subset, 'mean', of(subset)[once]))
        if len(subset) > 1:
            less = [tuple(n for n in subset if n != gone) for gone in subset]
            grown = np.mean([of(rest)[once] > of(subset)[once] for rest in less], axis=0)
            rows.append(mean_row('uncertainty_growth', 'latent', subset, 'mean', grown))
    return rows


def measure_novelty(
    engine: Engine, known: Dataset, unknown: Dataset, observed: Iterable[tuple[str, ...]]
) -> list[Row]:
    """
    Ask whether the posterior is less sure of unknown data (a speaker, say) than of known.

    Rows that show the same data in all observed modalities count once.

    :returns: ``auroc`` of :func:`uncertainty` per subset; n counts both sets.
    """
    rows = []
    for subset in observed:
        novel, usual = (_distinct_uncertainty(engine, d, subset) for d in (unknown, known))
        value, count = auroc(novel, usual), len(novel) + len(usual)
        rows.append(Row('auroc', 'latent', subset, 'mean', value, count))
    return rows


def _spread(truth: np.ndarray, mean: np.ndarray, std: np.ndarray) -> dict[str, float]:
    error, unsure = truth - mean, std > CERTAIN
    figures = calibration(error[unsure] / std[unsure])
    squares = np.square(std, dtype=np.float64).mean()
    if squares > 0:
        figures['error_per_std'] = float(np.sqrt(np.square(error).mean() / squares))
    return figures


def _distinct(dataset: Dataset, subset: tuple[str, ...]) -> np.ndarray:
    """Positions of rows that differ in some of the modalities, in order."""
    shown = np.stack([dataset.index[name] for name in subset])
    return np.sort(np.unique(shown, axis=1, return_index=True)[1])


def _distinct_uncertainty(engine: Engine, dataset: Dataset, subset: tuple[str, ...]) -> np.ndarray:
    distinct = dataset.subset(_distinct(dataset, subset))
    codes = encode_all(engine, distinct)
    return uncertainty(fuse_all(engine, codes, presence(dataset.names, subset))[1])
