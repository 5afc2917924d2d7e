"""Kinds of modalities: raw sensor value to model array, back, and as a picture."""

from mm_perception.modalities import image, sound, symbol, trajectory, vector  # noqa: F401
from mm_perception.modalities.base import (
    Modality,
    Motion,
    Stamped,
    Waveform,
    Window,
    kinds,
)
from mm_perception.modalities.stacking import Stack, build_modality, complete_options

__all__ = [
    'Modality',
    'Motion',
    'Stack',
    'Stamped',
    'Waveform',
    'Window',
    'build_modality',
    'complete_options',
    'kinds',
]
