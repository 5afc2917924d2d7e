"""From spec to model: the registry of families."""

from __future__ import annotations

import re
from collections.abc import Callable

from mm_perception.errors import ConfigError
from mm_perception.model.nexus import Nexus
from mm_perception.spec import ModelSpec

FAMILIES: dict[str, Callable[[ModelSpec], Nexus]] = {'nexus': Nexus}
_NAME = re.compile(r'[a-z][a-z0-9_]*')


def build_model(spec: ModelSpec) -> Nexus:
    """
    Build a model with fresh weights.

    :raises ConfigError: if the spec does not describe a model that can be built.
    """
    if spec.family not in FAMILIES:
        known = ', '.join(FAMILIES)
        raise ConfigError(f'model.family: unknown "{spec.family}"; known: {known}')
    if not spec.modalities:
        raise ConfigError('model.modalities: at least one modality is needed')
    for name in spec.names:
        if not _NAME.fullmatch(name) or spec.names.count(name) > 1:
            raise ConfigError(
                f'model.modalities: "{name}" must be unique, lower case letters, digits and _'
            )
    return FAMILIES[spec.family](spec)
