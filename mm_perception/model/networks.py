"""Networks of single modalities: pairs of encoder and decoder, and classifiers."""

from __future__ import annotations

import math
from collections.abc import Callable, ItemsView, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from mm_perception.config import from_plain
from mm_perception.errors import ConfigError
from mm_perception.modalities import build_modality
from mm_perception.modalities.base import CONSTANT_STD
from mm_perception.spec import ModalitySpec

Shape = tuple[int, ...]
Pair = tuple[nn.Module, nn.Module]
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    'leaky_relu': lambda: nn.LeakyReLU(0.01),
    'relu': nn.ReLU,
    'swish': nn.SiLU,
}

ModuleT = TypeVar('ModuleT', bound=nn.Module)


class ByName(nn.ModuleDict, Generic[ModuleT]):
    """Modules of one type, by the name of their modality."""

    if TYPE_CHECKING:

        def __getitem__(self, name: str) -> ModuleT: ...

        def items(self) -> ItemsView[str, ModuleT]: ...


class Reshape(nn.Module):
    """
    ``float[B, K]`` to ``float[B, *shape]``.

    Unlike ``nn.Unflatten`` it is one step of an exported graph, not five.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, flat: Tensor) -> Tensor:
        """Give each row its shape."""
        return flat.reshape(-1, *self.shape)


def dense(sizes: Sequence[int], activation: str, batch_norm: bool) -> nn.Sequential:
    """Fully connected layers, each followed by batch norm (if asked) and an activation."""
    layers: list[nn.Module] = []
    for inputs, outputs in zip(sizes, sizes[1:]):
        layers.append(nn.Linear(inputs, outputs))
        if batch_norm:
            layers.append(nn.BatchNorm1d(outputs))
        layers.append(ACTIVATIONS[activation]())
    return nn.Sequential(*layers)


@dataclass(frozen=True)
class DenseOptions:
    """Options of the ``dense`` pair."""

    hidden: tuple[int, ...] = (512, 512, 512)
    activation: str = 'leaky_relu'
    batch_norm: bool = True


def build_dense(shape: Shape, latent_dim: int, options: DenseOptions) -> Pair:
    """Fully connected encoder and its mirror image; for any shape."""
    size = math.prod(shape)
    hidden = options.hidden
    encoder = nn.Sequential(
        nn.Flatten(),
        dense((size, *hidden), options.activation, options.batch_norm),
        nn.Linear(hidden[-1], 2 * latent_dim),
    )
    decoder = nn.Sequential(
        dense((latent_dim, *hidden[::-1]), options.activation, options.batch_norm),
        nn.Linear(hidden[0], size),
        Reshape(shape),
    )
    return encoder, decoder


@dataclass(frozen=True)
class ConvolutionOptions:
    """Options of the ``convolution`` pair; each channel count halves the image once."""

    channels: tuple[int, ...] = (32, 64)
    hidden: tuple[int, ...] = (128, 128)
    activation: str = 'swish'


def build_convolution(shape: Shape, latent_dim: int, options: ConvolutionOptions) -> Pair:
    """
    Convolutions (kernel 4, stride 2, padding 1) and fully connected layers, for images.

    :raises ConfigError: if the image cannot be halved often enough.
    """
    scale = 2 ** len(options.channels)
    if len(shape) != 3 or shape[1] % scale or shape[2] % scale:
        raise ConfigError(
            f'convolution needs an image whose height and width are multiples of {scale},'
            f' not {shape}'
        )
    inner = (options.channels[-1], shape[1] // scale, shape[2] // scale)
    sizes = (math.prod(inner), *options.hidden)
    chain = (shape[0], *options.channels)
    down: list[nn.Module] = []
    for inputs, outputs in zip(chain, chain[1:]):
        down += [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False)]
        down += [ACTIVATIONS[options.activation]()]
    up: list[nn.Module] = []
    for inputs, outputs in zip(chain[:0:-1], chain[-2::-1]):
        up += [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=outputs == shape[0])]
        up += [ACTIVATIONS[options.activation]()]
    encoder = nn.Sequential(
        *down,
        nn.Flatten(),
        dense(sizes, options.activation, False),
        nn.Linear(sizes[-1], 2 * latent_dim),
    )
    decoder = nn.Sequential(
        dense((latent_dim, *sizes[::-1]), options.activation, False),
        Reshape(inner),
        *up[:-1],
    )
    return encoder, decoder


@dataclass(frozen=True)
class TemporalConvolutionOptions:
    """Options of the ``temporal_convolution`` pair; all but the first count halve time."""

    channels: tuple[int, ...] = (128, 128, 256)
    activation: str = 'relu'


def build_temporal_convolution(
    shape: Shape, latent_dim: int, options: TemporalConvolutionOptions
) -> Pair:
    """
    Convolutions over time across all mel bins at once, for spectrograms ``[mels, frames]``.

    The first layer of the Nexus paper's sound network, a (1, mels) convolution over
    ``[1, frames, mels]``, is a matrix product per frame and is computed as one.

    :raises ConfigError: if time cannot be halved often enough.
    """
    scale = 2 ** (len(options.channels) - 1)
    if len(shape) != 2 or shape[1] % scale:
        raise ConfigError(
            f'temporal_convolution needs [bins, frames], frames a multiple of {scale}, not {shape}'
        )
    first, *others = options.channels
    chain = (first, *others)
    inner = (options.channels[-1], shape[1] // scale)

    def block(layer: nn.Module, channels: int) -> list[nn.Module]:
        return [layer, nn.BatchNorm1d(channels), ACTIVATIONS[options.activation]()]

    down = block(nn.Conv1d(shape[0], first, 1, bias=False), first)
    for inputs, outputs in zip(chain, others):
        down += block(nn.Conv1d(inputs, outputs, 4, 2, 1, bias=False), outputs)
    up: list[nn.Module] = []
    for inputs, outputs in zip(chain[:0:-1], chain[-2::-1]):
        up += block(nn.ConvTranspose1d(inputs, outputs, 4, 2, 1, bias=False), outputs)
    size = math.prod(inner)
    encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(size, 2 * latent_dim))
    decoder = nn.Sequential(
        nn.Linear(latent_dim, size),
        nn.BatchNorm1d(size),
        ACTIVATIONS[options.activation](),
        Reshape(inner),
        *up,
        nn.Conv1d(first, shape[0], 1),
    )
    return encoder, decoder


@dataclass(frozen=True)
class SpectralConvolutionOptions:
    """Options of the ``spectral_convolution`` pair; the first count quarters the bins."""

    channels: tuple[int, ...] = (16, 32, 64, 128)
    activation: str = 'relu'


def build_spectral_convolution(
    shape: Shape, latent_dim: int, options: SpectralConvolutionOptions
) -> Pair:
    """
    Convolutions over bins and time, for spectrograms ``[bins, frames]``.

    Unlike ``temporal_convolution`` it learns once what is alike at neighbouring bins.

    :raises ConfigError: if bins and time cannot be halved often enough.
    """
    times = len(options.channels) - 1
    if len(shape) != 2 or shape[0] % (4 << times) or shape[1] % (1 << times):
        raise ConfigError(
            f'spectral_convolution needs [bins, frames], multiples of {4 << times} and'
            f' {1 << times}, not {shape}'
        )
    inner = (options.channels[-1], shape[0] >> (times + 2), shape[1] >> times)
    size, sizes = math.prod(inner), (1, *options.channels)
    steps = [((8, 3), (4, 1), (2, 1)), *[((4, 4), (2, 2), (1, 1))] * times]

    def block(layer: nn.Module, channels: int) -> list[nn.Module]:
        return [layer, nn.BatchNorm2d(channels), ACTIVATIONS[options.activation]()]

    down: list[nn.Module] = [Reshape((1, *shape))]
    for inputs, outputs, step in zip(sizes, sizes[1:], steps):
        down += block(nn.Conv2d(inputs, outputs, *step, bias=False), outputs)
    up: list[nn.Module] = [nn.Linear(latent_dim, size), Reshape(inner)]
    for inputs, outputs, step in zip(sizes[:0:-1], sizes[-2:0:-1], steps[:0:-1]):
        up += block(nn.ConvTranspose2d(inputs, outputs, *step, bias=False), outputs)
    up += [nn.ConvTranspose2d(sizes[1], 1, *steps[0]), Reshape(shape)]
    encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(size, 2 * latent_dim))
    return encoder, nn.Sequential(*up)


LINEAR = 'linear'
LINEAR_LOG_VARIANCE = -9.0
"""Of the ``linear`` pair's latents: a std of a hundredth of the training data's."""
_EDGE = 1e-5


@dataclass(frozen=True)
class NoOptions:
    """A pair of networks without options."""


class Standardisation(nn.Module):
    """Brings each of ``n`` elements to mean 0 and std 1."""

    mean: Tensor
    std: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        self.register_buffer('mean', torch.zeros(n))
        self.register_buffer('std', torch.ones(n))

    def forward(self, data: Tensor) -> Tensor:
        """Standardise ``float[B, n]``."""
        return (data - self.mean) / self.std


class StandardisedLogits(Standardisation):
    """Logits of standardised elements: what a decoder gives whose outputs pass a sigmoid."""

    def forward(self, scaled: Tensor) -> Tensor:
        """Logits of the values in 0..1 that ``float[B, n]`` stands for."""
        data = (scaled * self.std + self.mean).clamp(_EDGE, 1.0 - _EDGE)
        return data.log() - (1.0 - data).log()


def active_elements(data: Tensor) -> Tensor:
    """Which elements of ``float[N, *shape]`` in 0..1 are not constant, ``bool[n]``."""
    return data.flatten(1).std(0, correction=0) > CONSTANT_STD


def build_linear(shape: Shape, latent_dim: int, options: NoOptions) -> Pair:
    """Principal components of standardised elements, and back; :func:`fit_linear` finds them."""
    size = math.prod(shape)
    encoder = nn.Sequential(nn.Flatten(), Standardisation(size), nn.Linear(size, 2 * latent_dim))
    decoder = nn.Sequential(nn.Linear(latent_dim, size), StandardisedLogits(size), Reshape(shape))
    return encoder, decoder


@torch.no_grad()
def fit_linear(pair: Pair, data: Tensor) -> None:
    """
    Fit the ``linear`` pair in closed form.

    With a latent per element that is not constant, each is an element, standardised: nothing is
    lost. With fewer they are principal components, of an image those of its pixels as they are.

    :param data: training data, ``float[N, *shape]`` in 0..1.
    """
    encoder, decoder = pair
    assert isinstance(encoder, nn.Sequential) and isinstance(decoder, nn.Sequential)
    forth, back = encoder[2], decoder[0]
    assert isinstance(forth, nn.Linear) and isinstance(back, nn.Linear)
    flat, active = data.flatten(1), active_elements(data)
    std = torch.where(active, flat.std(0, correction=0), 1.0)
    if data.dim() > 2:
        std = (
            flat.std(0, correction=0).square().mean().sqrt().clamp_min(CONSTANT_STD).expand_as(std)
        )
    for part in (encoder[1], decoder[1]):
        assert isinstance(part, Standardisation)
        part.mean.copy_(flat.mean(0))
        part.std.copy_(std)
    latents = back.in_features
    if latents < int(active.sum()):
        scaled = (flat - flat.mean(0)) / std * active
        basis = torch.pca_lowrank(scaled, min(latents, len(scaled)), center=False, niter=8)[2]
    else:
        basis = torch.eye(len(active), device=data.device)[:, active]
    for parameter in (*forth.parameters(), *back.parameters()):
        parameter.zero_()
    used = basis.shape[1]
    forth.weight[:used] = basis.t()
    forth.bias[latents : latents + used] = LINEAR_LOG_VARIANCE
    back.weight[:, :used] = basis


_PAIRS: dict[str, tuple[type[Any], Callable[..., Pair]]] = {}
_DEFAULT_PAIR: dict[str, str] = {}


def register_pair(
    name: str, options: type[Any], build: Callable[..., Pair], kinds: Sequence[str] = ()
) -> None:
    """
    Make a pair of networks known by a name for ``network.type``.

    :param options: dataclass that the other keys of ``network`` are read into.
    :param build: encoder and decoder of a shape, a latent size and options. The encoder gives
        ``float[B, 2 * latent_dim]`` and ends with a linear layer.
    :param kinds: kinds of modalities that take it if the configuration names none; any other
        kind takes ``dense``.
    """
    _PAIRS[name] = options, build
    _DEFAULT_PAIR.update(dict.fromkeys(kinds, name))


register_pair('dense', DenseOptions, build_dense)
register_pair('convolution', ConvolutionOptions, build_convolution, ['image'])
register_pair(LINEAR, NoOptions, build_linear)
register_pair('spectral_convolution', SpectralConvolutionOptions, build_spectral_convolution)
register_pair(
    'temporal_convolution', TemporalConvolutionOptions, build_temporal_convolution, ['sound']
)


def build_pair(spec: ModalitySpec, shape: Shape) -> Pair:
    """
    Build the encoder and decoder of a modality.

    :raises ConfigError: on an unknown network, option, or a shape that does not fit.
    """
    options = dict(spec.network)
    name = options.pop('type', _DEFAULT_PAIR.get(spec.kind, 'dense'))
    path = f'{spec.name}.network'
    if name not in _PAIRS:
        raise ConfigError(f'{path}.type: unknown network "{name}"; known: {", ".join(_PAIRS)}')
    if name == LINEAR and spec.likelihood == 'categorical':
        raise ConfigError(f'{path}.type: linear gives values in 0..1, no labels; take dense')
    options_type, build = _PAIRS[name]
    parsed = from_plain(options_type, options, path)
    activation = getattr(parsed, 'activation', 'relu')
    if activation not in ACTIVATIONS:
        known = ', '.join(ACTIVATIONS)
        raise ConfigError(f'{path}.activation: unknown "{activation}"; known: {known}')
    try:
        return build(shape, spec.latent_dim, parsed)
    except ConfigError as error:
        raise ConfigError(f'{path}: {error}') from error


def split_posterior(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Cut ``float[B, 2 * D]`` into mean and a log variance held between -10 and 6."""
    mean, log_variance = outputs.split(int(outputs.shape[-1]) // 2, dim=-1)
    return mean, log_variance.clamp(-10.0, 6.0)


class Classifier(nn.Module):
    """
    Reads the label off one modality.

    It has the architecture of the modality's encoder, and shares neither weights nor training
    with the model whose data it reads.

    :param spec: the modality.
    :param classes: number of labels.
    """

    def __init__(self, spec: ModalitySpec, classes: int) -> None:
        super().__init__()
        if spec.network.get('type') == LINEAR:  # too little to read a label with
            spec = replace(spec, network={'type': 'dense'})
        self.encoder, _ = build_pair(spec, build_modality(spec).shape)
        self.head = nn.Sequential(
            nn.LeakyReLU(0.01), nn.Dropout(0.3), nn.Linear(2 * spec.latent_dim, classes)
        )

    def forward(self, data: Tensor) -> Tensor:
        """Logits ``float[B, classes]`` of ``float[B, *shape]``."""
        return self.head(self.encoder(data))
