"""Feature encoders of the Frechet distance: plain autoencoders, trained on real data."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from mm_perception.data.dataset import Dataset
from mm_perception.engines.torch_classifiers import run_batched
from mm_perception.evaluation.frechet import Encode
from mm_perception.modalities import build_modality
from mm_perception.model.distributions import likelihood_of
from mm_perception.model.networks import build_pair, split_posterior
from mm_perception.spec import ModalitySpec, StageSpec, TrainingSpec
from mm_perception.training.loop import Logging, Stage, fit
from mm_perception.training.stages import TensorSource, build_stage, seed_weights

FEATURE_STAGE = StageSpec(epochs=15)


class FeatureEncoder(nn.Module):
    """
    Plain autoencoder of one modality: no sampling, no prior.

    :param spec: the modality; its ``latent_dim`` is the size D of the features.
    """

    def __init__(self, spec: ModalitySpec) -> None:
        super().__init__()
        self.encoder, self.decoder = build_pair(spec, build_modality(spec).shape)
        self._likelihood = likelihood_of(spec)

    def forward(self, data: Tensor) -> Tensor:
        """Features ``float[B, D]`` of ``float[B, *shape]``."""
        return split_posterior(self.encoder(data))[0]

    def reconstruct(self, features: Tensor) -> Tensor:
        """Data ``float[B, *shape]`` of features ``float[B, D]``."""
        return self._likelihood.mean(self.decoder(features))


def train_features(
    spec: TrainingSpec,
    dataset: Dataset,
    work: Path,
    device: str = 'cpu',
    stage: StageSpec = FEATURE_STAGE,
    quiet: bool = False,
) -> dict[str, Encode]:
    """
    Train the feature encoders of all modalities, or load those trained before.

    Labels have none. Each is kept in the work folder under a hash of all that decides it
    (data, modality, stage, seed), so that a changed one is trained anew.

    :param dataset: the real training data.
    :param work: folder of the evaluation.
    :returns: features of an array, by modality.
    """
    encoders: dict[str, Encode] = {}
    for modality in spec.model.modalities:
        name = modality.name
        if build_modality(modality).labels:
            continue
        source = TensorSource(dataset.only(name), torch.device(device))
        identity = hashlib.sha256(dataset.values[name].tobytes()).hexdigest()
        made = _feature_stage(spec, name, source, stage, identity)
        kept = work / f'{made.name}.{made.fingerprint[:16]}.safetensors'
        fit(made, kept, True, Logging(quiet=quiet))
        encoders[name] = partial(run_batched, made.module.eval())
    return encoders


def _feature_stage(
    spec: TrainingSpec, name: str, source: TensorSource, stage: StageSpec, identity: str
) -> Stage:
    """Train on one modality's unique values: mean squared error, no KL."""
    seed_weights(spec, f'{name}.features')
    module = FeatureEncoder(spec.model.modality(name)).to(source.present.device)

    def loss(positions: Tensor, _: float) -> tuple[Tensor, dict[str, Tensor]]:
        data = source.values(name, positions)
        error = functional.mse_loss(module.reconstruct(module(data)).float(), data)
        return error, {'mean_squared_error': error}

    known = (spec.model.modality(name), spec.validation_fraction, identity)
    count = source.unique(name)
    return build_stage(spec, f'{name}.features', module, stage, loss, count, source, known)
