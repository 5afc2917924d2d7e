"""Complete sets: values of all sensors whose stamps lie close together."""

from __future__ import annotations

from mm_perception.fusion.sets import Sets
from mm_perception.modalities import Stamped

MS = 1_000_000


def sets_of(slop_s: float = 0.1, **stamps_ms: list[int]) -> Sets:
    """Sets of sensors that gave a value, the stamp itself, at each of some times."""
    sets = Sets(slop_s)
    for name, times in stamps_ms.items():
        for time_ms in times:
            sets.add(name, Stamped(time_ms, time_ms * MS))
    return sets


def newest(sets: Sets, *names: str) -> dict[str, int]:
    return {name: value.raw for name, value in sets.newest(names).items()}


def test_sets_takes_the_newest_values_that_lie_close_together() -> None:
    sets = sets_of(left=[0, 100, 200, 300], right=[10, 110, 210])
    assert newest(sets, 'left', 'right') == {'left': 300, 'right': 210}
    assert newest(
        sets_of(0.05, left=[0, 100, 200, 300], right=[10, 110, 210]), 'left', 'right'
    ) == {
        'left': 200,
        'right': 210,
    }, 'a value waits for the one that belongs to it'


def test_sets_needs_every_sensor_that_is_asked_for() -> None:
    sets = sets_of(left=[0, 500], right=[250])
    assert newest(sets, 'left', 'right') == {}
    assert sets.lacking(('left', 'right')) == ['right']
    assert newest(sets, 'left') == {'left': 500}
    assert newest(sets, 'left', 'absent') == {}
    sets.add('right', None)
    assert sets.lacking(('left', 'right')) == ['right']


def test_sets_forgets() -> None:
    sets = sets_of(left=[0], right=[0])
    assert newest(sets, 'left', 'right')
    sets.clear()
    assert newest(sets, 'left', 'right') == {}
