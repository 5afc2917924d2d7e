"""Latents as strange, broken and contradictory sensors give them, for the top level to meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mm_perception.data.dataset import Dataset
from mm_perception.modalities import build_modality
from mm_perception.model.distributions import mapped
from mm_perception.model.networks import ByName
from mm_perception.model.unimodal import Encoding, UnimodalVAE
from mm_perception.spec import ModelSpec, TrainingSpec
from mm_perception.training.augmentation import build_augmentation
from mm_perception.training.stages import Posteriors, TensorSource, seed_weights

VARIANTS = 4
"""Encodings of changed data that are kept of every unique value."""
CONTRADICTORY, FAR = 0.15, 0.15
"""Shares of what is strange that other rows show, and that no row shows; the rest is corrupted."""
_OFTEN = 0.35
_FARTHEST = 4.0
_BATCH = 1000


def corrupted(data: Tensor) -> Tensor:
    """
    Data as a broken sensor of any kind might give them: each row in some ways, or in none.

    Noise, another level and contrast, a part that is blank, one that is shifted, a mixture with
    another row; in units of the data's own spread, within their range.

    :param data: ``float[B, *shape]``.
    """
    flat = data.flatten(1)
    low, high, spread = flat.min(), flat.max(), flat.std()
    size = flat.shape[1]
    place = torch.arange(size, device=data.device)
    start = _uniform(flat) * size
    blank = (place >= start) & (place < start + 0.5 * size * _uniform(flat))
    other = torch.randperm(len(flat), device=data.device)
    shifted = torch.where(
        _uniform(flat) < 0.5, flat.roll(max(1, size // 20), 1), flat.roll(-max(1, size // 20), 1)
    )
    flat = torch.where(_sometimes(flat), shifted, flat)
    flat = torch.where(_sometimes(flat), flat.lerp(flat[other], 0.5 * _uniform(flat)), flat)
    flat = torch.where(_sometimes(flat), flat * (0.2 + 1.4 * _uniform(flat)), flat)
    flat = torch.where(_sometimes(flat) & blank, low, flat)
    offset = 2.0 * spread * (_uniform(flat) - 0.5)
    flat = torch.where(_sometimes(flat), flat + offset, flat)
    noise = 1.2 * spread * _uniform(flat) * torch.randn_like(flat)
    flat = torch.where(_sometimes(flat), flat + noise, flat)
    return flat.clamp(low, high).reshape(data.shape)


def _uniform(flat: Tensor) -> Tensor:
    return torch.rand(len(flat), 1, device=flat.device)


def _sometimes(flat: Tensor) -> Tensor:
    return _uniform(flat) < _OFTEN


class Strangers:
    """
    Replaces some latents of a batch by those of strange sensors.

    :param share: of the latents that are replaced.
    :param clean: posteriors of every unique value, ``[U_m, d_m]``.
    :param corrupt: posteriors of changed data, ``[VARIANTS, U_m, d_m]``; none for labels.
    :param contradictory: share of what is strange that other rows show.
    """

    def __init__(
        self,
        share: float,
        clean: Posteriors,
        corrupt: Posteriors,
        contradictory: float = CONTRADICTORY,
    ) -> None:
        self._share, self._honest = share, 1.0 - contradictory
        self._clean, self._corrupt = clean, corrupt

    def __call__(self, index: Mapping[str, Tensor]) -> dict[str, Encoding]:
        """
        Latents that sensors give, strange ones among them.

        :param index: unique value that each row shows, ``int64[B]`` per modality.
        """
        return {name: self._of(name, positions) for name, positions in index.items()}

    def _of(self, name: str, positions: Tensor) -> Encoding:
        clean = self._clean[name]
        shown = mapped(clean, lambda part: part[positions])
        kind = torch.rand(len(positions), 1, device=positions.device) / max(self._share, 1e-9)
        if name in self._corrupt:
            bad = self._corrupt[name]
            variant = torch.randint(len(bad.mean), positions.shape, device=positions.device)
            bad = mapped(bad, lambda part: part[variant, positions])
            shown = _where(kind < self._honest, bad, shown)
            size = _FARTHEST * torch.rand_like(kind)
            away = mapped(clean, lambda part: _far_off(part, size))
            away = away._replace(log_variance=shown.log_variance)
            shown = _where(kind < FAR, away, shown)
        contradictory = (kind >= self._honest) & (kind < 1.0)
        order = torch.randint(len(clean.mean), positions.shape, device=positions.device)
        return _where(contradictory, mapped(clean, lambda part: part[order]), shown)


def _where(rows: Tensor, chosen: Encoding, others: Encoding) -> Encoding:
    return type(others)(*(torch.where(rows, a, b) for a, b in zip(chosen, others)))


def _far_off(part: Tensor, size: Tensor) -> Tensor:
    """Around the mean of ``float[U, d]``, ``size`` times as far as usual: ``float[B, d]``."""
    noise = torch.randn(len(size), part.shape[1], device=part.device)
    return part.mean(0) + part.std(0) * size * noise


@torch.no_grad()
def find_strangers(
    spec: TrainingSpec,
    modules: ByName[UnimodalVAE],
    source: TensorSource,
    clean: Posteriors,
    contradictory: float = CONTRADICTORY,
) -> Strangers | None:
    """
    Encode changed data of every unique value, a few times; None where none are asked for.

    All are augmented and corrupted; where a shared encoder looks through what disturbs, half are
    only augmented, as for that.

    :param clean: posteriors of the unique values.
    :param contradictory: share of what is strange that other rows show.
    """
    if not spec.strange:
        return None
    seed_weights(spec, 'strange')
    corrupt = {}
    for name, module in modules.items():
        if build_modality(module.spec).labels:
            continue
        stage = (spec.shared if module.shared else spec.unimodal).get(name)
        augment, parts = build_augmentation(stage.augmentation if stage else {}, name), []
        for part in torch.arange(source.unique(name), device=source.device).split(1024):
            data = source.values(name, part).repeat(VARIANTS, *[1] * len(module.shape))
            shown = augment(data)[0]
            spoilt = len(shown) // (2 if module.shared else 1)
            shown[:spoilt] = corrupted(shown[:spoilt])
            found = module.eval().encode(shown)
            parts.append(mapped(found, lambda each: each.unflatten(0, (VARIANTS, -1))))
        corrupt[name] = type(parts[0])(*(torch.cat(each, dim=1) for each in zip(*parts)))
    return Strangers(spec.strange, clean, corrupt, contradictory)


def with_strange_rows(dataset: Dataset, spec: ModelSpec, count: int, seed: int) -> Dataset:
    """
    Append rows, drawn from a dataset, whose modalities are corrupted, each in half of them.

    :param count: of the rows, as far as there are so many.
    """
    generator = np.random.default_rng(seed)
    rows = np.sort(generator.permutation(len(dataset))[:count])
    values, index = dict(dataset.values), {}
    for modality in spec.modalities:
        name = modality.name
        shown = dataset.index[name][rows]
        if not build_modality(modality).labels:
            bad = np.flatnonzero(generator.random(len(rows)) < 0.5)
            values[name] = np.concatenate([values[name], _spoilt(dataset, name, rows[bad], seed)])
            shown = shown.copy()
            shown[bad] = len(dataset.values[name]) + np.arange(len(bad))
        index[name] = np.concatenate([dataset.index[name], shown])
    both = np.concatenate([np.arange(len(dataset)), rows])
    return replace(dataset.subset(both), values=values, index=index)


def _spoilt(dataset: Dataset, name: str, rows: np.ndarray, seed: int) -> np.ndarray:
    """Corrupted values of some rows, as a dataset keeps them."""
    torch.manual_seed(seed)
    kind = dataset.values[name].dtype
    parts = [np.zeros((0, *dataset.values[name].shape[1:]), kind)]
    for part in np.array_split(rows, max(1, len(rows) // _BATCH)) if len(rows) else ():
        made = corrupted(torch.from_numpy(dataset.rows(name, part))).numpy()
        parts.append((np.rint(255.0 * made) if kind == np.uint8 else made).astype(kind))
    return np.concatenate(parts)
