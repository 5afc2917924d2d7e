"""Symbols: one label out of a known set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mm_perception.errors import ConfigError, InvalidInput
from mm_perception.modalities.base import Array, Modality, register_kind
from mm_perception.spec import ModalitySpec


@dataclass(frozen=True)
class SymbolOptions:
    """
    Which labels there are, and how messages tell them.

    :param labels: that exist, in the order of the one-hot array.
    :param fields: of the message, by path: one, which tells the label; empty: as its type is read.
    :param values: label of each value of the field: a number, true or false, a text, or a constant
        of the message by name; empty: the value written out is the label.
    """

    labels: tuple[str, ...]
    fields: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)


@register_kind('symbol')
class SymbolModality(Modality[SymbolOptions]):
    """Raw: the label, ``str``."""

    options_type = SymbolOptions

    def __init__(self, spec: ModalitySpec) -> None:
        super().__init__(spec)
        unknown = [v for v in self.options.values.values() if v not in self.options.labels]
        if unknown:
            raise ConfigError(
                f'{spec.name}: values give {unknown[0]!r}, which is not in labels:'
                f' {", ".join(self.options.labels)}'
            )

    @property
    def shape(self) -> tuple[int]:
        """One element per label."""
        return (len(self.options.labels),)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that exist."""
        return self.options.labels

    classes = labels

    def to_model(self, raw: str) -> Array:
        """One-hot ``float32[labels]``."""
        if raw not in self.options.labels:
            shown = raw if len(raw) <= 20 else f'{raw[:20]}...'
            raise InvalidInput(f'unknown label {shown!r}; known: {", ".join(self.options.labels)}')
        array = np.zeros(self.shape, np.float32)
        array[self.options.labels.index(raw)] = 1.0
        return array

    def error(self, array: Array, truth: Array) -> float:
        """Probability that another label than the true one was given."""
        return float(1.0 - array[np.argmax(truth)])

    def from_model(self, array: Array) -> str:
        """Most probable label."""
        return self.options.labels[int(np.argmax(array))]
