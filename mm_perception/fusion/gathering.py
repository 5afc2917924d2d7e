"""Elements that carry names, put in order and gathered over messages. Knows no ROS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mm_perception.errors import InvalidInput

SHOWN = 4
CACHED = 32


@dataclass(frozen=True)
class Named:
    """
    What a message says about elements that it names: all that are wanted, or some of them.

    :param names: of the elements.
    :param values: ``float32[..., n]``, one column per name.
    :param wanted: the names that make a raw value, in its order; empty: those seen first.
    :param count: how many make a raw value.
    :param build: columns in the wanted order, ``float32[..., count]``, to the raw value.
    :param whole: the message has to name all of them, such as one that holds a whole motion.
    """

    names: tuple[str, ...]
    values: NDArray[Any]
    wanted: tuple[str, ...]
    count: int
    build: Callable[[NDArray[Any]], Any]
    whole: bool = False


class Gatherer:
    """
    Puts named elements in order, and gathers what several messages hold; one per sensor.

    Whoever publishes may name more elements than are wanted, and several may share a topic, as
    an arm and its gripper share ``joint_states``. Of each element the newest counts; a value is
    as old as its oldest element.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Forget all elements, and the order that was seen first."""
        self._order: tuple[str, ...] = ()
        self._places: dict[tuple[str, ...], tuple[NDArray[Any], NDArray[Any]]] = {}
        self._values = np.zeros(0, np.float32)
        self._stamps = np.zeros(0, np.int64)
        self._since_ns: int | None = None
        self.lacking = ''

    def take(self, part: Named, stamp_ns: int, patience_s: float) -> tuple[Any, int] | None:
        """
        Take what a message names.

        :param patience_s: how long other messages may keep the rest to themselves.
        :returns: the raw value and the stamp of its oldest element; None while elements are
            lacking, and for a message that names none of them; ``lacking`` says which.
        :raises InvalidInput: if the message, or for too long every message, lacks some.
        """
        self._find_order(part)
        columns, places = self._columns(part.names)
        if not len(places):
            self.lacking = (
                f'messages name {_shown(part.names)}, but not {_shown(self._order)};'
                f' {_REMEDY if part.wanted else "~/reset forgets the names seen first"}'
            )
            return None
        values = part.values[..., columns]
        if not np.isfinite(values).all():
            raise InvalidInput('positions hold NaN or infinity')
        if part.whole:
            self._refuse_lacking(np.delete(np.arange(part.count), places), 'the message')
            ordered = np.empty_like(values)
            ordered[..., places] = values
            return part.build(ordered), stamp_ns
        return self._gather(part, values, places, stamp_ns, patience_s)

    def _gather(
        self,
        part: Named,
        values: NDArray[Any],
        places: NDArray[Any],
        stamp_ns: int,
        patience_s: float,
    ) -> tuple[Any, int] | None:
        if len(self._values) != part.count:
            self._values = np.zeros(part.count, np.float32)
            self._stamps = np.zeros(part.count, np.int64)
        self._values[places] = values
        self._stamps[places] = stamp_ns
        lacking = np.flatnonzero(self._stamps == 0)
        self._since_ns = stamp_ns if self._since_ns is None else self._since_ns
        if len(lacking):
            self.lacking = f'no message has named {self._named(lacking)} yet'
            if (stamp_ns - self._since_ns) * 1e-9 > patience_s:
                self._refuse_lacking(lacking, 'any message')
            return None
        oldest = int(self._stamps.argmin())
        oldest_ns = int(self._stamps[oldest])
        late = oldest_ns < stamp_ns
        self.lacking = (
            f'{self._order[oldest]} is what came last; look at who publishes it' if late else ''
        )
        return part.build(self._values.copy()), oldest_ns

    def _find_order(self, part: Named) -> None:
        if part.wanted:
            self._order = part.wanted
        elif not self._order:
            if len(part.names) != part.count:
                raise InvalidInput(
                    f'{len(part.names)} elements; expected {part.count}, got'
                    f' {_shown(part.names)}: {_REMEDY}'
                )
            self._order = part.names

    def _columns(self, names: tuple[str, ...]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Columns of a message that are wanted, and the places where they belong."""
        if names not in self._places:
            if len(self._places) >= CACHED:
                self._places.clear()
            column = {name: k for k, name in enumerate(names)}
            found = [(column[n], k) for k, n in enumerate(self._order) if n in column]
            pairs = np.array(found, int).reshape(-1, 2)
            self._places[names] = pairs[:, 0], pairs[:, 1]
        return self._places[names]

    def _refuse_lacking(self, lacking: NDArray[Any], where: str) -> None:
        if len(lacking):
            raise InvalidInput(f'no position of joint {self._named(lacking)} in {where}')

    def _named(self, places: NDArray[Any]) -> str:
        return _shown(tuple(self._order[k] for k in places))


_REMEDY = 'name those wanted in preprocessing.names'


def complete(raw: Any) -> Any:
    """
    Raw value of one message by itself.

    :raises InvalidInput: if it does not name all that is wanted.
    """
    if not isinstance(raw, Named):
        return raw
    taken = Gatherer().take(raw, 1, -1.0)
    if taken is None:
        raise InvalidInput(f'no position of joint {_shown(raw.wanted)} in the message')
    return taken[0]


def _shown(names: tuple[str, ...]) -> str:
    more = ', ...' if len(names) > SHOWN else ''
    shown = ', '.join(name[:32] for name in names[:SHOWN]) + more
    return ''.join(each if each.isprintable() else '?' for each in shown)
