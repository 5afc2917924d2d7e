"""What makes a family out of a structure: a joint encoder and an objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mm_perception.config import from_plain
from mm_perception.errors import ConfigError
from mm_perception.model.baselines.experts import (
    MixtureOfExperts,
    MixtureOfProducts,
    MostCertainExpert,
    ProductOfExperts,
    Surrogates,
)
from mm_perception.model.joint_encoder import (
    Attention,
    Concatenation,
    JointEncoder,
    MeanAggregator,
)
from mm_perception.model.objectives import Batch, Level, Loss, NoOptions, Objective
from mm_perception.spec import ModelSpec

JOINT_ENCODERS: dict[str, type[JointEncoder]] = {
    'mean': MeanAggregator,
    'attention': Attention,
    'concatenation': Concatenation,
    'product': ProductOfExperts,
    'mixture': MixtureOfExperts,
    'mixture_of_products': MixtureOfProducts,
    'surest': MostCertainExpert,
    'surrogates': Surrogates,
}
DEFAULT_JOINT_ENCODER = 'mean'


@dataclass(frozen=True)
class Family:
    """
    Joint encoder and objective of a family.

    :param joint_encoder: key of the joint encoder registry; empty to take the spec's.
    :param options: what ``model.options`` is read into.
    :param modalities: how many the family takes; 0 for any number.
    """

    joint_encoder: str
    objective: Objective
    options: type[Any] = NoOptions
    modalities: int = 0

    def find_encoder(self, spec: ModelSpec) -> type[JointEncoder]:
        """
        Joint encoder to be built for a spec.

        :raises ConfigError: if the spec asks for what the family does not have.
        """
        if self.modalities and len(spec.modalities) != self.modalities:
            raise ConfigError(
                f'model.family: {spec.family} takes {self.modalities} modalities, not'
                f' {len(spec.modalities)}; list {self.modalities} or choose another family'
            )
        asked = spec.joint_encoder
        if self.joint_encoder and asked not in (self.joint_encoder, DEFAULT_JOINT_ENCODER):
            raise ConfigError(
                f'model.joint_encoder: {spec.family} has its own ({self.joint_encoder}), not'
                f' "{asked}"; leave it out'
            )
        encoder = find_joint_encoder(self.joint_encoder or asked)
        if spec.calibrated and not encoder.gaussian:
            raise ConfigError(
                f'model.calibrated: the joint posterior of {spec.family} is no single Gaussian;'
                ' leave it out'
            )
        return encoder

    def bind_objective(self, spec: ModelSpec) -> Callable[[Level, Batch], Loss]:
        """
        Objective with the spec's options.

        :raises ConfigError: if an option does not fit.
        """
        options = from_plain(self.options, dict(spec.options), 'model.options')

        def objective(level: Level, batch: Batch) -> Loss:
            return self.objective(level, batch, options)

        return objective


def find_joint_encoder(name: str) -> type[JointEncoder]:
    """
    Find a joint encoder by name.

    :raises ConfigError: if there is none of that name.
    """
    if name not in JOINT_ENCODERS:
        known = ', '.join(JOINT_ENCODERS)
        raise ConfigError(f'model.joint_encoder: unknown "{name}"; known: {known}')
    return JOINT_ENCODERS[name]
