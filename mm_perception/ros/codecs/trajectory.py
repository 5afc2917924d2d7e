"""Motions of a pen or an arm: whole, or point by point."""

from __future__ import annotations

from array import array as typed_array
from collections.abc import Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import PointStamped
from numpy.typing import NDArray
from sensor_msgs.msg import JointState
from std_msgs.msg import Header
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from mm_perception.errors import InvalidInput
from mm_perception.fusion.gathering import Named
from mm_perception.modalities import Modality, Motion
from mm_perception.ros.codecs.base import (
    Draft,
    OutputCodec,
    as_sensor,
    make_header,
    register_input,
    register_output,
    register_write,
    stamp_of,
)
from mm_perception.ros.codecs.fields import blank, last_values
from mm_perception.ros.codecs.vector import joint_positions, require_names, write_joints

MAX_POINTS = 10_000
AXES = ('x', 'y', 'z')


@register_input('trajectory', JointTrajectory)
def decode_trajectory(
    message: JointTrajectory, receipt_ns: int, modality: Modality[Any]
) -> tuple[Any, int]:
    """Read a whole motion from the positions and times of its points, in the order of names."""
    count = len(message.points)
    if not 2 <= count <= MAX_POINTS:
        raise InvalidInput(f'trajectory has {count} points; expected 2 to {MAX_POINTS}')
    positions = [point.positions for point in message.points]
    dimensions = len(positions[0])
    if dimensions == 0 or any(len(position) != dimensions for position in positions):
        raise InvalidInput('points have no positions, or not all the same number of them')
    if message.joint_names and len(message.joint_names) != dimensions:
        raise InvalidInput(
            f'{len(message.joint_names)} joint_names but {dimensions} positions per point'
        )
    times_s = _times_s(message)
    if (np.diff(times_s) < 0).any():
        raise InvalidInput('time_from_start runs backwards')
    times_s = (times_s - times_s[0]).astype(np.float32)
    stamp_ns = stamp_of(message.header, receipt_ns)
    wanted = _wanted(message.joint_names, modality)
    if not (message.joint_names or wanted):
        return Motion(_finite(positions), times_s), stamp_ns
    require_names(message.joint_names, wanted)
    part = Named(
        tuple(message.joint_names),
        _floats(positions),
        wanted,
        modality.options.dimensions,
        lambda points: Motion(points, times_s),
        whole=True,
    )
    return part, stamp_ns


def _times_s(message: JointTrajectory) -> NDArray[Any]:
    times = [point.time_from_start for point in message.points]
    return np.array([time.sec + time.nanosec * 1e-9 for time in times])


def _wanted(names: Sequence[str], modality: Modality[Any]) -> tuple[str, ...]:
    """Names that make a point: those of the modality, or x, y, z where a message names them."""
    axes = AXES[: modality.options.dimensions]
    if len(axes) == modality.options.dimensions and set(axes) <= set(names):
        return modality.options.names or axes
    return tuple(modality.options.names)


@register_input('trajectory', PointStamped, depth=200, streamed=True)
def decode_pen(
    message: PointStamped, receipt_ns: int, modality: Modality[Any]
) -> tuple[Motion, int]:
    """Read one point of a pen's stream, in as many coordinates as the modality has."""
    point = message.point
    position = (point.x, point.y, point.z)[: modality.options.dimensions]
    return _single(position), stamp_of(message.header, receipt_ns)


@register_input('trajectory', JointState, depth=200, shared=True, streamed=True)
def decode_joints(
    message: JointState, receipt_ns: int, modality: Modality[Any]
) -> tuple[Any, int]:
    """Read one point of an arm's stream: the joints that the modality names, in its order."""
    wanted, count = _wanted(message.name, modality), modality.options.dimensions
    return joint_positions(message, wanted, count, _single), stamp_of(message.header, receipt_ns)


@register_write('trajectory', JointTrajectory)
def _write_trajectory(draft: Draft) -> JointTrajectory:
    """
    Build a motion with the names, the number of points and the times of the last one.

    Without a configured range it fills the box of the last one.
    """
    modality, like = draft.modality, draft.like
    motion = modality.from_model(draft.array)
    header, names = draft.stamped(), modality.options.names
    if like is None:
        return _trajectory(motion, header, names)
    times_s, before = _times_s(like), np.array([point.positions for point in like.points])
    share = (times_s - times_s[0]) / max(times_s[-1] - times_s[0], 1e-9)
    columns = [np.interp(share, motion.times_s, column) for column in motion.points.T]
    points = np.stack(columns, axis=1)
    wanted = _wanted(like.joint_names, modality) or tuple(like.joint_names)
    order = [like.joint_names.index(name) for name in wanted] or list(range(points.shape[1]))
    if not modality.options.low:
        low, high = before[:, order].min(axis=0), before[:, order].max(axis=0)
        size = (high - low).max() or 1.0  # the last one may have stood still
        points = (points - 0.5) * size + (low + high) / 2
    before[:, order] = points
    message = _trajectory(Motion(before, times_s), header, like.joint_names)
    message.joint_names = list(like.joint_names)
    return message


@register_write('trajectory', PointStamped)
def _write_pen(draft: Draft) -> PointStamped:
    """Last point of a window that slides."""
    message = blank(PointStamped, draft)
    for axis, value in zip(AXES, last_values(draft)[0].tolist()):
        setattr(message.point, axis, value)
    return message


register_write('trajectory', JointState)(write_joints)


def trajectory_message(motion: Motion, stamp_ns: int, frame_id: str = 'pen') -> JointTrajectory:
    """
    Build a message of a whole motion.

    :param stamp_ns: time of the motion, as the node will judge its age.
    """
    return _trajectory(motion, make_header(stamp_ns, frame_id), ())


def _single(position: Any) -> Motion:
    return Motion(_finite(position)[None], np.zeros(1, np.float32))


def _floats(positions: Any) -> NDArray[Any]:
    with np.errstate(over='ignore'):
        return np.asarray(positions, np.float32)


def _finite(positions: Any) -> NDArray[Any]:
    points = _floats(positions)
    if not np.isfinite(points).all():
        raise InvalidInput('positions hold NaN or infinity')
    return points


def _trajectory(motion: Motion, header: Header, names: Sequence[str]) -> JointTrajectory:
    dimensions = motion.points.shape[1]
    if not names:
        names = AXES if dimensions <= len(AXES) else [f'joint{k}' for k in range(dimensions)]
    message = JointTrajectory(header=header, joint_names=list(names[:dimensions]))
    points = motion.points.astype(np.float64)
    nanoseconds = np.rint(motion.times_s.astype(np.float64) * 1e9).astype(np.int64)
    for position, time_ns in zip(points, nanoseconds.tolist(), strict=True):
        seconds, rest = divmod(time_ns, 1_000_000_000)
        message.points.append(
            JointTrajectoryPoint(
                positions=typed_array('d', position.tobytes()),
                time_from_start=Duration(sec=seconds, nanosec=rest),
            )
        )
    return message


def _encode(modality: Modality[Any], array: NDArray[Any], header: Header) -> JointTrajectory:
    return _trajectory(modality.from_model(array), header, modality.options.names)


def _encode_std(modality: Modality[Any], std: NDArray[Any], header: Header) -> JointTrajectory:
    scaled = np.asarray(std * modality.unit_scale, np.float32)
    points = scaled.reshape(-1, modality.options.dimensions)
    times_s = np.linspace(0.0, 1.0, len(points), dtype=np.float32)
    return _trajectory(Motion(points, times_s), header, modality.options.names)


register_output(
    'trajectory',
    OutputCodec(
        _encode, JointTrajectory, as_sensor(decode_trajectory), _encode_std, JointTrajectory
    ),
)
