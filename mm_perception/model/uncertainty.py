"""How far latents may be from what a model says: the joint one, and each modality's own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from mm_perception.model.distributions import DiagonalGaussian
from mm_perception.model.joint_encoder import aggregate_mean
from mm_perception.model.networks import ByName
from mm_perception.spec import ModelSpec


class ResidualCovariance(nn.Module):
    """
    Normal distribution of a modality's standardised latent about what the top decoder expects.

    A top decoder is trained with a diagonal variance, of all subsets together. Here its actual
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


PROTOTYPES = 512
HIDDEN = 64
_ROUNDS = 12
_SAMPLE = 10_000


class Novelty(nn.Module):
    """
    How unlike all training data a modality's latent is.

    The distance to the nearest of many prototypes (k-means over the training set's latents),
    above what is usual for held-out data of known sources. Dimensions that the autoencoder
    does not use count little.

    :param latent_dim: size of the latent.
    """

    prototypes: Tensor
    activity: Tensor
    usual: Tensor
    spread: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer('prototypes', torch.zeros(PROTOTYPES, latent_dim))
        self.register_buffer('activity', torch.ones(latent_dim))
        self.register_buffer('usual', torch.tensor(1e9))
        self.register_buffer('spread', torch.ones(()))

    @torch.no_grad()
    def fit(self, latents: Tensor, variance: Tensor, held_out: Tensor) -> None:
        """
        Place the prototypes, and learn which distances are usual.

        :param latents: standardised latents of the training set, ``float[N, d]``.
        :param variance: mean variance of their posteriors, ``float[d]``.
        :param held_out: standardised latents of data that was not trained on, ``float[H, d]``.
        """
        self.activity.copy_((1.0 - variance).clamp(0.0, 1.0))
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(len(latents), generator=generator).to(latents.device)
        self.prototypes.copy_(_means(latents[order[:_SAMPLE]] * self.activity))
        distances = self.distance(held_out)
        self.usual.copy_(distances.median())
        self.spread.copy_(distances.std(correction=0).clamp_min(0.05))

    def distance(self, latents: Tensor) -> Tensor:
        """Distance of ``float[B, d]`` to the nearest prototype, ``float[B]``."""
        scaled = latents.float() * self.activity
        with torch.autocast(scaled.device.type, enabled=False):  # squares would not cancel
            products = scaled @ self.prototypes.t()
        nearest = (self.prototypes.square().sum(1) - 2.0 * products).amin(1)
        return (scaled.square().sum(1) + nearest).clamp_min(0.0).sqrt()

    def excess(self, latents: Tensor) -> Tensor:
        """
        How far ``float[B, d]`` lie beyond what is usual, on a scale without end: ``float[B]``.

        :returns: log of 1 and the distance above the usual, in units of its spread.
        """
        beyond = functional.relu((self.distance(latents) - self.usual) / self.spread)
        return (1.0 + beyond).log()

    def forward(self, latents: Tensor) -> Tensor:
        """Novelty of standardised latents ``float[B, d]``, 0 (usual) to 1: ``float[B]``."""
        below = (self.usual - self.distance(latents)) / self.spread
        return functional.relu(1.0 - torch.exp(below))


class Uncertainty(nn.Module):
    """
    Standard deviations of a joint posterior that hold on data that was not trained on.

    The posterior that the evidence lower bound trains is about as narrow for one modality as
    for all: its width follows from the decoders alone. Here its variances are corrected so
    that, given some of the modalities, the latent that all of them give lies within the
    published intervals as often as they say; learned on held-out data by maximum likelihood.
    Where the present modalities are unlike all training data, the standard deviations return
    to the prior's. What the joint latent leaves open of each modality is a
    :class:`ResidualCovariance`. Untrained, it changes nothing.

    :param spec: modalities and size of the joint latent.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.names = spec.names
        size = spec.joint_latent_dim
        self.novelty = ByName[Novelty]({m.name: Novelty(m.latent_dim) for m in spec.modalities})
        self.spread = ByName[ResidualCovariance](
            {m.name: ResidualCovariance(m.latent_dim) for m in spec.modalities}
        )
        self.correction = nn.Sequential(
            nn.Linear(len(spec.modalities) + 2 * size, HIDDEN),
            nn.LeakyReLU(0.01),
            nn.Linear(HIDDEN, HIDDEN),
            nn.LeakyReLU(0.01),
            nn.Linear(HIDDEN, size),
        )
        for parameter in self.correction[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, posterior: DiagonalGaussian, latents: Mapping[str, Tensor], present: Tensor
    ) -> DiagonalGaussian:
        """
        Correct the variances of a joint posterior; its mean stays.

        :param posterior: of the present modalities, ``float[B, D]``.
        :param latents: standardised unimodal latents, ``float[B, d_m]`` each.
        :param present: ``bool[B, M]``.
        """
        novelty = torch.stack([self.novelty[n](latents[n]) for n in self.names], dim=1)
        return self.correct(posterior, novelty, present)

    def correct(
        self, posterior: DiagonalGaussian, novelty: Tensor, present: Tensor
    ) -> DiagonalGaussian:
        """Like :meth:`forward`, with the novelty of each modality, ``float[B, M]``, known."""
        novel = aggregate_mean(novelty[:, :, None], present)
        change = self.correction(torch.cat([present.float(), *posterior], dim=1)).clamp(-3.0, 6.0)
        # The prior's log variance is 0.
        log_variance = (1.0 - novel) * (posterior.log_variance + change)
        return DiagonalGaussian(posterior.mean, log_variance)

    def loss(
        self,
        posterior: DiagonalGaussian,
        latents: Mapping[str, Tensor],
        present: Tensor,
        complete: DiagonalGaussian,
    ) -> Tensor:
        """
        Expected negative log density of the complete posterior's samples, less a constant.

        :param posterior: of the present modalities.
        :param complete: of all that was recorded.
        """
        mean, log_variance = self(posterior, latents, present)
        square = (complete.mean - mean).square() + complete.log_variance.exp()
        return 0.5 * (square * (-log_variance).exp() + log_variance).sum(1).mean()


def _means(points: Tensor) -> Tensor:
    """Cluster means of ``float[N, d]`` by k-means, ``float[PROTOTYPES, d]``."""
    rows = torch.arange(PROTOTYPES, device=points.device) % len(points)
    means = points[rows].clone()
    for _ in range(_ROUNDS):
        nearest = torch.cdist(points, means).argmin(1)
        sums = torch.zeros_like(means).index_add_(0, nearest, points)
        count = torch.bincount(nearest, minlength=PROTOTYPES)[:, None]
        means = torch.where(count > 0, sums / count.clamp_min(1), means)
    return means
