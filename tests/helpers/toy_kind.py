"""A kind of modality that the package does not have: an angle, all that a new kind needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sensor_msgs.msg import Temperature
from torch import nn

from mm_perception.modalities import Modality
from mm_perception.modalities.base import Array, register_kind, require_finite
from mm_perception.model.networks import Pair, Shape, register_pair
from mm_perception.ros.codecs.base import (
    OutputCodec,
    as_sensor,
    register_input,
    register_output,
    stamp_of,
)


@dataclass(frozen=True)
class AngleOptions:
    """Turns per unit of the sensor."""

    turns: float = 1.0


@register_kind('angle')
class AngleModality(Modality[AngleOptions]):
    """Raw: one number; model array: cosine and sine, shifted to 0..1."""

    options_type = AngleOptions
    shape = (2,)

    def to_model(self, raw: float) -> Array:
        angle = 2.0 * np.pi * self.options.turns * require_finite(np.array([raw]), 'angle')[0]
        return np.array([np.cos(angle), np.sin(angle)], np.float32) / 2.0 + 0.5

    def from_model(self, array: Array) -> float:
        return float(np.arctan2(*(array[::-1] - 0.5)) / (2.0 * np.pi * self.options.turns))


@dataclass(frozen=True)
class CircleOptions:
    """Width of the one hidden layer."""

    width: int = 16


def build_circle(shape: Shape, latent_dim: int, options: CircleOptions) -> Pair:
    down, up = nn.Linear(2, options.width), nn.Linear(latent_dim, options.width)
    return (
        nn.Sequential(down, nn.Tanh(), nn.Linear(options.width, 2 * latent_dim)),
        nn.Sequential(up, nn.Tanh(), nn.Linear(options.width, 2)),
    )


@register_input('angle', Temperature)
def decode(message: Temperature, receipt_ns: int, modality: Modality[Any]) -> tuple[float, int]:
    return message.temperature, stamp_of(message.header, receipt_ns)


def encode(modality: Modality[Any], array: Array, header: Any) -> Temperature:
    return Temperature(header=header, temperature=modality.from_model(array))


register_pair('circle', CircleOptions, build_circle, ['angle'])
register_output('angle', OutputCodec(encode, Temperature, as_sensor(decode), encode, Temperature))
