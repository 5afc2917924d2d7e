"""Symbols: one label out of a known set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mm_perception.errors import InvalidInput
from mm_perception.modalities.base import Array, Modality, register_kind


@dataclass(frozen=True)
class SymbolOptions:
    """The labels that exist, in the order of the one-hot array."""

    labels: tuple[str, ...]


@register_kind('symbol')
class SymbolModality(Modality[SymbolOptions]):
    """Raw: the label, ``str``."""

    options_type = SymbolOptions

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

    def from_model(self, array: Array) -> str:
        """Most probable label."""
        return self.options.labels[int(np.argmax(array))]
