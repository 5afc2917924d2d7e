"""
The feature space of the Frechet distance: latent codes of an autoencoder per modality.

The Nexus paper names autoencoders per class and modality; its published code, and this
module, use one per modality, trained on the real training data of all classes. Here it has
the modality's own architecture. Distances depend on the autoencoder: only those measured
with the same one compare.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn

from mm_perception.evaluation.classifier_modules import run_batched
from mm_perception.modalities import build_modality
from mm_perception.modalities.raw import Array
from mm_perception.model.distributions import find_likelihood
from mm_perception.model.networks import build_pair, split_posterior
from mm_perception.spec import ModalitySpec


class FeatureEncoder(nn.Module):
    """
    Plain autoencoder of one modality: no sampling, no prior.

    :param spec: the modality; its ``latent_dim`` is the size D of the features.
    """

    def __init__(self, spec: ModalitySpec) -> None:
        super().__init__()
        self.encoder, self.decoder = build_pair(spec, build_modality(spec).shape)
        self._likelihood = find_likelihood(spec.likelihood)

    def forward(self, data: Tensor) -> Tensor:
        """Features ``float[B, D]`` of ``float[B, *shape]``."""
        return split_posterior(self.encoder(data))[0]

    def reconstruct(self, features: Tensor) -> Tensor:
        """Data ``float[B, *shape]`` of features ``float[B, D]``."""
        return self._likelihood.mean(self.decoder(features))


class FeatureEncoders:
    """
    One feature encoder per modality.

    :param encoders: trained encoders, in evaluation mode.
    """

    def __init__(self, encoders: Mapping[str, FeatureEncoder]) -> None:
        self._encoders = {name: encoder.eval() for name, encoder in encoders.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """Modalities that have features."""
        return tuple(self._encoders)

    def encode(self, name: str, arrays: Array) -> np.ndarray:
        """
        Features of data of one modality, real or generated.

        :param arrays: ``float32[B, *shape]``.
        :returns: ``float32[B, D]``.
        """
        return run_batched(self._encoders[name], arrays)
