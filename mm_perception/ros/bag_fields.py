"""Single numbers of any type of messages, and the vector that those that change make."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mm_perception.data.drafting import Draft, Timing, draft_vector
from mm_perception.modalities import build_modality
from mm_perception.ros.bag_files import installed_type
from mm_perception.spec import ModalitySpec

Drafted = tuple[tuple[Draft, ...], tuple[str, ...]]
MOST_DEPTH = 5


class Fields:
    """
    Single numbers of a type of messages, by path; none where the kind vector takes no paths.

    :ivar paths: of numbers, and of quaternions, each of which is read as 6.
    """

    def __init__(self, message: str) -> None:
        self.message_type = installed_type(message)
        takes = 'fields' in build_modality(ModalitySpec('sensor', 'vector')).plain_options()
        known = self.message_type is not None and takes and message not in BY_NAME
        self.paths = _number_paths(self.message_type, PARTS.get(message, ())) if known else {}
        self._read = [attrgetter(path) for path in self.paths]

    def read(self, message: Any) -> list[float]:
        """Numbers of a message; of a quaternion its four."""
        found: list[float] = []
        for get, kind in zip(self._read, self.paths.values(), strict=True):
            value = get(message)
            found += [value.x, value.y, value.z, value.w] if kind == QUATERNION else [float(value)]
        return found

    def draft(self, name: str, values: NDArray[Any], when: Timing) -> Drafted:
        """Draft a vector of the fields that change; of a quaternion, if any of its four does."""
        columns, at = [], 0
        for kind in self.paths.values():
            width = 4 if kind == QUATERNION else 1
            columns.append(at + int(np.ptp(values[:, at : at + width], axis=0).argmax()))
            at += width
        draft, remarks = draft_vector(name, list(self.paths), values[:, columns], when, 'fields')
        if draft is None:
            return (), (*remarks, 'a sequence of numbers can be named in preprocessing.fields')
        options = draft.preprocessing
        low, high = [], []
        for path, least, most in zip(*options.values(), strict=True):
            whole = self.paths[path] == QUATERNION
            low += [-1.0] * 6 if whole else [least]
            high += [1.0] * 6 if whole else [most]
        options = {'fields': options['fields'], 'low': low, 'high': high}
        return (replace(draft, preprocessing=options),), remarks


BY_NAME = frozenset(('sensor_msgs/msg/JointState', 'std_msgs/msg/Float32MultiArray'))
"""Messages whose numbers are a sequence: of joints by name, or of no names."""
PARTS = {'sensor_msgs/msg/Imu': ('angular_velocity', 'linear_acceleration')}
"""Fields of which alone the numbers are taken."""
QUATERNION, HEADER = 'geometry_msgs/Quaternion', 'std_msgs/Header'
NUMBER = re.compile(r'(double|float|boolean|u?int(8|16|32|64))$')


def _number_paths(message_type: Any, parts: Collection[str], prefix: str = '') -> dict[str, str]:
    """Paths to single numbers and quaternions below a type of messages, and their types."""
    found = {}
    for name, kind in message_type.get_fields_and_field_types().items():
        if parts and name not in parts:
            continue
        if NUMBER.match(kind) or kind == QUATERNION:
            found[prefix + name] = kind
        elif re.fullmatch(r'\w+/\w+', kind) and kind != HEADER and prefix.count('.') < MOST_DEPTH:
            inner = installed_type(kind.replace('/', '/msg/'))
            found |= _number_paths(inner, (), f'{prefix}{name}.') if inner else {}
    return found
