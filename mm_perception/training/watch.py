"""What became of a trained model's latents, and what to do where they say nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mm_perception.model.distributions import DiagonalGaussian
from mm_perception.model.nexus import Nexus
from mm_perception.training.stages import TensorSource, cache_posteriors

LEAST_KL = 0.1
"""Nats of a latent; with less it is the same whatever is observed."""
LEAST_EXPLAINED = 0.5
"""Share of a modality's latent that its own observation must bring back."""
WATCHED_ROWS = 4096
"""Enough to tell."""


@torch.no_grad()
def watch_latents(model: Nexus, source: TensorSource) -> dict[str, Any]:
    """
    Measure what the latents hold, on data that was not trained on.

    :param source: held-out rows.
    :returns: ``kl``, nats of the joint latent with all that was recorded observed; and per
        modality ``kl``, nats of its own latent, and ``explained``, the share of the variance of
        its latent that the joint latent gives back while it is observed, 1 for all.
    """
    model.eval()
    posteriors = cache_posteriors(model.unimodal, source)
    codes = model.top.codes(posteriors)
    rows = torch.arange(source.rows, device=source.device)
    latents = {name: codes[name][source.index[name][rows]] for name in codes}
    joint = model.top.joint(latents, source.present[rows])
    found: dict[str, Any] = {'kl': float(joint.kl_to_prior().mean()), 'modalities': {}}
    for column, (name, posterior) in enumerate(posteriors.items()):
        present = source.present[rows, column]
        shown = source.index[name][rows[present]]
        own = DiagonalGaussian(posterior.mean[shown], posterior.log_variance[shown])
        given = model.top.conditional(name, joint.mean[present]).mean
        found['modalities'][name] = {
            'kl': float(own.kl_to_prior().mean()),
            'explained': _explained(latents[name][present, : given.shape[1]], given),
        }
    return found


def _explained(truth: Tensor, given: Tensor) -> float:
    """Share of the squares about the training set's mean, which is 0."""
    return float(1.0 - (truth - given).square().sum() / truth.square().sum().clamp_min(1e-9))


def collapse_warnings(found: dict[str, Any]) -> list[str]:
    """
    Sentences on latents that hold nothing, each with its remedy.

    :param found: by :func:`watch_latents`.
    """
    warnings = []
    if found['kl'] < LEAST_KL:
        warnings.append(
            f'the joint latent is collapsed ({found["kl"]:.2f} nats): it is the same whatever is'
            ' observed; leave latent_weight out of the configuration, or raise it'
        )
    for name, of in found['modalities'].items():
        if of['kl'] < LEAST_KL:
            warnings.append(
                f'the latent of {name} is collapsed ({of["kl"]:.2f} nats); leave likelihood out'
                ' of its configuration, or lower its beta'
            )
        elif of['explained'] < LEAST_EXPLAINED:
            warnings.append(
                f'the joint latent gives back {100 * max(of["explained"], 0.0):.0f} % of {name}'
                ' even while it is observed; leave latent_weight out of the configuration, or'
                ' raise it'
            )
    return warnings
