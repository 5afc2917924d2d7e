"""Log-likelihoods by importance sampling."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from mm_perception.data.dataset import Dataset
from mm_perception.evaluation.generation import Row, mean_row
from mm_perception.model.base import MultimodalModel
from mm_perception.progress import tqdm


@dataclass(frozen=True)
class Term:
    """
    A log-likelihood to estimate: log p(evaluated | given).

    :param evaluated: modalities whose density is asked for.
    :param observed: modalities that the latents are drawn from.
    :param given: modalities that the density is conditional on; the latents of a conditional
        term are drawn from these alone, so they are all of ``observed``.
    """

    evaluated: tuple[str, ...]
    observed: tuple[str, ...]
    given: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        """As it is written in a row, such as ``image|symbol``."""
        return '|'.join(','.join(names) for names in (self.evaluated, self.given) if names)


def paper_terms(first: str, second: str) -> tuple[Term, ...]:
    """
    The five rows of a likelihood table of Vasco et al. 2020 (Tables 1 and 2).

    :param first: x1, the image in the paper.
    :param second: x2, the label in the paper.
    """
    both = (first, second)
    return (
        Term((first,), (first,)),
        Term(both, (first,)),
        Term(both, (second,)),
        Term(both, both),
        Term((first,), (second,), (second,)),
    )


@torch.inference_mode()
def estimate_log_likelihood(
    model: MultimodalModel,
    data: Mapping[str, Tensor],
    observed: Collection[str],
    evaluated: Collection[str],
    samples: int,
    generator: torch.Generator | None = None,
    batch: int = 8192,
) -> Tensor:
    """
    Importance-sampled log p(x_evaluated), in nats; its expectation is a lower bound.

    HMVAE, appendix B, eq. 7 and 9, of which eq. 10 and 13 are differences.

    :param data: ``float[N, *shape_m]`` of every modality, on the model's device.
    :param observed: modalities that the latents are drawn from.
    :param samples: draws per row.
    :param generator: of the draws, on the model's device.
    :param batch: draws that are evaluated at a time, over all rows; bounds the memory. The
        likelihood ``optimal_sigma`` takes its variance from them, so depends on it.
    :returns: ``float64[N]``.
    """
    count = len(next(iter(data.values())))
    draws = min(samples, batch)
    sizes = [min(draws, samples - start) for start in range(0, samples, draws)]
    title = f'log p({",".join(evaluated)}) from {",".join(observed)}'
    results = []
    for rows in tqdm(torch.arange(count).split(batch // draws), desc=title, leave=False):
        total = torch.full((len(rows),), -math.inf, dtype=torch.float64)
        for size in sizes:
            repeated = {n: values[rows].repeat_interleave(size, 0) for n, values in data.items()}
            weights = model.log_weights(repeated, observed, evaluated, generator)
            part = weights.double().view(len(rows), size).logsumexp(1)
            total = torch.logaddexp(total.to(part.device), part)
        results.append(total - math.log(samples))
    return torch.cat(results)


def measure_likelihood(
    model: MultimodalModel,
    dataset: Dataset,
    terms: Iterable[Term],
    samples: int = 100,
    seed: int = 0,
    batch: int = 8192,
) -> list[Row]:
    """
    Mean log-likelihoods of a dataset, in nats per sample.

    A conditional one is a difference: log p(x1 | x2) = log p(x1, x2) - log p(x2), both with
    the latents drawn from x2 (Vasco et al. 2020, appendix; HMVAE, eq. 10 and 13).

    :param samples: importance samples per row.
    :returns: ``log_likelihood`` per term, estimator ``importance_SAMPLES``.
    """
    device = next(model.parameters()).device
    everything = np.arange(len(dataset))
    data = {n: torch.from_numpy(dataset.rows(n, everything)).to(device) for n in dataset.names}

    @cache
    def estimate(evaluated: frozenset[str], observed: tuple[str, ...]) -> np.ndarray:
        names = tuple(n for n in dataset.names if n in evaluated)
        generator = torch.Generator(device).manual_seed(seed)
        found = estimate_log_likelihood(model, data, observed, names, samples, generator, batch)
        result: np.ndarray = found.cpu().numpy()
        return result

    rows = []
    for term in terms:
        values = estimate(frozenset((*term.evaluated, *term.given)), term.observed)
        if term.given:
            values = values - estimate(frozenset(term.given), term.observed)
        estimator = f'importance_{samples}'
        rows.append(mean_row('log_likelihood', term.target, term.observed, estimator, values))
    return rows
