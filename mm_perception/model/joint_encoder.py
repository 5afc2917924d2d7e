"""Joint encoders that combine messages of any subset, and the dropout that trains them for it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from mm_perception.errors import ConfigError
from mm_perception.model.distributions import DiagonalGaussian, Posterior, scatter_rows
from mm_perception.model.networks import ByName, dense, split_posterior
from mm_perception.spec import ModelSpec


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


Codes = Mapping[str, Tensor]
Sizes = Mapping[str, int]


def aggregate_mean(messages: Tensor, present: Tensor) -> Tensor:
    """
    Average the messages of the present modalities.

    :param messages: one message per modality, ``float[B, M, K]``.
    :param present: which modalities were observed, ``bool[B, M]``; a row with none gives 0.
    :returns: the aggregated message, ``float[B, K]``.

    Vasco et al. 2022, section 5.1, eq. 17.
    """
    total = messages.masked_fill(~present[:, :, None], 0.0).sum(1)
    return total / present.to(messages.dtype).sum(1, keepdim=True).clamp_min(1.0)


def on_rows(network: nn.Module, inputs: Tensor, rows: Tensor, size: int) -> Tensor:
    """
    Apply a network to some rows; the others give zeros and touch no batch statistics.

    :param rows: ``bool[B]``; fewer than two give zeros while training.
    :param size: of the network's outputs.
    """
    if not network.training:
        return network(inputs).masked_fill(~rows[:, None], 0.0)
    if rows.sum() < 2:
        return torch.zeros(len(inputs), size, device=inputs.device)
    return scatter_rows(network(inputs[rows]), rows)


class JointEncoder(nn.Module, ABC):
    """
    Joint posterior of any subset of the modalities.

    :param spec: sizes of the layers.
    :param sizes: of the codes that enter, which begin with a latent; None where the modalities'
        own encoders give messages already.
    """

    fuses: ClassVar[bool] = True
    """Whether several present modalities all shape the joint posterior's mean."""
    gaussian: ClassVar[bool] = True
    """Whether the joint posterior is one diagonal Gaussian."""

    def __init__(self, spec: ModelSpec, sizes: Sizes | None) -> None:
        super().__init__()
        self.names = spec.names

    @staticmethod
    def code_dim(spec: ModelSpec) -> int:
        """Size of the codes that enter where ``sizes`` is None."""
        return spec.message_dim

    message_dim: int
    """Size K of the messages."""

    @abstractmethod
    def message(self, name: str, code: Tensor) -> Tensor:
        """What depends on one modality alone: ``float[B, K]`` of ``float[B, C_m]``."""

    @abstractmethod
    def fuse(self, messages: Codes, present: Tensor) -> Posterior:
        """
        Joint posterior of the present modalities.

        :param messages: ``float[B, K]`` per modality; rows that are absent are ignored.
        :param present: ``bool[B, M]``.
        """

    def fit(self, latents: Codes) -> None:
        """Prepare for the codes of the training set, ``float[N, C_m]``, before training."""

    def own_loss(
        self, codes: Codes, targets: Codes, seen: Tensor, recorded: Tensor
    ) -> Tensor | None:
        """
        Loss by which the encoder itself learns, beside that of the objective; None without.

        :param targets: what the codes are samples of, ``float[B, C_m]``.
        :param seen: what is observed, ``bool[B, M]``; ``recorded``: what is known.
        """
        return None

    def expected(self, name: str, joint: Tensor, decoded: Tensor) -> Tensor:
        """Latent ``float[B, d_m]`` that a joint one gives, of what its top decoder says."""
        return decoded

    def forward(self, codes: Codes, present: Tensor) -> Posterior:
        """Joint posterior of codes ``float[B, C_m]``, see :meth:`message` and :meth:`fuse`."""
        return self.fuse({n: self.message(n, codes[n]) for n in self.names}, present)


JOINT_ENCODERS: dict[str, type[JointEncoder]] = {}
DEFAULT_JOINT_ENCODER = 'mean'
SKIP = 'skip'
RENAMED = {'surest': 'most_certain', '': DEFAULT_JOINT_ENCODER}
"""Names in older configurations and bundles, and what is taken where training names none."""
EncoderT = TypeVar('EncoderT', bound=type[JointEncoder])


def joint_encoder(name: str) -> Callable[[EncoderT], EncoderT]:
    """Register a joint encoder under a name for ``model.joint_encoder``."""

    def register(encoder: EncoderT) -> EncoderT:
        JOINT_ENCODERS[name] = encoder
        return encoder

    return register


def find_joint_encoder(name: str) -> type[JointEncoder]:
    """
    Find a joint encoder by name.

    :raises ConfigError: if there is none of that name.
    """
    name = RENAMED.get(name, name)
    if name not in JOINT_ENCODERS:
        known = ', '.join(JOINT_ENCODERS)
        raise ConfigError(f'model.joint_encoder: unknown "{name}"; known: {known}')
    return JOINT_ENCODERS[name]


@joint_encoder('mean')
class MeanAggregator(JointEncoder):
    """Mapping networks, mean of the messages, joint encoder."""

    def __init__(self, spec: ModelSpec, sizes: Sizes | None) -> None:
        super().__init__(spec, sizes)
        self.message_dim = spec.message_dim
        self.mapping = nn.ModuleDict(
            {
                name: nn.Identity() if sizes is None else nn.Linear(sizes[name], spec.message_dim)
                for name in spec.names
            }
        )
        layers = (self.width(spec), *spec.joint_hidden)
        self.hidden = dense(layers, 'leaky_relu', True)
        self.posterior = nn.Linear(layers[-1], 2 * spec.joint_latent_dim)

    @staticmethod
    def width(spec: ModelSpec) -> int:
        """Size of the aggregated message."""
        return spec.message_dim

    def aggregate(self, messages: Tensor, present: Tensor) -> Tensor:
        """Combine ``float[B, M, K]`` of the modalities present to ``float[B, width]``."""
        return aggregate_mean(messages, present)

    def message(self, name: str, code: Tensor) -> Tensor:
        """Message of a modality, see :class:`JointEncoder`."""
        return self.mapping[name](code)

    def fuse(self, messages: Codes, present: Tensor) -> DiagonalGaussian:
        """Joint posterior, see :class:`JointEncoder`."""
        together = torch.cat([messages[name] for name in self.names], dim=1)
        stacked = together.reshape(-1, len(self.names), self.message_dim)
        aggregated = self.aggregate(stacked, present)
        return DiagonalGaussian(*split_posterior(self.posterior(self.hidden(aggregated))))


@joint_encoder('attention')
class Attention(MeanAggregator):
    """
    Weighted mean of the messages of the present modalities.

    Each part of a message has a weight of its own, a softmax over the present modalities of a
    score that the message gives itself.
    """

    def __init__(self, spec: ModelSpec, sizes: Sizes | None) -> None:
        super().__init__(spec, sizes)
        self.score = nn.Sequential(
            nn.Linear(spec.message_dim, 64), nn.Tanh(), nn.Linear(64, spec.message_dim)
        )

    def aggregate(self, messages: Tensor, present: Tensor) -> Tensor:
        """Weigh and add, see :class:`MeanAggregator`."""
        scores = self.score(messages).float().masked_fill(~present[:, :, None], -1e9)
        weights = scores.softmax(1).masked_fill(~present[:, :, None], 0.0)
        return (messages * weights).sum(1)


@joint_encoder('concatenation')
class Concatenation(MeanAggregator):
    """Messages side by side, zeros for absent modalities."""

    @staticmethod
    def width(spec: ModelSpec) -> int:
        """Size of all messages together."""
        return spec.message_dim * len(spec.modalities)

    def aggregate(self, messages: Tensor, present: Tensor) -> Tensor:
        """Concatenate, see :class:`MeanAggregator`."""
        return messages.masked_fill(~present[:, :, None], 0.0).flatten(1)


LEAST_VARIANCE = 1e-3
"""Components of standardised latents with less are not kept."""
FEW = 3000
"""Samples up to which the bottleneck has noise of the std of its numbers; of more, less noise."""


class Components(nn.Module):
    """
    Principal components of one modality's latent, each in a place of its own in the joint one.

    :param size: d of the modality's latent; joint: D of the joint latent.
    """

    forth: Tensor
    back: Tensor
    kept: Tensor

    def __init__(self, size: int, joint: int) -> None:
        super().__init__()
        self.register_buffer('forth', torch.zeros(size, joint))
        self.register_buffer('back', torch.zeros(joint, size))
        self.register_buffer('kept', torch.zeros(joint))

    def keep(self, place: int, direction: Tensor, variance: Tensor) -> None:
        """Keep the component along a unit vector ``float[d]`` at a place, at unit variance."""
        self.forth[:, place] = direction / variance.sqrt()
        self.back[place] = direction * variance.sqrt()
        self.kept[place] = 1.0


class Bottleneck(nn.Sequential):
    """
    A layer of standardised numbers that are noisy while they train.

    What the noise hides cannot be learned by heart: few recordings would allow that.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs, affine=False))
        self._noise = 1.0

    def fit(self, samples: int) -> None:
        """Choose the noise for so many different samples."""
        self._noise = min(1.0, math.sqrt(FEW / samples))

    def forward(self, data: Tensor) -> Tensor:
        """Squeeze ``float[B, inputs]``: ``float[B, outputs]``."""
        squeezed = super().forward(data)
        if not self.training:
            return squeezed
        return squeezed + self._noise * torch.randn_like(squeezed)


@joint_encoder(SKIP)
class Skip(MeanAggregator):
    """
    What is observed goes straight into the joint latent; a network fills in what is not.

    The joint latent holds the leading principal components of every modality's latent, each at
    a place of its own. Those of present modalities are copied; the mean of the messages and
    the presence mask give the others, and the width of the posterior. Back, a component is
    copied too, and top decoders add what no component holds. So whatever is observed passes the
    top level without loss, with any subset. The network learns to fill in all places, those of
    present modalities too (:meth:`own_loss`), which teaches it more than the absent ones alone.
    """

    def __init__(self, spec: ModelSpec, sizes: Sizes | None) -> None:
        if sizes is None:
            raise ConfigError(
                f'model.joint_encoder: skip copies latents, and {spec.family} has none below the'
                ' joint one; take mean'
            )
        super().__init__(spec, sizes)
        self.network_dim = spec.message_dim
        self.message_dim = spec.message_dim + spec.joint_latent_dim
        self.components = ByName[Components](
            {m.name: Components(m.latent_dim, spec.joint_latent_dim) for m in spec.modalities}
        )
        layers = (spec.joint_latent_dim, *reversed(spec.joint_hidden))
        self.bottleneck = Bottleneck(self.posterior.in_features, spec.joint_latent_dim)
        self.fill = dense(layers, 'leaky_relu', True)
        self.posterior = nn.Linear(layers[-1], 2 * spec.joint_latent_dim)

    @staticmethod
    def width(spec: ModelSpec) -> int:
        """Size of the aggregated message and the presence mask."""
        return spec.message_dim + len(spec.modalities)

    @torch.no_grad()
    def fit(self, latents: Codes) -> None:
        """Choose the components that explain most, see :class:`JointEncoder`."""
        self.bottleneck.fit(max(len(latent) for latent in latents.values()))
        found = []
        for name, code in latents.items():
            latent = code[:, : len(self.components[name].forth)]
            centred = (latent - latent.mean(0)).double()
            values, vectors = torch.linalg.eigh(centred.t() @ centred / len(latent))
            columns = vectors.t().to(latent.dtype)
            found += [(float(v), name, column) for v, column in zip(values, columns)]
        found.sort(key=lambda entry: -entry[0])
        places = range(self.posterior.out_features // 2)
        for place, (variance, name, direction) in zip(places, found):
            if variance > LEAST_VARIANCE:
                self.components[name].keep(place, direction, direction.new_tensor(variance))

    def message(self, name: str, code: Tensor) -> Tensor:
        """Message for the network, and the components, see :class:`JointEncoder`."""
        forth = self.components[name].forth
        return torch.cat([self.mapping[name](code), code[:, : len(forth)] @ forth], dim=1)

    def fuse(self, messages: Codes, present: Tensor) -> DiagonalGaussian:
        """
        Joint posterior, see :class:`JointEncoder`.

        What is filled in learns from :meth:`own_loss` alone: the evidence lower bound would draw
        it towards the prior by as much as is unknown on average, not in the case at hand.
        """
        with torch.no_grad():
            filled = self._filled(messages, present)
        mask = present.to(filled.mean.dtype)
        kept = torch.stack([self.components[name].kept for name in self.names])
        parts = torch.stack([messages[n][:, self.network_dim :] for n in self.names], dim=1)
        shown = parts.masked_fill(~present[:, :, None], 0.0).sum(1)
        return DiagonalGaussian(shown + (1.0 - mask @ kept) * filled.mean, filled.log_variance)

    def own_loss(self, codes: Codes, targets: Codes, seen: Tensor, recorded: Tensor) -> Tensor:
        """Negative log density of all known components, those that are seen among them."""
        filled = self._filled({n: self.message(n, codes[n]) for n in self.names}, seen)
        parts = [targets[n] @ self.components[n].forth for n in self.names]
        kept = torch.stack([self.components[name].kept for name in self.names])
        known = recorded.to(kept.dtype)
        truth = (torch.stack(parts, dim=1) * known[:, :, None]).sum(1)
        scaled = (truth - filled.mean).square() * (-filled.log_variance).exp()
        return 0.5 * ((scaled + filled.log_variance) * (known @ kept)).sum(1).mean()

    def _filled(self, messages: Codes, seen: Tensor) -> DiagonalGaussian:
        """What the network says of all components, copying nothing."""
        network = torch.stack([messages[n][:, : self.network_dim] for n in self.names], dim=1)
        aggregated = torch.cat([aggregate_mean(network, seen), seen.to(network.dtype)], dim=1)
        squeezed = self.bottleneck(self.hidden(aggregated))
        return DiagonalGaussian(*split_posterior(self.posterior(self.fill(squeezed))))

    def expected(self, name: str, joint: Tensor, decoded: Tensor) -> Tensor:
        """Copy the components back; the rest is decoded, see :class:`JointEncoder`."""
        part = self.components[name]
        return joint @ part.back + decoded - (decoded @ part.forth) @ part.back
