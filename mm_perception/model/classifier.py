"""The network of a classifier that judges generated data."""

from __future__ import annotations

from torch import Tensor, nn

from mm_perception.modalities import build_modality
from mm_perception.model.networks import build_pair
from mm_perception.spec import ModalitySpec


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
