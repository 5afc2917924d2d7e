"""Forced perceptual dropout: hide modalities from the joint encoder while training."""

from __future__ import annotations

import torch
from torch import Tensor


def forced_perceptual_dropout(
    present: Tensor, rate: float, generator: torch.Generator | None = None
) -> Tensor:
    """
    Hide a random, non-empty, proper subset of the present modalities in some rows.

    :param present: which modalities were recorded, ``bool[B, M]``.
    :param rate: rho, the probability that a row is touched; rows with fewer than two present
        modalities never are.
    :returns: which modalities the joint encoder may see, ``bool[B, M]``.

    Vasco et al. 2022, section 5.2, algorithm 1, eq. 18-19: the number kept is uniform in
    1..n-1 with n present, and which ones is uniform; here for all rows at once.
    """
    rows, modalities = present.shape
    device = present.device
    count = present.sum(1)
    uniform = torch.rand(rows, 2, generator=generator, device=device)
    touched = (uniform[:, 0] < rate) & (count > 1)
    kept = 1 + (uniform[:, 1] * (count - 1)).long().clamp(max=modalities)
    keys = torch.rand(rows, modalities, generator=generator, device=device)
    keys = keys.masked_fill(~present, 2.0)
    rank = keys.argsort(1).argsort(1)
    subset = present & (rank < kept[:, None])
    return torch.where(touched[:, None], subset, present)
