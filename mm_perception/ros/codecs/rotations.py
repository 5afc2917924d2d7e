"""Rotations and angles as numbers without jumps, and back. Quaternions have fields x, y, z, w."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mm_perception.errors import InvalidInput

LEAST_NORM = 1e-6


def six_of_quaternion(quaternion: Any) -> list[float]:
    """
    First two columns of the rotation matrix: continuous in the rotation, the same for q and -q.

    Zhou et al., On the Continuity of Rotation Representations in Neural Networks, CVPR 2019.

    :raises InvalidInput: if the quaternion is no rotation.
    """
    x, y, z, w = _unit(quaternion)
    return [
        1 - 2 * (y * y + z * z),
        2 * (x * y + z * w),
        2 * (x * z - y * w),
        2 * (x * y - z * w),
        1 - 2 * (x * x + z * z),
        2 * (y * z + x * w),
    ]


def write_six(quaternion: Any, six: NDArray[Any]) -> None:
    """Set a quaternion from two columns that need not be orthonormal, with the sign it had."""
    first = _normal(np.asarray(six[:3], np.float64), np.array([1.0, 0.0, 0.0]))
    second = np.asarray(six[3:], np.float64)
    other = np.array([0.0, 1.0, 0.0]) if abs(first[1]) < 0.9 else np.array([0.0, 0.0, 1.0])
    second = _normal(second - first.dot(second) * first, other - first.dot(other) * first)
    matrix = np.stack((first, second, np.cross(first, second)), axis=1)
    # The greatest of the four squares is well away from 0 (Shepperd 1978).
    diagonal = matrix.diagonal()
    squares = np.append(1 + 2 * diagonal - diagonal.sum(), 1 + diagonal.sum())
    k = int(squares.argmax())
    found = np.empty(4)
    found[k] = squares[k]
    skew = matrix - matrix.T
    if k == 3:
        found[:3] = skew[2, 1], skew[0, 2], skew[1, 0]
    else:
        i, j = (k + 1) % 3, (k + 2) % 3
        found[i], found[j] = matrix[i, k] + matrix[k, i], matrix[j, k] + matrix[k, j]
        found[3] = skew[j, i]
    found /= np.linalg.norm(found)
    before = quaternion.x, quaternion.y, quaternion.z, quaternion.w
    if found.dot(before) < 0:
        found = -found
    quaternion.x, quaternion.y, quaternion.z, quaternion.w = map(float, found)


def yaw_of_quaternion(quaternion: Any) -> list[float]:
    """
    Cosine and sine of the turn about z.

    :raises InvalidInput: if the quaternion is no rotation.
    """
    x, y, z, w = _unit(quaternion)
    yaw = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    return [math.cos(yaw), math.sin(yaw)]


def write_yaw(quaternion: Any, pair: NDArray[Any]) -> None:
    """Set a quaternion to a turn about z alone."""
    half = math.atan2(pair[1], pair[0]) / 2
    quaternion.x = quaternion.y = 0.0
    quaternion.z, quaternion.w = math.sin(half), math.cos(half)


def cosines_and_sines(angles: Sequence[float] | NDArray[Any], turn: float) -> NDArray[Any]:
    """
    Cosine and sine of each angle, one after the other: ``float64[2 n]``.

    :param turn: a full turn in the unit of the angles.
    """
    radians = np.asarray(angles, np.float64) * (2 * np.pi / turn)
    return np.stack((np.cos(radians), np.sin(radians)), axis=1).reshape(-1)


def angles_near(
    pairs: NDArray[Any], before: Sequence[float] | NDArray[Any], turn: float
) -> NDArray[Any]:
    """
    Angles of cosines and sines, of all that are possible those nearest to what they were.

    :param pairs: ``float[2 n]``, of any length.
    :param before: ``float[n]``; of another length it does not count.
    :param turn: a full turn in the unit of the angles.
    """
    two = np.asarray(pairs, np.float64).reshape(-1, 2)
    angles = np.arctan2(two[:, 1], two[:, 0]) * (turn / (2 * np.pi))
    near = np.asarray(before, np.float64)
    if near.shape != angles.shape or not np.isfinite(near).all():
        return angles
    return angles + turn * np.round((near - angles) / turn)


def _unit(quaternion: Any) -> tuple[float, float, float, float]:
    x, y, z, w = quaternion.x, quaternion.y, quaternion.z, quaternion.w
    norm = math.sqrt(x * x + y * y + z * z + w * w)
    if not LEAST_NORM < norm < math.inf:
        raise InvalidInput(f'orientation has the norm {norm:.3g}; a rotation has 1')
    return x / norm, y / norm, z / norm, w / norm


def _normal(vector: NDArray[Any], otherwise: NDArray[Any]) -> NDArray[Any]:
    norm = np.linalg.norm(vector)
    chosen = vector if norm > LEAST_NORM else otherwise
    return chosen / np.linalg.norm(chosen)
