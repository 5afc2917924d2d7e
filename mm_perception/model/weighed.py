"""The joint encoder that weighs its sensors: how usual, sure and agreed with each one is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mm_perception.model.joint_encoder import Codes, MeanAggregator, Sizes, joint_encoder
from mm_perception.model.networks import ByName
from mm_perception.model.uncertainty import Novelty
from mm_perception.spec import ModelSpec

CLASSES = 24
"""Shared classes that views are about."""
HIDDEN = 128
LEAST_SHARE = 1e-4
_FEATURES = 4
_HELD_OUT = 2000
_ALONE = -20.0
_COMPARED = 256


class View(nn.Module):
    """
    What one modality alone says: shares of classes that all modalities have in common.

    The more unusual its latent is, the flatter they are; by how much is learned.

    :param size: of the latent.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.novelty = Novelty(size)
        self.network = nn.Sequential(
            nn.Linear(size, HIDDEN), nn.LeakyReLU(0.01), nn.Linear(HIDDEN, CLASSES)
        )
        self.flattening = nn.Parameter(torch.zeros(1))

    @torch.no_grad()
    def fit(self, latents: Tensor) -> None:
        """Learn what is usual of the training set's standardised latents, ``float[N, d]``."""
        order = torch.randperm(len(latents), generator=torch.Generator().manual_seed(1))
        held_out = latents[order[:_HELD_OUT].to(latents.device)]
        self.novelty.fit(latents, 1.0 - latents.var(0, correction=0), held_out)

    def forward(self, code: Tensor) -> Tensor:
        """Log shares and, last, how unusual ``float[B, d]`` is: ``float[B, CLASSES + 1]``."""
        unusual = self.novelty.excess(code)[:, None]
        flatter = 1.0 + self.flattening.exp() * unusual
        shares = (self.network(code).float() / flatter).softmax(1).clamp_min(LEAST_SHARE)
        return torch.cat([shares.log(), unusual], dim=1)


@joint_encoder('weighed')
class Weighed(MeanAggregator):
    """
    Mean of the messages, each weighed by how far its sensor can be believed.

    Every modality has a :class:`View` of classes that all share, which is learned from what
    occurs together (:meth:`own_loss`). How unusual a latent is, the entropy of its view, and
    how far the views of the others agree with it, pair by pair, give two numbers for it: the
    weight of its message, beside one of 1 for no message at all, and the power with which its
    view enters the product of all views. That product is shown to the encoder beside the mean.
    Weights are learned where training shows strange sensors (``strange``).

    The agreement of views p and q of K classes is log K sum_k p_k q_k, that of the densities
    p(a, b) / (p(a) p(b)) if data are independent given the class.
    """

    def __init__(self, spec: ModelSpec, sizes: Sizes | None) -> None:
        super().__init__(spec, sizes)
        self.content_dim = spec.message_dim
        self.message_dim = spec.message_dim + CLASSES + 1
        self.view = ByName[View](
            {n: View(spec.message_dim if sizes is None else sizes[n]) for n in spec.names}
        )
        count = len(spec.modalities)
        self.trust = nn.Sequential(
            nn.Linear(_FEATURES + count, 32), nn.LeakyReLU(0.01), nn.Linear(32, 2)
        )
        self.register_buffer('itself', torch.eye(count))

    itself: Tensor

    @staticmethod
    def width(spec: ModelSpec) -> int:
        """Size of the weighed message and of the product of views, twice."""
        return spec.message_dim + 2 * CLASSES

    @torch.no_grad()
    def fit(self, latents: Codes) -> None:
        """Learn which latents are usual, see :class:`JointEncoder`."""
        for name, latent in latents.items():
            self.view[name].fit(latent)

    def message(self, name: str, code: Tensor) -> Tensor:
        """Message and view, see :class:`JointEncoder`."""
        return torch.cat([self.mapping[name](code), self.view[name](code)], dim=1)

    def aggregate(self, messages: Tensor, present: Tensor) -> Tensor:
        """Weigh and add, and multiply the views, see :class:`MeanAggregator`."""
        content, views, unusual = messages.split([self.content_dim, CLASSES, 1], dim=2)
        absent = ~present[:, :, None]
        # Views learn from own_loss alone: the bound is a hundred times as steep, and wants them
        # to carry what it reconstructs, not to be right about classes.
        views, unusual = views.detach().float(), unusual.detach()
        trust = self.trust(self._features(views, unusual, present))
        weight = trust[:, :, :1].clamp(-8.0, 8.0).exp().masked_fill(absent, 0.0)
        power = (2.0 * trust[:, :, 1:].sigmoid()).masked_fill(absent, 0.0)
        mean = (weight / (1.0 + weight.sum(1, keepdim=True)) * content).sum(1)
        product = (power * views).sum(1).softmax(1)
        return torch.cat([mean, product, product.clamp_min(LEAST_SHARE).log() / 4.0], dim=1)

    def _features(self, views: Tensor, unusual: Tensor, present: Tensor) -> Tensor:
        """What the trust in each modality depends on, ``float[B, M, _FEATURES + M]``."""
        shares = views.exp()
        entropy = -(shares * views).sum(2, keepdim=True)
        agreement = (CLASSES * shares @ shares.transpose(1, 2)).log()
        others = (present[:, None, :].float() * (1.0 - self.itself)) > 0.5
        count = others.float().sum(2, keepdim=True)
        mean = agreement.masked_fill(~others, 0.0).sum(2, keepdim=True) / count.clamp_min(1.0)
        best = agreement.masked_fill(~others, _ALONE).amax(2, keepdim=True)
        best = torch.where(count > 0.5, best, torch.zeros_like(best))
        which = self.itself + 0.0 * shares[:, :, :1]
        return torch.cat([entropy, unusual.float(), mean, best, which], dim=2)

    def own_loss(self, codes: Codes, targets: Codes, seen: Tensor, recorded: Tensor) -> Tensor:
        """Logistic loss of telling pairs of one row from pairs of two by the views' agreement."""
        recorded = recorded[:_COMPARED]
        shares = torch.stack(
            [self.view[n](codes[n][:_COMPARED])[:, :-1].exp() for n in self.names]
        )
        first, second = torch.triu_indices(len(shares), len(shares), 1)
        log_odds = (CLASSES * shares[first] @ shares[second].transpose(1, 2)).log()
        known = recorded.t()
        known = known[first][:, :, None] & known[second][:, None, :]
        same = torch.eye(len(recorded), dtype=torch.bool, device=recorded.device)
        together, apart = known & same, known & ~same
        softplus = nn.functional.softplus
        loss = (softplus(-log_odds) * together).sum() / together.sum().clamp_min(1)
        return loss + (softplus(log_odds) * apart).sum() / apart.sum().clamp_min(1)
