"""
A pendulum to be swung up that is seen by a camera, heard by microphones and felt by its joint.

``gymnasium.make('mm_perception.rl.pendulum:mm_perception/Pendulum-v0')``
"""

from __future__ import annotations

from typing import Any

import cv2
import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from numpy.typing import NDArray

from mm_perception.modalities.base import Array

ID = 'mm_perception/Pendulum-v0'
RATE_HZ, STEPS = 20.0, 200
MAX_VELOCITY = 8.0
SIDE = 32
REACH, THICKNESS = 13.0, 5
TONE_HZ, SOUND_M_S = 440.0, 20.0
"""The tip hums at this pitch; sound is slow, so that its speed is heard."""
RECEIVERS = np.array([(-2.0, -2.0), (2.0, -2.0), (0.0, 2.0)])
CAMERA, JOINTS, MICROPHONES = 'camera', 'joints', 'microphones'
_SHIFT = 8
_GREY = 128


def see(angle: float, velocity: float) -> NDArray[np.uint8]:
    """
    What the camera sees: the last frame, this one, and how they differ around grey.

    :param angle: rad, 0 upright, positive to the left; ``velocity``: rad/s.
    :returns: ``uint8[32, 32, 3]``.
    """
    frames = np.empty((SIDE, SIDE, 3), np.uint8)
    frames[..., 0], frames[..., 1] = _draw(angle - velocity / RATE_HZ), _draw(angle)
    change = frames[..., 1].astype(np.int16) - frames[..., 0]
    frames[..., 2] = _GREY + (change >> 1)
    return frames


def _draw(angle: float) -> NDArray[np.uint8]:
    image = np.zeros((SIDE, SIDE), np.uint8)
    middle = (SIDE - 1) / 2
    ends = ((middle, middle), (middle - REACH * np.sin(angle), middle - REACH * np.cos(angle)))
    first, last = (tuple(round(float(x) * 2**_SHIFT) for x in end) for end in ends)
    cv2.line(image, first, last, 255, THICKNESS, cv2.LINE_AA, _SHIFT)
    return image


def hear(angle: float, velocity: float) -> Array:
    """
    What three microphones hear of the humming tip: the Doppler effect and the distance.

    :returns: frequencies (Hz), then levels of an amplitude of 1 / d^2 (dB), ``float32[6]``.
    """
    tip = np.array((-np.sin(angle), np.cos(angle)))
    moving = velocity * np.array((-np.cos(angle), -np.sin(angle)))
    way = RECEIVERS - tip
    distance = np.sqrt((way * way).sum(1))
    approaching = way @ moving / distance
    pitch = TONE_HZ * SOUND_M_S / (SOUND_M_S - approaching)
    return np.concatenate((pitch, -40.0 * np.log10(distance))).astype(np.float32)


def feel(angle: float, velocity: float) -> Array:
    """What the joint tells: cosine and sine of the angle, and the velocity, ``float32[3]``."""
    return np.array((np.cos(angle), np.sin(angle), velocity), np.float32)


SENSES = {CAMERA: see, JOINTS: feel, MICROPHONES: hear}
"""What each sensor gives, from the angle (rad) and the velocity (rad/s)."""


class SensedPendulum(PendulumEnv):  # type: ignore[misc]
    """
    The pendulum of gymnasium (its physics, reward and actions) behind sensors.

    An observation is a dictionary: ``camera``, ``joints`` and ``microphones``. The state itself
    is ``env.unwrapped.state``: angle and velocity.
    """

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        self.observation_space = spaces.Dict(
            {
                CAMERA: spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8),
                JOINTS: _box((-1.0, -1.0, -MAX_VELOCITY), (1.0, 1.0, MAX_VELOCITY)),
                MICROPHONES: _box((300.0,) * 3 + (-30.0,) * 3, (760.0,) * 3 + (0.0,) * 3),
            }
        )

    def _get_obs(self) -> dict[str, Any]:
        angle, velocity = map(float, self.state)
        return {name: sense(angle, velocity) for name, sense in SENSES.items()}


def _box(low: tuple[float, ...], high: tuple[float, ...]) -> spaces.Box:
    return spaces.Box(np.array(low, np.float32), np.array(high, np.float32))


gymnasium.register(ID, entry_point=SensedPendulum, max_episode_steps=STEPS)
