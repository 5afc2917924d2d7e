"""The last stage: correct the published standard deviations on held-out data."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from mm_perception.data.dataset import Dataset, load_dataset, splits
from mm_perception.errors import ConfigError
from mm_perception.model.distributions import DiagonalGaussian
from mm_perception.model.joint_encoder import forced_perceptual_dropout
from mm_perception.model.nexus import Nexus
from mm_perception.spec import TrainingSpec
from mm_perception.training.loop import Stage
from mm_perception.training.stages import (
    Posteriors,
    TensorSource,
    build_stage,
    cache_posteriors,
    seed_weights,
    split_positions,
)
from mm_perception.training.strangeness import find_strangers

SPLIT = 'validation'
ROWS = 4096
HIDDEN_RATE = 0.9
"""Share of the rows of which a part is hidden; the others calibrate the complete posterior."""


def held_out(spec: TrainingSpec, dataset: Dataset) -> Dataset:
    """
    Data to calibrate on: the split ``validation``, or the rows kept from the top level.

    :param dataset: the training set.
    :raises ConfigError: if there is neither.
    """
    if SPLIT in splits(Path(spec.dataset)):
        return load_dataset(Path(spec.dataset), SPLIT)
    rows = split_positions(len(dataset), spec.validation_fraction, spec.seed)[1]
    if len(rows) < 2:
        raise ConfigError(
            f'model.calibrated: {spec.dataset} has no split "{SPLIT}" and validation_fraction'
            f' {spec.validation_fraction} keeps no rows; raise it, or leave calibrated out'
        )
    return dataset.subset(rows)


def calibration_stage(
    spec: TrainingSpec, model: Nexus, posteriors: Posteriors, source: TensorSource
) -> Stage:
    """
    Learn the model's :class:`~mm_perception.model.uncertainty.Uncertainty`.

    :param posteriors: of the training set's unique values.
    :param source: held-out data.
    """
    seed_weights(spec, 'calibration')
    module, top = model.uncertainty, model.top
    assert module is not None
    module.to(source.device).requires_grad_(True)
    held = cache_posteriors(model.unimodal, source)
    codes = top.to(source.device).codes(held)
    for name, scale in top.scale.items():
        variance = posteriors[name].log_variance.exp().mean(0) / scale.std.square()
        seen = scale(held[name].mean[source.index[name].unique()])
        module.novelty[name].fit(scale(posteriors[name].mean), variance, seen)
    _fit_residuals(model, codes, source)
    # A sensor that contradicts the others looks as one that is right: no width would tell.
    strangers = find_strangers(spec, model.unimodal, source, held, contradictory=0.0)

    def loss(rows: Tensor, _: float) -> tuple[Tensor, dict[str, Tensor]]:
        present = source.present[rows]
        latents = true = {name: codes[name][source.index[name][rows]] for name in codes}
        if strangers and module.training:
            latents = top.codes(strangers(source.of_rows(rows)))
        shown = forced_perceptual_dropout(present, HIDDEN_RATE)
        with torch.no_grad():
            part, complete = top.joint(latents, shown), top.joint(true, present)
        assert isinstance(part, DiagonalGaussian) and isinstance(complete, DiagonalGaussian)
        own = {m.name: latents[m.name][:, : m.latent_dim] for m in spec.model.modalities}
        return module.loss(part, own, shown, complete), {}

    identity = (spec.model, spec.unimodal, spec.shared, spec.top, spec.strange, 'spread')
    about = 'calibration', module, spec.calibration
    return build_stage(spec, *about, loss, source.rows, source, identity)


@torch.no_grad()
def _fit_residuals(model: Nexus, codes: dict[str, Tensor], source: TensorSource) -> None:
    """
    See how far held-out latents lie from what the complete joint posterior's samples expect.

    :param codes: of the unique values, which begin with the standardised latents.
    """
    assert model.uncertainty is not None
    model.top.eval()
    rows = torch.arange(source.rows, device=source.device)
    for column, name in enumerate(model.spec.names):
        errors = []
        for part in rows[source.present[:, column]].split(ROWS):
            latents = {other: codes[other][source.index[other][part]] for other in codes}
            joint = model.top.joint(latents, source.present[part]).sample()
            expected = model.top.conditional(name, joint).mean
            errors.append(latents[name][:, : expected.shape[1]] - expected)
        model.uncertainty.spread[name].fit(torch.cat(errors))
