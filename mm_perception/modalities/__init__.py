"""Kinds of modalities: raw sensor value to model array and back, numpy only."""

from mm_perception.modalities import image, sound, symbol, trajectory, vector  # noqa: F401
from mm_perception.modalities.base import (
    Modality,
    Window,
    build_modality,
    complete_options,
    kinds,
)
from mm_perception.modalities.raw import Motion, Stamped, Waveform

__all__ = [
    'Modality',
    'Motion',
    'Stamped',
    'Waveform',
    'Window',
    'build_modality',
    'complete_options',
    'kinds',
]
