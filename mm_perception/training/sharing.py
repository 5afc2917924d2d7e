"""The stage of a shared encoder: what one modality's data tell of the others."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mm_perception.model.networks import ByName
from mm_perception.model.unimodal import UnimodalVAE
from mm_perception.model.weighed import CLASSES
from mm_perception.spec import StageSpec, TrainingSpec
from mm_perception.training.augmentation import build_augmentation
from mm_perception.training.consistency import paired_loss
from mm_perception.training.loop import Stage
from mm_perception.training.stages import (
    Posteriors,
    TensorSource,
    autoencoder_part,
    build_stage,
    seed_weights,
    standardised,
)

HIDDEN, DROPOUT, NOISE = 128, 0.3, 0.3


class Sharing(nn.Module):
    """
    A shared encoder, and shared classes that it and the latents of the others tell.

    :param vae: of the modality whose shared encoder is trained.
    :param sizes: of the other modalities' latents.
    """

    def __init__(self, vae: UnimodalVAE, sizes: dict[str, int]) -> None:
        super().__init__()
        assert vae.shared is not None
        self.encoder = vae.shared
        self.own = nn.Sequential(nn.LeakyReLU(0.01), nn.Linear(vae.spec.shared_dim, CLASSES))
        self.others = ByName[nn.Sequential](
            {
                name: nn.Sequential(
                    nn.Linear(size, HIDDEN),
                    nn.LeakyReLU(0.01),
                    nn.Dropout(DROPOUT),
                    nn.Linear(HIDDEN, CLASSES),
                )
                for name, size in sizes.items()
            }
        )

    def forward(self, data: Tensor, latents: dict[str, Tensor]) -> Tensor:
        """
        Shares of the classes, of the modality itself and of the others, ``float[M, B, CLASSES]``.

        :param data: ``float[B, *shape]``.
        :param latents: standardised, of the others, ``float[B, d_m]``.
        """
        logits = [self.own(self.encoder(data))]
        for name, latent in latents.items():
            noise = NOISE * torch.randn_like(latent) if self.training else 0.0
            logits.append(self.others[name](latent + noise))
        return torch.stack(logits).float().softmax(2)


def shared_stage(
    spec: TrainingSpec,
    name: str,
    module: UnimodalVAE,
    posteriors: Posteriors,
    source: TensorSource,
) -> Stage:
    """
    Train the shared encoder of one modality, within its autoencoder, on rows with others.

    :param posteriors: of the training set's unique values.
    """
    seed_weights(spec, f'{name}.shared')
    latents = {n: standardised(p) for n, p in posteriors.items() if n != name}
    sharing = Sharing(module, {n: latent.shape[1] for n, latent in latents.items()})
    stage = spec.shared.get(name, StageSpec())
    augment = build_augmentation(stage.augmentation, f'shared.{name}.augmentation')
    columns = [spec.model.names.index(n) for n in (name, *latents)]
    present = source.present[:, columns]
    rows = (present[:, 0] & present[:, 1:].any(1)).nonzero()[:, 0]

    def loss(positions: Tensor, _: float) -> tuple[Tensor, dict[str, Tensor]]:
        shown = rows[positions]
        data = source.row_values(name, shown)
        data = augment(data)[0] if sharing.training else data
        beside = {n: latent[source.index[n][shown]] for n, latent in latents.items()}
        return paired_loss(sharing(data, beside), present[shown].t()), {}

    modality, parts = spec.model.modality(name), map(autoencoder_part, spec.model.modalities)
    identity = (modality.shared_dim, modality.shared_network, spec.unimodal, *parts)
    about = f'{name}.shared', sharing.to(source.device), stage
    return build_stage(spec, *about, loss, len(rows), source, identity)
