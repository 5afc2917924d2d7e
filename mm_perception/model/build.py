"""From spec to model: the registry of families."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from mm_perception.errors import ConfigError
from mm_perception.model import weighed  # noqa: F401
from mm_perception.model.base import MultimodalModel
from mm_perception.model.baselines.flat import FlatModel
from mm_perception.model.baselines.hmvae import HMVAE
from mm_perception.model.baselines.mhvae import MHVAE
from mm_perception.model.baselines.objectives import (
    AssociationOptions,
    StratifiedOptions,
    SubsampledOptions,
    SurrogateOptions,
    association_loss,
    elbo,
    stratified_elbo,
    subsampled_elbo,
    surrogate_elbo,
)
from mm_perception.model.family import Family, dropout_elbo
from mm_perception.model.nexus import Nexus
from mm_perception.spec import ModelSpec

_NEXUS = Family('', dropout_elbo)
_NEXUS0 = Family('concatenation', dropout_elbo)
_MVAE = Family('product', subsampled_elbo, SubsampledOptions)
_MMVAE = Family('mixture', stratified_elbo, StratifiedOptions)
_MOPOE = Family('mixture_of_products', elbo)
_JMVAE = Family('surrogates', surrogate_elbo, SurrogateOptions, modalities=2)
_AVAE = Family('most_certain', association_loss, AssociationOptions, modalities=2)
FAMILIES: dict[str, Callable[[ModelSpec], MultimodalModel]] = {
    'nexus': partial(Nexus, family=_NEXUS),
    'nexus0': partial(Nexus, family=_NEXUS0),
    'nexus_flat': partial(FlatModel, family=_NEXUS),
    'mvae': partial(Nexus, family=_MVAE),
    'mvae_flat': partial(FlatModel, family=_MVAE),
    'mmvae': partial(Nexus, family=_MMVAE),
    'mmvae_flat': partial(FlatModel, family=_MMVAE),
    'mopoe': partial(Nexus, family=_MOPOE),
    'mopoe_flat': partial(FlatModel, family=_MOPOE),
    'jmvae': partial(FlatModel, family=_JMVAE),
    'avae': partial(FlatModel, family=_AVAE),
    'mhvae': MHVAE,
    'hmvae': HMVAE,
}
_NAME = re.compile(r'[a-z][a-z0-9_]*')


def is_separable(family: str) -> bool:
    """
    Whether a family's autoencoders and its top level may train apart.

    :raises ConfigError: if there is no such family.
    """
    built = _find_family(family)
    model = built.func if isinstance(built, partial) else built
    return bool(getattr(model, 'separable', False))


def _find_family(name: str) -> Callable[[ModelSpec], MultimodalModel]:
    if name not in FAMILIES:
        raise ConfigError(f'model.family: unknown "{name}"; known: {", ".join(FAMILIES)}')
    return FAMILIES[name]


def build_model(spec: ModelSpec) -> MultimodalModel:
    """
    Build a model with fresh weights.

    :raises ConfigError: if the spec does not describe a model that can be built.
    """
    build = _find_family(spec.family)
    if not spec.modalities:
        raise ConfigError('model.modalities: at least one modality is needed')
    for name in spec.names:
        if not _NAME.fullmatch(name) or spec.names.count(name) > 1:
            raise ConfigError(
                f'model.modalities: "{name}" must be unique, lower case letters, digits and _'
            )
    sizes = {'joint_latent_dim': spec.joint_latent_dim}
    sizes |= {f'{m.name}.latent_dim': m.latent_dim for m in spec.modalities}
    for key, size in sizes.items():
        if size < 1:
            raise ConfigError(f'model.{key}: {size} is no size; training finds it where it is 0')
    model = build(spec)
    if spec.calibrated and not model.separable:
        raise ConfigError(f'model.calibrated: not for {spec.family}; leave it out')
    return model
