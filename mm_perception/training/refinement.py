"""The top decoders, trained further through the frozen decoders below them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mm_perception.model.distributions import DiagonalGaussian
from mm_perception.model.dropout import forced_perceptual_dropout
from mm_perception.model.nexus import Nexus
from mm_perception.spec import TrainingSpec
from mm_perception.training.loop import Stage
from mm_perception.training.source import TensorSource
from mm_perception.training.stages import Posteriors, build_stage, seed_weights


def refinement_stage(
    spec: TrainingSpec, model: Nexus, posteriors: Posteriors, source: TensorSource
) -> Stage:
    """
    Let the top decoders see what becomes of their latents.

    A top decoder that is trained on latents alone gives their average where the joint latent
    leaves them open, and an average of latents may decode to something else than any of them
    (a "five" that is heard as "nine"). Here the log likelihood of the data, through the
    unimodal decoder, joins that of the latent, for modalities with a ``data_weight``, each
    generated from some of the others, as it is where its sensor fails. All but
    their top decoders stays as it is: no gradient reaches the autoencoders, and the joint
    posteriors do not change.

    :param posteriors: of the training set's unique values.
    """
    seed_weights(spec, 'refinement')
    model.eval().requires_grad_(False)
    weights = {m.name: m.data_weight for m in spec.model.modalities if m.data_weight}
    decoders = nn.ModuleDict({name: model.top.decoders[name] for name in weights})
    decoders.requires_grad_(True)

    def loss(rows: Tensor, _: float) -> tuple[Tensor, dict[str, Tensor]]:
        present = source.present[rows]
        latents = {
            name: DiagonalGaussian(*(part[source.index[name][rows]] for part in posterior))
            for name, posterior in posteriors.items()
        }
        total, terms = torch.zeros((), device=present.device), {}
        for name, weight in weights.items():
            others, kept = _without(present, spec.model.names.index(name))
            if len(kept) < 2:  # too few for batch statistics
                continue
            part = {
                n: DiagonalGaussian(p.mean[kept], p.log_variance[kept]) for n, p in latents.items()
            }
            joint = _draw_joint(model, part, others)
            data = source.row_values(name, rows[kept])
            latent, found = _log_likelihoods(model, name, joint, part[name].mean, data)
            total = total - model.top.weight(name) * latent - weight * found
            terms[name] = found
        return total, terms

    identity = repr((spec.model, spec.unimodal, spec.top))
    return build_stage(
        spec, 'refinement', decoders, spec.refinement, loss, source.rows, source, identity
    )


def _without(present: Tensor, column: int) -> tuple[Tensor, Tensor]:
    """Rows that have a modality and others; presence in them, without it."""
    others = present.clone()
    others[:, column] = False
    kept = (present[:, column] & others.any(1)).nonzero().squeeze(1)
    return others[kept], kept


@torch.no_grad()
def _draw_joint(model: Nexus, latents: Posteriors, present: Tensor) -> Tensor:
    seen = forced_perceptual_dropout(present, model.spec.dropout)
    codes = model.top.scaled({name: latent.sample() for name, latent in latents.items()})
    joint: Tensor = model.top.joint(codes, seen).sample()
    return joint


def _log_likelihoods(
    model: Nexus, name: str, joint: Tensor, latent: Tensor, data: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean log likelihoods, given the joint latent, of a modality's latent and of its data."""
    scale, conditional = model.top.scale_of(name), model.top.conditional(name, joint)
    found = model.vae(name).log_likelihood(scale.inverse(conditional.mean), data)
    return conditional.log_prob(scale(latent)).mean(), found.mean()
