"""Autoencoders of an earlier bundle that a training keeps: a sensor was added, others stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mm_perception.bundle import Bundle
from mm_perception.config import to_plain
from mm_perception.errors import ConfigError
from mm_perception.modalities import build_modality
from mm_perception.spec import ModalitySpec, ModelSpec

PREFIX, SHARED = 'unimodal.', 'shared.'


@dataclass(frozen=True)
class Kept:
    """
    Autoencoders that are taken over.

    :param modalities: as the bundle has them, with what it found from its data.
    :param weights: of each autoencoder.
    :param refused: of the others that the bundle has, why not.
    :param classifiers: weights of those of their evaluation classifiers that tell the same labels.
    """

    modalities: Mapping[str, ModalitySpec] = field(default_factory=dict)
    weights: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    classifiers: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)

    def within(self, spec: ModelSpec) -> ModelSpec:
        """Fill in what the bundle found for its modalities; where data come from stays."""
        return replace(
            spec,
            modalities=tuple(
                _from_bundle(m, self.modalities[m.name]) if m.name in self.modalities else m
                for m in spec.modalities
            ),
        )


def find_kept(spec: ModelSpec, bundle: Bundle) -> Kept:
    """
    Find the modalities that a configuration leaves as a bundle has them.

    The kind, all options of preprocessing, and what the configuration says of network, size,
    likelihood and beta have to agree; the topic and how long data counts may differ.

    :param spec: with all preprocessing decided.
    :raises ConfigError: if the bundle has no autoencoder that could be kept.
    """
    known = {m.name: m for m in bundle.spec.modalities}
    modalities, refused = {}, {}
    weights: dict[str, dict[str, Tensor]] = {}
    for modality in spec.modalities:
        name = modality.name
        found = _state(bundle.weights, f'{PREFIX}{name}.')
        if name not in known or not found:
            continue
        reason = _difference(modality, known[name])
        if reason:
            refused[name] = reason
        else:
            modalities[name], weights[name] = known[name], found
    if not modalities:
        reasons = '; '.join(f'{name}: {reason}' for name, reason in refused.items())
        raise ConfigError(
            f'{bundle.path}: none of its autoencoders can be kept'
            f' ({reasons or "no modality of the configuration is in it"}); train without --from'
        )
    labels = next(filter(None, (build_modality(m).labels for m in spec.modalities)), ())
    same = modalities if labels == bundle.labels else ()
    states = {name: _state(bundle.classifiers, f'{name}.') for name in same}
    classifiers = {name: state for name, state in states.items() if state}
    return Kept(modalities, weights, refused, classifiers)


def _state(weights: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix): torch.from_numpy(np.array(values))
        for key, values in weights.items()
        if key.startswith(prefix) and not key.startswith(f'{prefix}{SHARED}')
    }


def _difference(new: ModalitySpec, old: ModalitySpec) -> str:
    """What the configuration wants otherwise than the bundle has it; empty if nothing."""
    if new.kind != old.kind:
        return f'kind is {new.kind}, was {old.kind}'
    options, before = (to_plain(build_modality(m).plain_options()) for m in (new, old))
    for key, value in options.items():
        if value != before[key]:
            return f'preprocessing.{key} has changed'
    for key in ('latent_dim', 'network', 'likelihood', 'likelihood_weight', 'beta'):
        value, was = getattr(new, key), getattr(old, key)
        if value != _LEFT_OPEN.get(key) and to_plain(value) != to_plain(was):
            return f'{key} is {value}, was {was}'
    return ''


_LEFT_OPEN = {'latent_dim': 0, 'network': {}, 'likelihood': '', 'likelihood_weight': 1.0}
"""What leaves it to the data, or to the kind."""


def _from_bundle(new: ModalitySpec, old: ModalitySpec) -> ModalitySpec:
    own = (
        *('latent_weight', 'data_weight', 'topic', 'message', 'max_age_s', 'frozen_s'),
        *('shared_dim', 'shared_network'),
    )
    return replace(old, **{key: getattr(new, key) for key in own})
