"""A transform between two frames, out of what /tf and /tf_static say of all frames."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from numpy.typing import NDArray

from mm_perception.errors import InvalidInput
from mm_perception.ros.codecs.base import make_header, stamp_of
from mm_perception.ros.codecs.rotations import LEAST_NORM

NAME = 'tf2_msgs/msg/TFMessage'
TOPIC, LATCHED_TOPIC = '/tf', '/tf_static'
KEPT, MOST_FRAMES, SHOWN = 200, 2_000, 8
JUMP_NS = 1_000_000_000
"""How far stamps of a frame may run back before what was heard of moving frames is forgotten."""
PATIENCE_NS = 2_000_000_000
"""How long, by the stamps, frames may be unknown before that is a fault."""
Pose = tuple[NDArray[Any], NDArray[Any]]
"""Translation ``float64[3]``, and rotation as a unit quaternion x, y, z, w."""


@dataclass
class _Joint:
    """Where a frame lay in its parent, newest last; ``latched``: for ever."""

    parent: str
    latched: bool
    poses: deque[tuple[int, Pose]] = field(default_factory=lambda: deque(maxlen=KEPT))

    def pose(self, stamp_ns: int) -> Pose | None:
        """Where it lay at a time, between two messages interpolated; None before the first."""
        after = self.poses[-1]
        if self.latched or stamp_ns == after[0]:
            return after[1]
        for before in reversed(self.poses):
            if before[0] <= stamp_ns:
                share = (stamp_ns - before[0]) / (after[0] - before[0])
                return _between(before[1], after[1], share)
            after = before
        return None


class Frames:
    """
    Follows the frames between two, and gives their transform.

    As tf2 does, at the newest time that all moving frames between them are known for.

    :param target: frame in which the other is told.
    :param source: the other.
    """

    def __init__(self, target: str, source: str) -> None:
        self._ends = _plain(target), _plain(source)
        self._joints: dict[str, _Joint] = {}
        self._first_ns = self._newest_ns = self._told_ns = 0

    def take(self, message: Any, latched: bool) -> TransformStamped | None:
        """
        Take a TFMessage.

        :param latched: whether it holds for ever.
        :returns: the transform, if it is newer than the last; else None.
        :raises InvalidInput: if the frames are not joined, or what it says of one between them
            is no pose.
        """
        touched: set[str] = set()
        broken: set[str] = set()
        for each in message.transforms:
            name, pose = _plain(each.child_frame_id), _pose(each.transform)
            (broken if pose is None else touched).add(name)
            if pose is not None:
                self._put(name, _plain(each.header.frame_id), each.header, latched, pose)
        sides = self._sides()
        if sides is None:
            if self._newest_ns - self._first_ns > PATIENCE_NS:
                raise InvalidInput(self._why())
            return None
        between = {*sides[0], *sides[1]}
        if broken & between:
            raise InvalidInput(f'the transform of {min(broken & between)} is no pose')
        return self._newest(*sides) if touched & between else None

    def _put(self, name: str, parent: str, header: Any, latched: bool, pose: Pose) -> None:
        stamp_ns = stamp_of(header, 0)
        joint = self._joints.get(name)
        if joint is not None and not latched and not joint.latched:
            newest_ns = joint.poses[-1][0]
            if newest_ns - stamp_ns > JUMP_NS:
                self._forget_moving()
                joint = None
            elif stamp_ns <= newest_ns:
                return
        if joint is None or (joint.parent, joint.latched) != (parent, latched):
            if joint is None and len(self._joints) >= MOST_FRAMES:
                return
            joint = self._joints[name] = _Joint(parent, latched)
        joint.poses.append((stamp_ns, pose))
        if not latched:
            self._first_ns = self._first_ns or stamp_ns
            self._newest_ns = max(self._newest_ns, stamp_ns)

    def _forget_moving(self) -> None:
        self._joints = {name: joint for name, joint in self._joints.items() if joint.latched}
        self._first_ns = self._newest_ns = self._told_ns = 0

    def _newest(self, down: Sequence[str], up: Sequence[str]) -> TransformStamped | None:
        joints = [[self._joints[name] for name in side] for side in (down, up)]
        moving = [joint for side in joints for joint in side if not joint.latched]
        target, source = self._ends
        if not moving:
            raise InvalidInput(f'{source} never moves in {target}: all between them is static')
        stamp_ns = min(joint.poses[-1][0] for joint in moving)
        poses = [[joint.pose(stamp_ns) for joint in side] for side in joints]
        if stamp_ns <= self._told_ns or any(pose is None for side in poses for pose in side):
            return None
        self._told_ns = stamp_ns
        of_target, of_source = (_chained(side) for side in poses)
        (x, y, z), rotation = _joined(_inverse(of_target), of_source)
        transform = Transform(
            translation=Vector3(x=float(x), y=float(y), z=float(z)),
            rotation=Quaternion(**dict(zip('xyzw', map(float, rotation)))),
        )
        header = make_header(stamp_ns, target)
        return TransformStamped(header=header, child_frame_id=source, transform=transform)

    def _sides(self) -> tuple[list[str], list[str]] | None:
        """Frames from target and from source up to the first that both hang below; or None."""
        target, source = ([end, *self._above(end)] for end in self._ends)
        common = next((name for name in source if name in target), None)
        if common is None:
            return None
        return target[: target.index(common)], source[: source.index(common)]

    def _above(self, name: str) -> Iterator[str]:
        seen = {name}
        while name in self._joints and self._joints[name].parent not in seen:
            name = self._joints[name].parent
            seen.add(name)
            yield name

    def _why(self) -> str:
        known = dict.fromkeys(n for c, j in self._joints.items() for n in (j.parent, c))
        target, source = self._ends
        unknown = [end for end in self._ends if end not in known]
        shown = ', '.join(list(known)[:SHOWN]) + (', ...' if len(known) > SHOWN else '')
        if unknown:
            return f'no frame {" and no ".join(unknown)}; known: {shown}; mend preprocessing.tf'
        tops = ' and '.join([end, *self._above(end)][-1] for end in self._ends)
        return f'{target} and {source} are not joined: they hang below {tops}'


def _plain(frame: str) -> str:
    return frame.lstrip('/')


def _pose(transform: Any) -> Pose | None:
    """Pose of a transform; None if it is none."""
    t, r = transform.translation, transform.rotation
    place, turn = np.array([t.x, t.y, t.z]), np.array([r.x, r.y, r.z, r.w])
    norm = math.sqrt(turn.dot(turn))
    if not (LEAST_NORM < norm < math.inf and np.isfinite(place).all()):
        return None
    return place, turn / norm


def _product(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Quaternion of two turns, the second first."""
    vector = a[3] * b[:3] + b[3] * a[:3] + np.cross(a[:3], b[:3])
    return np.append(vector, a[3] * b[3] - a[:3].dot(b[:3]))


def _turned(turn: NDArray[Any], place: NDArray[Any]) -> NDArray[Any]:
    across = 2.0 * np.cross(turn[:3], place)
    return np.asarray(place + turn[3] * across + np.cross(turn[:3], across))


def _joined(outer: Pose, inner: Pose) -> Pose:
    return outer[0] + _turned(outer[1], inner[0]), _product(outer[1], inner[1])


def _inverse(pose: Pose) -> Pose:
    turn = pose[1] * (-1.0, -1.0, -1.0, 1.0)
    return -_turned(turn, pose[0]), turn


def _chained(poses: Sequence[Any]) -> Pose:
    """Pose of the first frame in the parent of the last."""
    whole: Pose = np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0])
    for pose in poses:
        whole = _joined(pose, whole)
    return whole


def _between(before: Pose, after: Pose, share: float) -> Pose:
    """Along a straight line, and a turn of even speed (slerp)."""
    first, second = before[1], after[1]
    cosine = float(first.dot(second))
    if cosine < 0.0:
        second, cosine = -second, -cosine
    angle = math.acos(min(cosine, 1.0))
    near, far = 1.0 - share, share
    if angle > 1e-6:
        near, far = (math.sin(w * angle) / math.sin(angle) for w in (near, far))
    turn = near * first + far * second
    place = (1.0 - share) * before[0] + share * after[0]
    return place, turn / math.sqrt(turn.dot(turn))
