"""Numbers of any message by path, such as ``twist.twist.linear.x``, to read and to write back."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mm_perception.errors import ConfigError, InvalidInput
from mm_perception.ros.codecs.places import (
    ARRAY,
    HEADER,
    QUATERNION,
    WHOLE,
    Place,
    fields_of,
    find_place,
    follow,
    import_message,
    is_number,
    names_beside,
)
from mm_perception.ros.codecs.rotations import (
    angles_near,
    cosines_and_sines,
    six_of_quaternion,
    write_six,
    write_yaw,
    yaw_of_quaternion,
)

Numbers = Sequence[float] | NDArray[Any]
TURNS = {'angle': 2 * math.pi, 'angle_deg': 360.0}
FUNCTIONS = (*TURNS, 'yaw')


@dataclass(frozen=True)
class Path:
    """
    Numbers of a message that one path names.

    :param text: as it was written.
    :param read: message to its numbers; raises InvalidInput.
    :param write: puts numbers, as many as :attr:`read` gives, into a message.
    :param count: how many numbers; None: the message tells.
    :param plain: dotted name of one number that an attribute getter finds; or empty.
    :param variances: of each number, where its variance belongs: getter of the message that holds
        it, field, place in its matrix (None: it is one number); None where it has none.
    :param name: of the element, where the path picks one by name.
    :param names_of: message to the names that it has, where the path picks one by name.
    """

    text: str
    read: Callable[[Any], Numbers]
    write: Callable[[Any, NDArray[Any]], None]
    count: int | None
    plain: str = ''
    variances: tuple[tuple[Callable[[Any], Any], str, int | None] | None, ...] = (None,)
    name: str = ''
    names_of: Callable[[Any], Sequence[str]] | None = None


def compile_path(text: str, message_type: type) -> Path:
    """
    Find what a path names in a message type.

    Of a sequence ``[...]`` picks a number, a slice or, where names lie beside it, an element by
    name. ``angle(...)`` reads radians as cosine and sine, ``angle_deg(...)`` degrees, ``yaw(...)``
    the yaw of a quaternion likewise. A quaternion is :func:`six_of_quaternion`; another message
    is all of its single numbers but those of its header.

    :raises ConfigError: if there is no such number; says what there is.
    """
    called = re.fullmatch(r'\s*(\w+)\((.*)\)\s*', text)
    function, inner = (called[1], called[2]) if called else ('', text.strip())
    if function and function not in FUNCTIONS:
        raise ConfigError(f'{text}: {function} is not one of {", ".join(FUNCTIONS)}')
    place = find_place(inner, text, message_type)
    if function == 'yaw':
        if place.kind != QUATERNION:
            raise ConfigError(f'{text}: {inner} is {place.kind}; yaw is of {QUATERNION}')
        return _rotation(place, yaw_of_quaternion, write_yaw, 2)
    path = _numbers(place)
    return _angles(path, TURNS[function]) if function else path


def joined(text: str, paths: Sequence[Path]) -> Path:
    """
    All numbers of several paths as those of one.

    :param text: of the whole.
    """
    counts = [path.count for path in paths]
    known = None if None in counts else sum(int(count or 0) for count in counts)
    plain = [path.plain for path in paths]
    read: Callable[[Any], Numbers]
    if all(plain) and len(plain) > 1:
        read = attrgetter(*plain)
    elif len(paths) == 1:
        read = paths[0].read
    else:

        def read(message: Any) -> Numbers:
            return np.concatenate([np.asarray(path.read(message), float) for path in paths])

    def write(message: Any, values: NDArray[Any]) -> None:
        at = 0
        for path in paths:
            count = path.count
            if count is None:
                count = len(path.read(message)) or known_rest(paths, len(values))
            path.write(message, values[at : at + count])
            at += count

    variances = tuple(each for path in paths for each in path.variances)
    return Path(text, read, write, known, variances=variances)


def known_rest(paths: Sequence[Path], total: int) -> int:
    """How many numbers are left for the one path of which only messages tell."""
    return total - sum(path.count or 0 for path in paths)


def _numbers(place: Place) -> Path:
    """What a place ends at, as numbers."""
    array = ARRAY.match(place.kind)
    if array is not None:
        if not is_number(array[1] or array[2]):
            raise place.refuse(f'{place.steps[-1][0]} holds {array[1] or array[2]}')
        if isinstance(place.steps[-1][1], str):
            return _named(place)
        return _elements(place, array)
    if place.kind == QUATERNION:
        return _rotation(place, six_of_quaternion, write_six, 6)
    if place.kind == HEADER:
        raise place.refuse('a header is no measurement')
    if '/' in place.kind:
        kinds = fields_of(import_message(place.kind))
        single = [n for n, k in kinds.items() if not ARRAY.match(k) and (is_number(k) or '/' in k)]
        parts = [_numbers(place.below(n)) for n in single if kinds[n] != HEADER]
        if not parts:
            raise place.refuse(f'{place.kind} holds no single number')
        return joined(place.text, parts)
    if not is_number(place.kind):
        raise place.refuse(f'{place.steps[-1][0]} is {place.kind}')
    return _single(place)


def _single(place: Place) -> Path:
    name, holder, value = place.steps[-1][0], place.holder, place.value
    convert, limited = _to_field(place.kind), _limits(place)
    plain = '.'.join(n for n, _ in place.steps)
    plain = '' if limited or any(index is not None for _, index in place.steps) else plain

    def read(message: Any) -> Numbers:
        numbers = (value(message),)
        return _within(numbers, holder(message), limited) if limited else numbers

    def write(message: Any, values: NDArray[Any]) -> None:
        setattr(holder(message), name, convert(values[0]))

    return Path(place.text, read, write, 1, plain, (_variance(place),))


def _elements(place: Place, array: re.Match[str]) -> Path:
    """Numbers of a sequence: one, a slice, or all."""
    name, pick = place.steps[-1]
    holder, value, limited = place.holder, place.value, _limits(place)
    chosen = slice(pick, pick + 1) if isinstance(pick, int) else pick or slice(None)
    assert isinstance(chosen, slice)
    size = int(array[3]) if array[3] else chosen.stop
    count = None if size is None else len(range(size)[chosen])
    kind = array[1] or array[2]

    def read(message: Any) -> Numbers:
        found = value(message)[chosen]
        if count is not None and len(found) != count:
            raise InvalidInput(
                f'{place.text}: {name} has {len(value(message))} elements;'
                f' {count} of them are wanted'
            )
        return _within(found, holder(message), limited) if limited else found

    def write(message: Any, values: NDArray[Any]) -> None:
        before = np.asarray(value(message), float)
        setattr(holder(message), name, _as_field(_spread(before, chosen, values), kind))

    return Path(place.text, read, write, count, variances=(None,) * (count or 1))


def _spread(before: NDArray[Any], chosen: slice, values: NDArray[Any]) -> NDArray[Any]:
    """Put values at every n-th place; between them goes a straight line."""
    start, step = chosen.start or 0, chosen.step or 1
    places = start + step * np.arange(len(values))
    length = max(len(before), int(places[-1]) + 1 if len(places) else 0)
    after = np.zeros(length)
    after[: len(before)] = before
    end = int(places[-1]) + 1 if chosen.stop else length
    between = np.arange(start, end)
    after[start:end] = np.interp(between, places, values)
    return after


def _named(place: Place) -> Path:
    """One number of a sequence by the name that stands beside it."""
    name, wanted = place.steps[-1]
    names = names_beside(place)
    holder, value = place.holder, place.value

    def names_of(message: Any) -> Sequence[str]:
        return getattr(holder(message), names)

    def read(message: Any) -> Numbers:
        known = names_of(message)
        if wanted not in known:
            raise InvalidInput(f'{place.text}: {names} has {", ".join(known[:4])}')
        values = value(message)
        if len(values) != len(known):
            raise InvalidInput(f'{len(known)} in {names} but {len(values)} in {name}')
        return (values[known.index(wanted)],)

    def write(message: Any, values: NDArray[Any]) -> None:
        owner = holder(message)
        known = list(getattr(owner, names))
        if wanted not in known:
            setattr(owner, names, [*known, wanted])
        at = len(known) if wanted not in known else known.index(wanted)
        numbers = np.asarray(value(message), float)
        padded = np.append(numbers, np.zeros(max(at + 1 - len(numbers), 0)))
        padded[at] = values[0]
        setattr(owner, name, padded.tolist())

    return Path(place.text, read, write, 1, name=str(wanted), names_of=names_of)


def _rotation(place: Place, read: Any, write: Any, count: int) -> Path:
    value = follow(place.steps)
    return Path(
        place.text,
        lambda message: read(value(message)),
        lambda message, values: write(value(message), values),
        count,
        variances=(None,) * count,
    )


def _angles(path: Path, turn: float) -> Path:
    """Cosine and sine of each number of a path."""

    def write(message: Any, values: NDArray[Any]) -> None:
        try:
            before = path.read(message)
        except InvalidInput:
            before = ()
        path.write(message, angles_near(values, before, turn))

    return replace(
        path,
        read=lambda message: cosines_and_sines(path.read(message), turn),
        write=write,
        count=None if path.count is None else 2 * path.count,
        plain='',
        variances=(None,) * (2 * len(path.variances)),
    )


def _limits(place: Place) -> tuple[str, str] | None:
    """Fields beside ranges that say how near and how far these see; None of other numbers."""
    if place.steps[-1][0] not in ('range', 'ranges'):
        return None
    beside = fields_of(place.owners[-1])
    pairs = ('range_min', 'range_max'), ('min_range', 'max_range')
    return next((pair for pair in pairs if pair[0] in beside), None)


def _within(values: Numbers, holder: Any, limits: tuple[str, str]) -> NDArray[Any]:
    """Ranges in which nothing seen (infinity or NaN, REP 117) is the farthest."""
    ranges = np.array(values, np.float64)
    ranges[np.isnan(ranges)] = np.inf
    return np.clip(ranges, getattr(holder, limits[0]), getattr(holder, limits[1]))


def _to_field(kind: str) -> Callable[[float], Any]:
    """Convert a number to what a field of a type takes."""
    if kind == 'boolean':
        return lambda value: bool(value >= 0.5)
    whole = WHOLE.match(kind)
    if whole is None:
        return float
    bits, signed = int(whole[1]), not kind.startswith('u')
    low = -(2 ** (bits - 1)) if signed else 0
    high = 2 ** (bits - signed) - 1
    return lambda value: min(max(round(float(value)), low), high)


def _as_field(values: NDArray[Any], kind: str) -> list[Any]:
    convert = _to_field(kind)
    return [convert(value) for value in values.tolist()]


def _variance(place: Place) -> tuple[Callable[[Any], Any], str, int | None] | None:
    """Where the variance of a number belongs, by the names that ROS gives it."""
    names, kinds = [name for name, _ in place.steps], [fields_of(t) for t in place.owners]
    if kinds[-1].get('variance') == 'double':
        return place.holder, 'variance', None
    axis = 'xyz'.find(names[-1]) if len(names[-1]) == 1 else -1
    if axis < 0 or len(names) < 2:
        return None
    group = names[-2]
    if kinds[-2].get(f'{group}_covariance') == 'double[9]':
        return follow(place.steps[:-2]), f'{group}_covariance', 4 * axis
    first = {'position': 0, 'linear': 0, 'angular': 3}.get(group)
    if first is not None and len(names) > 2 and kinds[-3].get('covariance') == 'double[36]':
        return follow(place.steps[:-3]), 'covariance', 7 * (first + axis)
    return None
