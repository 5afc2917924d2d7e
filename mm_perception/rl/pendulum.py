"""
A pendulum to be swung up that is seen by a camera, heard by microphones and felt by its joint.

``gymnasium.make('mm_perception.rl.pendulum:mm_perception/Pendulum-v0')``
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cv2
import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from mm_perception.modalities.base import Array

ID = 'mm_perception/Pendulum-v0'
RATE_HZ, STEPS = 20.0, 200
MAX_VELOCITY, MAX_TORQUE = 8.0, 2.0
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
    return _stacked(_draw(angle - velocity / RATE_HZ), _draw(angle))


def _stacked(last: NDArray[np.uint8], now: NDArray[np.uint8]) -> NDArray[np.uint8]:
    change = (_GREY + ((now.astype(np.int16) - last) >> 1)).astype(np.uint8)
    return np.stack((last, now, change), axis=-1)


def _draw(angle: float) -> NDArray[np.uint8]:
    image = np.zeros((SIDE, SIDE), np.uint8)
    middle = (SIDE - 1) / 2
    ends = ((middle, middle), (middle - REACH * np.sin(angle), middle - REACH * np.cos(angle)))
    first, last = (tuple(round(float(x) * 2**_SHIFT) for x in end) for end in ends)
    cv2.line(image, first, last, 255, THICKNESS, cv2.LINE_AA, _SHIFT)
    return image


def hear(angle: Any, velocity: Any) -> Array:
    """
    What three microphones hear of the humming tip: the Doppler effect and the distance.

    :returns: frequencies (Hz), then levels of an amplitude of 1 / d^2 (dB), ``float32[..., 6]``.
    """
    sine, cosine = np.sin(angle), np.cos(angle)
    tip = np.stack((-sine, cosine), -1)
    moving = np.stack((-cosine * velocity, -sine * velocity), -1)
    way = RECEIVERS - tip[..., None, :]
    distance = np.sqrt((way * way).sum(-1))
    approaching = (way * moving[..., None, :]).sum(-1) / distance
    pitch = TONE_HZ * SOUND_M_S / (SOUND_M_S - approaching)
    return np.concatenate((pitch, -40.0 * np.log10(distance)), -1).astype(np.float32)


def feel(angle: Any, velocity: Any) -> Array:
    """What the joint tells: cosine and sine of the angle, and velocity, ``float32[..., 3]``."""
    return np.stack((np.cos(angle), np.sin(angle), velocity), -1).astype(np.float32)


SENSES = {CAMERA: see, JOINTS: feel, MICROPHONES: hear}
"""What each sensor gives, from the angle (rad) and the velocity (rad/s)."""


def draw(rng: np.random.Generator) -> dict[str, Any]:
    """What the sensors give of any angle and velocity."""
    angle, velocity = rng.uniform(-np.pi, np.pi), rng.uniform(-MAX_VELOCITY, MAX_VELOCITY)
    return {name: sense(angle, velocity) for name, sense in SENSES.items()}


class SensedPendulum(PendulumEnv):
    """
    The pendulum of gymnasium (its physics, reward and actions) behind sensors.

    An observation is a dictionary: ``camera``, ``joints`` and ``microphones``. The state itself
    is ``env.unwrapped.state``: angle and velocity.
    """

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        self.observation_space = _sensor_spaces()

    def _get_obs(self) -> dict[str, Any]:
        angle, velocity = map(float, self.state)
        return {name: sense(angle, velocity) for name, sense in SENSES.items()}


class VectorSensedPendulum(VectorEnv[Any, Any, Any]):
    """
    Many pendulums at once, each as :class:`SensedPendulum` would be by its seed.

    :param max_episode_steps: after which an episode is cut; the next begins a step later.
    """

    def __init__(self, num_envs: int = 1, max_episode_steps: int = STEPS) -> None:
        self.metadata = {'autoreset_mode': AutoresetMode.NEXT_STEP}
        self.num_envs, self._most = num_envs, max_episode_steps
        self.single_observation_space = _sensor_spaces()
        self.single_action_space = spaces.Box(-MAX_TORQUE, MAX_TORQUE, (1,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._rngs = [np.random.default_rng() for _ in range(num_envs)]
        self.states: NDArray[np.float64] = np.zeros((num_envs, 2))
        """Angles (rad) and velocities (rad/s)."""
        self._frames = np.zeros((num_envs, SIDE, SIDE), np.uint8)
        self._steps = np.zeros(num_envs, int)
        self._over: NDArray[np.bool] = np.zeros(num_envs, bool)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin all episodes."""
        for k in range(self.num_envs):
            one = seed[k] if isinstance(seed, list) else None if seed is None else seed + k
            if one is not None:
                self._rngs[k] = np_random(one)[0]
        every = range(self.num_envs)
        self._begin(every)
        return self._observe(every), {}

    def step(self, actions: Any) -> tuple[dict[str, Any], Any, Any, Any, dict[str, Any]]:
        """Turn each by its torque (N m); where an episode was over, begin another."""
        torque = np.clip(np.asarray(actions, np.float32)[:, 0], -MAX_TORQUE, MAX_TORQUE)
        angle, velocity = self.states.T
        cost = ((angle + np.pi) % (2 * np.pi) - np.pi) ** 2
        cost = cost + 0.1 * velocity**2 + 0.001 * torque**2
        turned = velocity + (15.0 * np.sin(angle) + 3.0 * torque) / RATE_HZ
        turned = np.clip(turned, -MAX_VELOCITY, MAX_VELOCITY)
        self.states = np.stack((angle + turned / RATE_HZ, turned), -1)
        self._steps += 1
        begun = np.flatnonzero(self._over).tolist()
        self._begin(begun)
        reward = np.where(self._over, 0.0, -cost)
        self._over = self._steps >= self._most
        over = np.zeros(self.num_envs, bool)
        return self._observe(begun), reward, over, self._over.copy(), {}

    def _begin(self, rows: Iterable[int]) -> None:
        most = np.array((np.pi, 1.0))
        for k in rows:
            self.states[k] = self._rngs[k].uniform(-most, most)
            self._steps[k] = 0

    def _observe(self, begun: Iterable[int]) -> dict[str, Any]:
        angle, velocity = self.states.T
        last, now = self._frames, np.empty_like(self._frames)
        for k in begun:
            last[k] = _draw(angle[k] - velocity[k] / RATE_HZ)
        for k, each in enumerate(angle.tolist()):
            now[k] = _draw(each)
        self._frames = now
        seen = _stacked(last, now)
        return {CAMERA: seen, JOINTS: feel(angle, velocity), MICROPHONES: hear(angle, velocity)}


def _sensor_spaces() -> spaces.Dict:
    most = (1.0, 1.0, MAX_VELOCITY)
    return spaces.Dict(
        {
            CAMERA: spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8),
            JOINTS: _box((-1.0, -1.0, -MAX_VELOCITY), most),
            MICROPHONES: _box((300.0,) * 3 + (-30.0,) * 3, (760.0,) * 3 + (1.0,) * 3),
        }
    )


def _box(low: tuple[float, ...], high: tuple[float, ...]) -> spaces.Box:
    return spaces.Box(np.array(low, np.float32), np.array(high, np.float32))


gymnasium.register(
    ID,
    entry_point='mm_perception.rl.pendulum:SensedPendulum',
    vector_entry_point='mm_perception.rl.pendulum:VectorSensedPendulum',
    max_episode_steps=STEPS,
)
