"""The library MultiVae: its models around this project's networks, its trainer, an engine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision_beside_cpu_torch  # noqa: F401
from multivae.data import MultimodalBaseDataset
from multivae.models import (
    MMVAE,
    MVAE,
    MMVAEConfig,
    MoPoE,
    MoPoEConfig,
    MVAEConfig,
    Nexus,
    NexusConfig,
)
from multivae.models.base import BaseDecoder, BaseEncoder, ModelOutput
from multivae.trainers import BaseTrainer, BaseTrainerConfig
from torch import Tensor, nn

from mm_perception.data.dataset import Dataset
from mm_perception.modalities import build_modality
from mm_perception.modalities.base import Array
from mm_perception.model.distributions import find_likelihood
from mm_perception.model.networks import build_pair, dense, split_posterior
from mm_perception.spec import ModalitySpec, ModelSpec, TrainingSpec

# Likelihoods that both libraries have: the name in MultiVae, and what its decoder must give.
LIKELIHOODS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    'gaussian': ('normal', find_likelihood('gaussian').mean),
    'categorical': ('categorical', nn.Identity()),
}


class Encoder(BaseEncoder):
    """One of our encoders, as MultiVae takes it."""

    def __init__(self, network: nn.Module, latent_dim: int) -> None:
        super().__init__()
        self.network, self.latent_dim = network, latent_dim

    def forward(self, x: Tensor) -> ModelOutput:
        """Mean and log variance of the posterior."""
        mean, log_variance = split_posterior(self.network(x))
        return ModelOutput(embedding=mean, log_covariance=log_variance)


class MappingNetwork(BaseEncoder):
    """The mapping network of a modality: one linear layer, no variance."""

    def __init__(self, latent_dim: int, message_dim: int) -> None:
        super().__init__()
        self.network, self.latent_dim = nn.Linear(latent_dim, message_dim), message_dim

    def forward(self, x: Tensor) -> ModelOutput:
        """The message."""
        return ModelOutput(embedding=self.network(x))


class Decoder(BaseDecoder):
    """One of our decoders, as MultiVae takes it."""

    def __init__(self, network: nn.Module, finish: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.finish = network, finish

    def forward(self, z: Tensor) -> ModelOutput:
        """What the likelihood takes."""
        return ModelOutput(reconstruction=self.finish(self.network(z)))


def wrap_pairs(modalities: list[ModalitySpec]) -> dict[str, dict[str, nn.Module]]:
    """Encoders and decoders of all modalities, by MultiVae's argument names."""
    wrapped: dict[str, dict[str, nn.Module]] = {'encoders': {}, 'decoders': {}}
    for m in modalities:
        encoder, decoder = build_pair(m, build_modality(m).shape)
        _, finish = LIKELIHOODS[m.likelihood]
        wrapped['encoders'][m.name] = Encoder(encoder, m.latent_dim)
        wrapped['decoders'][m.name] = Decoder(decoder, finish)
    return wrapped


def common(spec: ModelSpec, weights: Mapping[str, float]) -> dict[str, Any]:
    """What every configuration of MultiVae takes."""
    return {
        'n_modalities': len(spec.modalities),
        'latent_dim': spec.joint_latent_dim,
        'input_dims': {m.name: build_modality(m).shape for m in spec.modalities},
        'decoders_dist': {m.name: LIKELIHOODS[m.likelihood][0] for m in spec.modalities},
        'uses_likelihood_rescaling': True,
        'rescale_factors': dict(weights),
    }


def build_nexus(spec: ModelSpec, warm_up: int) -> nn.Module:
    """MultiVae's Nexus with all networks and weights of a spec."""
    modalities = list(spec.modalities)
    config = NexusConfig(
        **common(spec, {m.name: m.likelihood_weight for m in modalities}),
        modalities_specific_dim={m.name: m.latent_dim for m in modalities},
        bottom_betas={m.name: m.beta for m in modalities},
        gammas={m.name: m.latent_weight for m in modalities},
        dropout_rate=spec.dropout,
        msg_dim=spec.message_dim,
        top_beta=spec.alpha,
        warmup=warm_up,
    )
    size, hidden = spec.joint_latent_dim, (spec.message_dim, *spec.joint_hidden)
    joint = nn.Sequential(dense(hidden, 'leaky_relu', True), nn.Linear(hidden[-1], 2 * size))
    down = (size, *spec.decoder_hidden)

    def top_decoder(m: ModalitySpec) -> nn.Module:
        layers = dense(down, 'leaky_relu', True), nn.Linear(down[-1], m.latent_dim)
        return Decoder(nn.Sequential(*layers), nn.Identity())

    return Nexus(
        config,
        **wrap_pairs(modalities),
        top_encoders={m.name: MappingNetwork(m.latent_dim, spec.message_dim) for m in modalities},
        joint_encoder=Encoder(joint, size),
        top_decoders={m.name: top_decoder(m) for m in modalities},
    )


def flat(spec: ModelSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configuration and networks of a model with one level: every latent is the joint one."""
    modalities = [replace(m, latent_dim=spec.joint_latent_dim) for m in spec.modalities]
    # The one KL has the weight 1, so a modality's beta divides its likelihood's weight.
    weights = {m.name: m.likelihood_weight / m.beta for m in modalities}
    return common(spec, weights), wrap_pairs(modalities)


def build_mvae(spec: ModelSpec, warm_up: int) -> nn.Module:
    """MultiVae's MVAE: the joint and the unimodal bounds, its default."""
    options, networks = flat(spec)
    return MVAE(MVAEConfig(**options, beta=spec.alpha, warmup=warm_up), **networks)


def build_mmvae(spec: ModelSpec, warm_up: int) -> nn.Module:
    """MultiVae's MMVAE, without importance samples and with Gaussians, as the Nexus paper."""
    options, networks = flat(spec)
    options |= {'K': 1, 'prior_and_posterior_dist': 'normal', 'loss': 'iwae_looser'}
    return MMVAE(MMVAEConfig(**options, beta=spec.alpha), **networks)


def build_mopoe(spec: ModelSpec, warm_up: int) -> nn.Module:
    """MultiVae's MoPoE over all subsets, its default."""
    options, networks = flat(spec)
    return MoPoE(MoPoEConfig(**options, beta=spec.alpha), **networks)


BUILDERS: dict[str, Callable[[ModelSpec, int], nn.Module]] = {
    'Nexus': build_nexus,
    'MVAE': build_mvae,
    'MMVAE': build_mmvae,
    'MoPoE': build_mopoe,
}


def prepare(kind: str, spec: TrainingSpec, dataset: Dataset, work: Path) -> Any:
    """MultiVae's own trainer, ready to :meth:`train` a model on all rows of a dataset."""
    logging.disable(logging.INFO)
    torch.manual_seed(spec.seed)
    model = BUILDERS[kind](spec.model, spec.top.warm_up_epochs)
    config = BaseTrainerConfig(
        output_dir=str(work),
        per_device_train_batch_size=spec.top.batch_size,
        num_epochs=spec.top.epochs,
        learning_rate=spec.top.learning_rate,
        seed=spec.seed,
        no_cuda=True,
    )
    rows = np.arange(len(dataset))
    data = {name: torch.from_numpy(dataset.rows(name, rows)) for name in dataset.names}
    return BaseTrainer(model, MultimodalBaseDataset(data), training_config=config)


class LibraryEngine:
    """
    A model of MultiVae as an :class:`mm_perception.engines.engine.Engine`; codes are the data.

    Means of all latents, as MultiVae's ``return_mean`` gives them; it gives no std.

    :param model: a trained model.
    """

    name = 'multivae'
    device = 'cpu'
    fuses = True

    def __init__(self, model: Any, spec: ModelSpec) -> None:
        self._model = model.eval()
        self._shapes = {m.name: build_modality(m).shape for m in spec.modalities}
        self.code_dims = {name: int(np.prod(shape)) for name, shape in self._shapes.items()}

    def encode(self, name: str, data: Array) -> Array:
        """Data as it is, flat."""
        return data.reshape(len(data), -1)

    @torch.inference_mode()
    def fuse(self, codes: Mapping[str, Array], present: np.ndarray) -> tuple[Array, Array]:
        """Mean of the joint posterior; all rows must observe the same modalities."""
        data = {n: torch.from_numpy(codes[n]).unflatten(1, s) for n, s in self._shapes.items()}
        observed = [name for name, seen in zip(self._shapes, present[0]) if seen]
        mean = self._encode(data, observed).z.numpy()
        return mean, np.full_like(mean, np.nan)

    @torch.inference_mode()
    def decode(self, name: str, joint: Array) -> Array:
        """Expected data of one modality (logits of a categorical one)."""
        return self._decode(self._wrap(torch.from_numpy(joint)), name)[name].numpy()

    def decode_sample(self, name: str, joint: Array, seed: int) -> Array:
        """The same: these models have nothing to sample below the joint latent."""
        return self.decode(name, joint)

    @torch.inference_mode()
    def infer(self, data: Mapping[str, Array]) -> dict[str, Array]:
        """All modalities in, all decoded from the joint latent: two calls of MultiVae."""
        tensors = {name: torch.from_numpy(values) for name, values in data.items()}
        made = self._decode(self._encode(tensors, list(tensors)), list(tensors))
        return {name: made[name].numpy() for name in tensors}

    def _encode(self, data: Mapping[str, Tensor], observed: list[str]) -> Any:
        return self._model.encode(MultimodalBaseDataset(dict(data)), observed, return_mean=True)

    def _wrap(self, joint: Tensor) -> Any:
        return ModelOutput(z=joint, one_latent_space=True)

    def _decode(self, latent: Any, names: list[str] | str) -> Any:
        return self._model.decode(self._wrap(latent.z), names)
