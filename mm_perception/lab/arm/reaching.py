"""
The simulated arm as an environment: a policy moves the joints until the finger touches the ball.

``gymnasium.make('mm_perception.lab.arm.reaching:mm_perception/Reaching-v0')``
"""

from __future__ import annotations

from functools import cache
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from mm_perception.lab.arm.script import (
    ANGLE_RAD,
    FINGER_M,
    FOREARM_M,
    LEAD_S,
    PERIOD_S,
    RADIUS_M,
    TOUCH_M,
    UPPER_ARM_M,
    write_script,
)
from mm_perception.lab.arm.simulation import JOINT_NOISE_RAD, SIDE, Simulation

ID = 'mm_perception/Reaching-v0'
RATE_HZ, STEPS = 10.0, 60
MOST_RAD = 0.25
"""How far a joint is sent from where it is, in a step."""
LOW_RAD, HIGH_RAD = np.array([-0.8, 0.6]), np.array([2.2, 2.9])
"""Limits of shoulder and elbow; the wrist is held straight."""
ANCHORS_M = np.array([(-0.5, 0.0), (0.5, 0.0), (0.0, 0.8)])
FARTHEST_M, RANGE_NOISE_M = 1.2, 0.005
CAMERA, JOINTS, RANGE = 'camera', 'joints', 'range'
_SCRIPT_S = 12.0


class Reaching(gymnasium.Env[dict[str, Any], Any]):
    """
    A hand moves a ball about, and the finger is to touch it without denting it.

    Actions say how far shoulder and elbow are sent from where they are (rad). The reward of a step
    is minus the gap between finger and ball, or the dent, in dm. The camera sees arm and ball,
    ``joints`` are the two angles (rad), ``range`` is how far the ball is from three anchors on
    the table (m): of the ball only camera and range tell.
    """

    def __init__(self) -> None:
        self._simulation = _simulation()
        self._scene = self._simulation.new_scene()
        self._frame = np.zeros((SIDE, SIDE, 3), np.uint8)
        most = np.full(2, MOST_RAD, np.float32)
        self.action_space = spaces.Box(-most, most)
        self.observation_space = spaces.Dict(
            {
                CAMERA: spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8),
                JOINTS: spaces.Box(np.float32(LOW_RAD - 0.5), np.float32(HIGH_RAD + 0.5)),
                RANGE: spaces.Box(0.0, FARTHEST_M, (3,), np.float32),
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin somewhere, with the ball on its way."""
        super().reset(seed=seed)
        rng, every = self.np_random, round(1.0 / (RATE_HZ * PERIOD_S))
        begin = int(rng.integers(round(LEAD_S / PERIOD_S), round(2.0 * LEAD_S / PERIOD_S)))
        self._ball = write_script(_SCRIPT_S, rng).ball[begin::every]
        self._step = 0
        self._place(rng.uniform(LOW_RAD, HIGH_RAD), self._ball[0])
        return self._observe(), {}

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Send the joints somewhere near, and wait for a step."""
        self._step += 1
        sent = self._scene.qpos[:2] + np.clip(action, -MOST_RAD, MOST_RAD)
        control = np.array([*np.clip(sent, LOW_RAD, HIGH_RAD), 0.0, *self._ball[self._step]])
        self._simulation.advance(self._scene, control, 1.0 / RATE_HZ)
        return self._observe(), -10.0 * abs(self.gap_m), False, False, {}

    @property
    def state(self) -> tuple[np.ndarray, np.ndarray]:
        """Angles of shoulder, elbow and wrist (rad), and the place of the ball (m)."""
        return self._scene.qpos[:3].copy(), self._scene.qpos[3:].copy()

    @property
    def gap_m(self) -> float:
        """Between finger and ball; negative: the dent."""
        joints, ball = self.state
        return float(np.linalg.norm(fingertip(joints) - ball) - TOUCH_M)

    def _observe(self) -> dict[str, Any]:
        self._simulation.see(self._scene, self._frame)
        noise = self.np_random.standard_normal(5)
        joints = self._scene.qpos[:2] + JOINT_NOISE_RAD * noise[:2]
        away = np.linalg.norm(self._scene.qpos[3:] - ANCHORS_M, axis=1)
        ranges = np.clip(away + RANGE_NOISE_M * noise[2:], 0.0, FARTHEST_M)
        return {
            CAMERA: self._frame.copy(),
            JOINTS: joints.astype(np.float32),
            RANGE: ranges.astype(np.float32),
        }

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        """What the sensors give of any posture, with the ball anywhere in reach."""
        radius, angle = rng.uniform(*RADIUS_M), rng.uniform(*ANGLE_RAD)
        self.np_random = rng
        ball = radius * np.array([np.cos(angle), np.sin(angle)])
        self._place(rng.uniform(LOW_RAD, HIGH_RAD), ball)
        return self._observe()

    def _place(self, joints: np.ndarray, ball: np.ndarray) -> None:
        self._simulation.place(self._scene, np.array([*joints, 0.0, *ball]))


def fingertip(joints: np.ndarray) -> np.ndarray:
    """Where the finger ends (m), ``float64[..., 2]``, of angles ``float64[..., 3]``."""
    angles = np.cumsum(joints, -1)
    lengths = np.array([UPPER_ARM_M, FOREARM_M, FINGER_M])
    return np.stack((np.cos(angles) @ lengths, np.sin(angles) @ lengths), -1)


@cache
def _simulation() -> Simulation:
    """The one of this process: all environments draw with it."""
    return Simulation()


gymnasium.register(
    ID, entry_point='mm_perception.lab.arm.reaching:Reaching', max_episode_steps=STEPS
)
