"""Reads messages whose parts were counted before: each becomes a Python object of its own."""

from __future__ import annotations

import re
import struct
from functools import cache
from typing import Any

from rclpy.serialization import deserialize_message

from mm_perception.errors import InvalidInput
from mm_perception.ros.codecs.places import ARRAY, fields_of, import_message

MAX_PARTS = 25_000
"""Messages and listed strings within one: 0.2 s in which no other thread runs."""
_SEQUENCE = -1
_SIZES = {'boolean': 1, 'octet': 1, 'byte': 1, 'char': 1, 'float': 4, 'double': 8}
Plan = tuple[tuple[int, int, 'Plan | None', int], ...]
"""
Fields in the order in which DDS carries them: bytes of a number, how many of them (or a sequence),
the fields of each where it is no number, and how many parts each of those is.
"""


def read_message(data: bytes, kind: type) -> Any:
    """
    Read a serialised message, or say why not: a million parts would hold all threads for seconds.

    :returns: the message; an :class:`InvalidInput` for one of too many parts; None for one that is
        cut short, which the middleware drops of other types, too.
    """
    try:
        _Cursor(data).pass_over(plan_of(kind))
        return deserialize_message(data, kind)
    except InvalidInput as error:
        return error
    except (struct.error, RuntimeError):
        return None


@cache
def plan_of(kind: type) -> Plan:
    """What has to be passed over to count the parts of a message type; empty if it has none."""
    fields = [_plan(each) for each in fields_of(kind).values()]
    if None in fields:
        return ()  # its text is of a kind whose length on the way depends on the middleware
    return _needed(tuple(step for field in fields for step in field or ()))


def _plan(field: str) -> Plan | None:
    array = ARRAY.match(field)
    inner = (array[1] or array[2]) if array else field
    count = (int(array[3]) if array[3] else _SEQUENCE) if array else 1
    if inner.startswith('wstring'):
        return None
    if inner.startswith('string'):
        text: Plan = ((1, _SEQUENCE, None, 0),)
        return text if array is None else ((0, count, text, 1),)
    if '/' not in inner:
        found = re.search(r'\d+$', inner)
        return ((int(found[0]) // 8 if found else _SIZES[inner], count, None, 0),)
    message = import_message(inner)
    plans = [_plan(each) for each in fields_of(message).values()]
    if None in plans:
        return None
    steps = tuple(step for each in plans for step in each or ())
    return steps if array is None else ((0, count, steps, _messages(message)),)


def _messages(kind: type) -> int:
    """How many messages one of a type is, with those that it always holds."""
    inner = [each for each in fields_of(kind).values() if '/' in each and not ARRAY.match(each)]
    return 1 + sum(_messages(import_message(each)) for each in inner)


def _needed(plan: Plan) -> Plan:
    """A plan without what follows the last parts; of those their number, if they hold no more."""
    while plan and plan[-1][2] is None:
        plan = plan[:-1]
    if plan and all(inner is None for _, _, inner, _ in plan[-1][2] or ()):
        size, count, _, weight = plan[-1]
        plan = (*plan[:-1], (size, count, (), weight))
    return plan


class _Cursor:
    """Passes over a message as DDS carries it (CDR)."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._number = struct.Struct('<I' if data[1:2] == b'\1' else '>I')
        self._at, self._parts = 4, 0

    def pass_over(self, plan: Plan) -> None:
        """
        Go on behind some fields.

        :raises InvalidInput: if they are too many parts.
        :raises struct.error: if the message is cut short.
        """
        for size, count, inner, weight in plan:
            if count == _SEQUENCE:
                self._skip(0, 4)
                (count,) = self._number.unpack_from(self._data, self._at)
                self._at += 4
            if inner is None:
                self._skip(size * count, size if count else 1)
                continue
            self._parts += weight * count
            if self._parts > MAX_PARTS:
                raise InvalidInput(f'{self._parts} parts; at most {MAX_PARTS} are read')
            for _ in range(count if inner else 0):
                self.pass_over(inner)

    def _skip(self, length: int, align: int) -> None:
        self._at += -(self._at - 4) % align + length
