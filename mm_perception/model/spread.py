"""What a joint latent leaves open of a modality's own latent."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Spread(nn.Module):
    """
    Normal distribution of a modality's standardised latent about what the top decoder expects.

    A top decoder is trained with a variance of one, whatever it leaves open. Here its actual
    error on held-out data is kept, with the correlations between dimensions; samples of it
    give generated data the variety that real data have. Unfitted, there is none.

    :param latent_dim: size d of the latent.
    """

    factor: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer('factor', torch.zeros(latent_dim, latent_dim))

    @torch.no_grad()
    def fit(self, errors: Tensor) -> None:
        """
        Take the second moments of errors on held-out data.

        :param errors: latents less what was expected, ``float[N, d]``.
        """
        moments = errors.double().t() @ errors.double() / len(errors)
        floor = 1e-6 * torch.eye(len(moments), dtype=moments.dtype, device=moments.device)
        self.factor.copy_(torch.linalg.cholesky(moments + floor))

    def forward(self, noise: Tensor) -> Tensor:
        """Error of standard normal ``float[B, d]``: ``float[B, d]``."""
        return noise @ self.factor.t()
