"""Independent classifiers: what a reader of one modality takes a value for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from mm_perception.bundle import Bundle
from mm_perception.errors import BundleError
from mm_perception.modalities import build_modality
from mm_perception.modalities.raw import Array
from mm_perception.model.networks import build_pair
from mm_perception.spec import ModalitySpec

FEATURES = 128


class Classifier(nn.Module):
    """
    Reads the label off one modality.

    It shares the architecture of the modality's encoder, but neither weights nor training
    with the model that it judges.

    :param spec: the modality.
    :param classes: number of labels.
    """

    def __init__(self, spec: ModalitySpec, classes: int) -> None:
        super().__init__()
        self.encoder, _ = build_pair(spec, build_modality(spec).shape)
        self.head = nn.Sequential(
            nn.LeakyReLU(0.01), nn.Dropout(0.3), nn.Linear(2 * spec.latent_dim, classes)
        )

    def forward(self, data: Tensor) -> Tensor:
        """Logits ``float[B, classes]`` of ``float[B, *shape]``."""
        logits: Tensor = self.head(self.encoder(data))
        return logits


@torch.inference_mode()
def run_batched(module: nn.Module, arrays: Array) -> np.ndarray:
    """Outputs ``float32[B, ...]`` of a module for ``float32[B, *shape]``, on its device."""
    device = next(module.parameters()).device
    parts = torch.from_numpy(np.ascontiguousarray(arrays, np.float32)).split(1024)
    return np.concatenate([module(part.to(device)).float().cpu().numpy() for part in parts])


class Classifiers:
    """
    One reader per modality; a modality with labels of its own is read directly.

    :param readers: trained classifiers, in evaluation mode.
    """

    def __init__(self, readers: Mapping[str, Classifier]) -> None:
        self._readers = {name: reader.eval() for name, reader in readers.items()}

    def read(self, name: str, arrays: Array) -> np.ndarray:
        """
        Index of the label that each array shows.

        :param arrays: ``float32[B, *shape]``.
        :returns: ``int64[B]``.
        """
        if name not in self._readers:
            return np.argmax(arrays, axis=1)
        return np.argmax(run_batched(self._readers[name], arrays), axis=1)

    def state(self) -> dict[str, np.ndarray]:
        """All weights, named as in a bundle's ``classifiers.safetensors``."""
        return {
            f'{name}.{key}': value.cpu().numpy()
            for name, reader in self._readers.items()
            for key, value in reader.state_dict().items()
        }


def load_classifiers(bundle: Bundle) -> Classifiers:
    """
    Load the classifiers that a bundle carries.

    :raises BundleError: if it carries none, or they do not fit.
    """
    if not bundle.classifiers:
        raise BundleError(f'{bundle.path}: carries no classifiers; train it with some')
    readers = {}
    for name in sorted({key.split('.', 1)[0] for key in bundle.classifiers}):
        reader = Classifier(bundle.spec.modality(name), len(bundle.labels))
        weights = {
            key.split('.', 1)[1]: torch.from_numpy(np.array(value))
            for key, value in bundle.classifiers.items()
            if key.startswith(f'{name}.')
        }
        try:
            reader.load_state_dict(weights)
        except RuntimeError as error:
            raise BundleError(f'{bundle.path}: classifier of {name} does not fit') from error
        readers[name] = reader
    return Classifiers(readers)
