"""Actions of a policy to the messages that controllers take, and back."""

from __future__ import annotations

from array import array as typed_array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from geometry_msgs.msg import Twist
from numpy.typing import NDArray
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, MultiArrayDimension
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from mm_perception.errors import InvalidInput
from mm_perception.ros.codecs.base import make_header, message_name, stamp_of

QUANTITIES = ('effort', 'velocity', 'position')
"""What the numbers of an action are, for messages that tell them apart."""
AXES = tuple(f'{part}.{axis}' for part in ('linear', 'angular') for axis in 'xyz')


@dataclass(frozen=True)
class Action:
    """
    An action on its way.

    :param values: ``float[A]``, in the actuators' units.
    :param names: of the actuators; of a Twist some of ``AXES``.
    :param quantity: one of ``QUANTITIES``.
    :param stamp_ns: of the latent that it came from; 0 if it came from none.
    :param period_s: for how long it is meant.
    """

    values: NDArray[Any]
    names: tuple[str, ...]
    quantity: str = QUANTITIES[0]
    stamp_ns: int = 0
    period_s: float = 0.0


@dataclass(frozen=True)
class ActionCodec:
    """
    One message type for actions.

    :param encode: an action to a message.
    :param decode: (message, names) to (values ``float64[A]``, stamp in ns; 0 if it has none).
    """

    message_type: type
    encode: Callable[[Action], Any]
    decode: Callable[[Any, Sequence[str]], tuple[NDArray[Any], int]]


def read_action(
    codec: ActionCodec, message: Any, names: Sequence[str]
) -> tuple[NDArray[Any], int]:
    """
    Read an action.

    :param names: of the actuators, which say how many numbers it has.
    :returns: values ``float64[A]`` and the stamp in ns, 0 if it has none.
    :raises InvalidInput: if it does not hold one finite number for each.
    """
    values, stamp_ns = codec.decode(message, names)
    if len(values) != len(names):
        raise InvalidInput(f'{len(values)} numbers; expected {len(names)} ({", ".join(names)})')
    if not np.isfinite(values).all():
        raise InvalidInput('action holds NaN or infinity')
    return values, stamp_ns


def _to_array(action: Action) -> Float64MultiArray:
    message = Float64MultiArray(data=typed_array('d', action.values.tolist()))
    count = len(action.values)
    label = ','.join(action.names)
    message.layout.dim.append(MultiArrayDimension(label=label, size=count, stride=count))
    return message


def _from_array(message: Float64MultiArray, names: Sequence[str]) -> tuple[NDArray[Any], int]:
    return np.asarray(message.data[message.layout.data_offset :], np.float64), 0


def _to_joint_state(action: Action) -> JointState:
    message = JointState(header=make_header(action.stamp_ns), name=list(action.names))
    setattr(message, action.quantity, action.values.tolist())
    return message


def _from_joint_state(message: JointState, names: Sequence[str]) -> tuple[NDArray[Any], int]:
    values = _first(message.effort, message.velocity, message.position)
    if message.name and set(message.name) >= set(names) and len(values) == len(message.name):
        values = values[[list(message.name).index(name) for name in names]]
    return values, stamp_of(message.header, 0)


def _to_trajectory(action: Action) -> JointTrajectory:
    """One point, to be reached in a period; its stamp 0 tells a controller to begin at once."""
    point = JointTrajectoryPoint()
    field = {'position': 'positions', 'velocity': 'velocities', 'effort': 'effort'}
    setattr(point, field[action.quantity], action.values.tolist())
    seconds, nanoseconds = divmod(round(action.period_s * 1e9), 1_000_000_000)
    point.time_from_start.sec, point.time_from_start.nanosec = seconds, nanoseconds
    return JointTrajectory(joint_names=list(action.names), points=[point])


def _from_trajectory(message: JointTrajectory, names: Sequence[str]) -> tuple[NDArray[Any], int]:
    if len(message.points) != 1:
        raise InvalidInput(f'{len(message.points)} points; expected 1')
    point = message.points[0]
    values = _first(point.effort, point.velocities, point.positions)
    return values, stamp_of(message.header, 0)


def _to_twist(action: Action) -> Twist:
    message = Twist()
    for name, value in zip(action.names, action.values.tolist()):
        part, axis = name.split('.')
        setattr(getattr(message, part), axis, value)
    return message


def _from_twist(message: Twist, names: Sequence[str]) -> tuple[NDArray[Any], int]:
    parts = [name.split('.') for name in names if name in AXES]
    return np.array([getattr(getattr(message, part), axis) for part, axis in parts]), 0


def _first(*fields: Any) -> NDArray[Any]:
    """Of several fields that may hold the numbers, the first that does."""
    return next((np.asarray(f, np.float64) for f in fields if len(f)), np.empty(0))


ACTIONS = {
    message_name(kind): ActionCodec(kind, encode, decode)
    for kind, encode, decode in (
        (Float64MultiArray, _to_array, _from_array),
        (JointState, _to_joint_state, _from_joint_state),
        (JointTrajectory, _to_trajectory, _from_trajectory),
        (Twist, _to_twist, _from_twist),
    )
}
"""Message type, as ROS writes it, to its codec."""
