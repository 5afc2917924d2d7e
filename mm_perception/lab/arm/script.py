"""What the arm and the hand with the ball do in an episode: goals, pauses, and the way there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
UPPER_ARM_M, FOREARM_M, FINGER_M = 0.26, 0.22, 0.1  # as in arm.xml
TOUCH_M = 0.075 + 0.03  # between the centres of ball and fingertip when they touch
PERIOD_S = 0.02
HOME = np.array([0.2, 2.0, 0.3])
HOME_BALL = np.array([0.0, 0.5])
LEAD_S, RETURN_S = 1.0, 1.4
RADIUS_M, ANGLE_RAD = (0.38, 0.5), (0.75, 2.4)
PRESS, HOVER, REST = 'press', 'hover', 'rest'
SHARES = {PRESS: 0.5, HOVER: 0.3, REST: 0.2}


@dataclass(frozen=True)
class Script:
    """
    Set points of an episode, one every ``PERIOD_S``.

    :param joints: angles that the arm is to take (rad), ``float64[T, 3]``.
    :param ball: where the hand holds the ball (m), ``float64[T, 2]``.
    """

    joints: Array
    ball: Array


def write_script(seconds: float, rng: np.random.Generator) -> Script:
    """
    Draw an episode.

    Both begin and end at home, so that episodes can follow each other without a jump.

    :param seconds: length, 5 or more.
    """
    joints, ball = [np.tile(HOME, (_ticks(LEAD_S), 1))], [np.tile(HOME_BALL, (_ticks(LEAD_S), 1))]
    left = _ticks(seconds) - _ticks(LEAD_S)
    ending = _ticks(RETURN_S) + _ticks(LEAD_S)
    while left > ending:
        ticks = min(_ticks(rng.uniform(1.2, 3.5)), left - ending)
        ball.append(_move_ball(ball[-1][-1], ticks, rng))
        joints.append(_move_arm(joints[-1][-1], ball[-1], rng))
        left -= ticks
    way = _minimum_jerk(np.arange(1, left + 1) * PERIOD_S / RETURN_S)[:, None]
    joints.append(joints[-1][-1] + way * (HOME - joints[-1][-1]))
    ball.append(ball[-1][-1] + way * (HOME_BALL - ball[-1][-1]))
    return Script(np.concatenate(joints), np.concatenate(ball))


def joint_angles(tip: Array, direction: Array) -> Array:
    """
    Angles that bring the fingertip somewhere (inverse kinematics, elbow to the right).

    :param tip: positions (m), ``float64[T, 2]``; what is out of reach is approached.
    :param direction: of the finger (rad), ``float64[T]``.
    :returns: ``float64[T, 3]``.
    """
    pointing = np.stack((np.cos(direction), np.sin(direction)), axis=1)
    wrist = tip - FINGER_M * pointing
    distance = np.clip(np.linalg.norm(wrist, axis=1), 0.12, UPPER_ARM_M + FOREARM_M - 0.005)
    sides = UPPER_ARM_M**2 + FOREARM_M**2
    elbow = np.arccos(np.clip((distance**2 - sides) / (2 * UPPER_ARM_M * FOREARM_M), -1, 1))
    inner = np.arctan2(FOREARM_M * np.sin(elbow), UPPER_ARM_M + FOREARM_M * np.cos(elbow))
    shoulder = np.arctan2(wrist[:, 1], wrist[:, 0]) - inner
    return np.stack((shoulder, elbow, direction - shoulder - elbow), axis=1)


def _ticks(seconds: float) -> int:
    return round(seconds / PERIOD_S)


def _minimum_jerk(share: Array) -> Array:
    """The way that hands go, from 0 to 1 (Flash and Hogan, 1985)."""
    s = np.clip(share, 0.0, 1.0)
    return s**3 * (10.0 - 15.0 * s + 6.0 * s**2)


def _somewhere(rng: np.random.Generator) -> Array:
    radius, angle = rng.uniform(*RADIUS_M), rng.uniform(*ANGLE_RAD)
    return np.array([radius * np.cos(angle), radius * np.sin(angle)])


def _move_ball(start: Array, ticks: int, rng: np.random.Generator) -> Array:
    """The hand goes elsewhere, or pauses."""
    goal = start if rng.random() < 0.35 else _somewhere(rng)
    share = np.arange(1, ticks + 1) * PERIOD_S / rng.uniform(0.9, 2.0)
    way = _minimum_jerk(share * max(1.0, 2.0 / (ticks * PERIOD_S)))
    return np.asarray(start + way[:, None] * (goal - start))


def _move_arm(start: Array, ball: Array, rng: np.random.Generator) -> Array:
    """The arm presses the ball, stays before it, or turns away; it follows the ball meanwhile."""
    mode = rng.choice(list(SHARES), p=list(SHARES.values()))
    bearing = np.arctan2(ball[:, 1], ball[:, 0])
    direction = bearing + rng.uniform(-0.4, 0.4)
    if mode == REST:
        place = _somewhere(rng) * rng.uniform(0.6, 0.9)
        goal = joint_angles(np.tile(place, (len(ball), 1)), np.full(len(ball), direction[0]))
    else:
        gap = -rng.uniform(0.015, 0.05) if mode == PRESS else rng.uniform(0.01, 0.06)
        pointing = np.stack((np.cos(direction), np.sin(direction)), axis=1)
        goal = joint_angles(ball - (TOUCH_M + gap) * pointing, direction)
    way = _minimum_jerk(np.arange(1, len(ball) + 1) * PERIOD_S / rng.uniform(0.9, 1.6))
    return np.asarray(start + way[:, None] * (goal - start))
