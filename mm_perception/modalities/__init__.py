"""Kinds of modalities: raw sensor value to model array, back, and as a picture."""

from mm_perception.modalities import image, sound, symbol, trajectory, vector  # noqa: F401
from mm_perception.modalities.base import (
    Modality,
    Motion,
    Stamped,
    Waveform,
    Window,
    build_modality,
    complete_options,
    kinds,
)

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
