"""Finds a field of any installed message type by its path; compiled once, read often."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from mm_perception.errors import ConfigError, InvalidInput

Index = int | slice | str | None
SEGMENT = re.compile(r'([A-Za-z]\w*)(?:\[([^\[\]]*)\])?(?:\.|$)')
SLICE = re.compile(r'(\d*):(\d*)(?::([1-9]\d*))?$')
ARRAY = re.compile(r'(?:sequence<([^,>]+)(?:, *\d+)?>|(.+)\[(\d+)\])$')
QUATERNION, HEADER = 'geometry_msgs/Quaternion', 'std_msgs/Header'
REALS, WHOLE = ('double', 'float'), re.compile(r'u?int(8|16|32|64)$')
NAME_FIELDS = ('name', 'names', 'joint_names')
SHOWN, MAX_DEPTH, MAX_ELEMENTS = 16, 6, 100_000


def import_message(name: str) -> type:
    """
    Find an installed message type: ``nav_msgs/msg/Odometry``, or as of old ``nav_msgs/Odometry``.

    :raises ConfigError: if there is none of that name; says what there is.
    """
    parts = name.split('/')
    if len(parts) == 2:
        parts.insert(1, 'msg')
    if len(parts) != 3 or parts[1] != 'msg' or not all(part.isidentifier() for part in parts):
        raise ConfigError(f'"{name}" is no message type; write package/msg/Type')
    package, _, kind = parts
    # A bundle names the type: nothing but packages of messages is imported for it.
    found_at = importlib.util.find_spec(package)
    folders = (found_at.submodule_search_locations if found_at else None) or ()
    if not any((Path(folder) / 'msg' / '__init__.py').is_file() for folder in folders):
        raise ConfigError(f'{name}: no package {package} with messages; install or source it')
    module = importlib.import_module(f'{package}.msg')
    found: Any = getattr(module, kind, None)
    if not hasattr(found, 'get_fields_and_field_types'):
        types = [n for n in dir(module) if hasattr(getattr(module, n), 'SLOT_TYPES')]
        raise ConfigError(f'{name}: {package} has no message {kind}; it has {", ".join(types)}')
    return found


def fields_of(message_type: Any) -> dict[str, str]:
    """Names and types of the fields of a message type."""
    return dict(message_type.get_fields_and_field_types())


def number_paths(message_type: type, prefix: str = '', depth: int = 0) -> list[str]:
    """Paths to all numbers of a message type; ``[...]`` marks a sequence."""
    found: list[str] = []
    for name, kind in fields_of(message_type).items():
        path, array = f'{prefix}{name}', ARRAY.match(kind)
        inner = (array[1] or array[2]) if array else kind
        if is_number(inner) or kind == QUATERNION:
            found.append(f'{path}[...]' if array else path)
        elif '/' in inner and inner != HEADER and depth < MAX_DEPTH:
            more = f'{path}[0].' if array else f'{path}.'
            found += number_paths(import_message(inner), more, depth + 1)
    return found


def is_number(kind: str) -> bool:
    """Whether a type of a field is one of numbers."""
    return kind in REALS or kind == 'boolean' or bool(WHOLE.match(kind))


@dataclass(frozen=True)
class Place:
    """
    A field somewhere below a message.

    :param text: the path, for errors.
    :param top: type of the message.
    :param steps: name of each field on the way, and what is picked of it.
    :param owners: type of the message that holds each.
    :param kind: type of the last field; of a message that was picked from several, its type.
    """

    text: str
    top: type
    steps: tuple[tuple[str, Index], ...]
    owners: tuple[type, ...]
    kind: str

    @property
    def holder(self) -> Callable[[Any], Any]:
        """Message to the message that holds the last field."""
        return follow(self.steps[:-1])

    @property
    def value(self) -> Callable[[Any], Any]:
        """Message to the last field."""
        return follow((*self.steps[:-1], (self.steps[-1][0], None)))

    def below(self, name: str) -> Place:
        """A field of the message that this is."""
        kind = import_message(self.kind)
        steps = (*self.steps, (name, None))
        return replace(self, steps=steps, owners=(*self.owners, kind), kind=fields_of(kind)[name])

    def refuse(self, why: str) -> ConfigError:
        """Error that tells the numbers there are."""
        paths = number_paths(self.top)
        more = ', ...' if len(paths) > SHOWN else ''
        shown = ', '.join(paths[:SHOWN]) + more
        return ConfigError(f'{self.text}: {why}; numbers in {_name(self.top)}: {shown}')


def find_place(path: str, text: str, message_type: type) -> Place:
    """
    Find a field of a message type.

    :param path: of the field.
    :param text: what the path is part of, for errors.
    :raises ConfigError: if there is none; says what there is.
    """
    place = Place(text, message_type, (), (), '')
    for name, index in _segments(path, text):
        owner: Any = message_type
        if place.steps:
            array = ARRAY.match(place.kind)
            if array is not None:
                raise place.refuse(f'{place.steps[-1][0]} is a sequence: say which, such as [0]')
            if '/' not in place.kind:
                raise place.refuse(f'{place.steps[-1][0]} is {place.kind} and has no {name}')
            owner = import_message(place.kind)
        if name not in fields_of(owner):
            raise place.refuse(f'{_name(owner)} has no field {name}')
        steps, owners = (*place.steps, (name, None)), (*place.owners, owner)
        place = replace(place, steps=steps, owners=owners, kind=fields_of(owner)[name])
        if index is not None:
            place = _picked(place, name, index)
    return place


def _segments(path: str, text: str) -> list[tuple[str, str | None]]:
    found, at = [], 0
    while at < len(path):
        match = SEGMENT.match(path, at)
        if match is None:
            break
        found.append((match[1], match[2]))
        at = match.end()
    if at < len(path) or not found or path.endswith('.'):
        raise ConfigError(
            f'"{text}" is no path: cannot be read at "{path[at:]}"; write twist.linear.x,'
            ' position[elbow], ranges[::8], data[0:6] or angle(position[elbow])'
        )
    return found


def _picked(place: Place, name: str, text: str) -> Place:
    """The place with what its brackets pick."""
    array = ARRAY.match(place.kind)
    if array is None:
        raise place.refuse(f'{name} is one {place.kind}, of which nothing can be picked')
    index: Index = text.strip()
    span = SLICE.match(text.strip())
    if text.strip().isdecimal():
        index = int(text)
    elif span is not None:
        index = slice(*(int(part) if part else None for part in span.groups()))
    elif not text.strip():
        raise place.refuse(f'{name}[] picks nothing')
    last = index.stop or 0 if isinstance(index, slice) else index
    size = int(array[3] or MAX_ELEMENTS)
    if isinstance(last, int) and last >= size + isinstance(index, slice):
        raise place.refuse(f'{name} has at most {size} elements')
    steps = (*place.steps[:-1], (name, index))
    if isinstance(index, str) and not names_beside(place):
        raise place.refuse(f'no names lie beside {name} to find {index} by; pick by number')
    element = array[1] or array[2]
    inner = element if '/' in element and isinstance(index, int) else place.kind
    return replace(place, steps=steps, kind=inner)


def names_beside(place: Place) -> str:
    """Field that names the elements of the last one; empty if none does."""
    fields = fields_of(place.owners[-1])
    return next((n for n in NAME_FIELDS if fields.get(n) == 'sequence<string>'), '')


def follow(steps: Sequence[tuple[str, Index]]) -> Callable[[Any], Any]:
    """Message to the field at the end of some steps; raises InvalidInput if it is not there."""
    if not steps:
        return lambda message: message
    if all(index is None for _, index in steps):
        return attrgetter('.'.join(name for name, _ in steps))

    def follow(message: Any) -> Any:
        for name, index in steps:
            message = getattr(message, name)
            if index is not None:
                if index >= len(message):  # type: ignore[operator]
                    raise InvalidInput(f'{name} has {len(message)} elements, no {name}[{index}]')
                message = message[index]
        return message

    return follow


def _name(message_type: type) -> str:
    return f'{message_type.__module__.split(".")[0]}/msg/{message_type.__name__}'
