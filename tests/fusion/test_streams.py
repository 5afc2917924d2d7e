"""Streams: from what messages carry to readings."""

from __future__ import annotations

from typing import Any

import numpy as np

from mm_perception.errors import InvalidInput
from mm_perception.fusion.health import Limits
from mm_perception.fusion.streams import Reading, Stream, Taken
from mm_perception.modalities import Motion, Stamped, build_modality
from mm_perception.spec import ModalitySpec
from tests.helpers.small_bundle import LABELS, small_spec

SYMBOL = build_modality(ModalitySpec('symbol', 'symbol', 4, {'labels': LABELS}))
LIMITS = Limits()


def take(stream: Stream, value: Any, now_ns: int = 100) -> Taken:
    """Deliver a value stamped now, or what keeps a message from being read."""
    if isinstance(value, Exception):
        return stream.refuse(value, now_ns)
    return stream.take(value, now_ns, now_ns, LIMITS)


def test_stream_turns_messages_into_readings() -> None:
    stream = Stream(SYMBOL)
    assert take(stream, '3') == Taken(True)
    assert stream.snapshot().value == Stamped('3', 100)
    assert take(stream, '3', 200).news
    assert stream.snapshot().value == Stamped('3', 200)
    assert stream.snapshot().statistics.since_ns == 100, 'the same data as before'
    assert (stream.received, stream.refused) == (2, 0)


def test_stream_reports_a_refused_message_and_keeps_the_last_value() -> None:
    stream = Stream(SYMBOL)
    take(stream, '3')
    taken = take(stream, InvalidInput('0 characters', 'empty'))
    assert (taken.news, taken.refused, taken.defect) == (True, '0 characters', None)
    reading = stream.snapshot()
    assert (reading.value, reading.refused, reading.fault) == (
        Stamped('3', 100),
        '0 characters',
        'empty',
    )
    again = take(stream, InvalidInput('0 characters', 'empty'))
    assert not again.news and again.refused, 'no news while nothing changes, but it is refused'
    assert take(stream, '4') == Taken(True)
    assert stream.snapshot().refused == ''
    assert (stream.received, stream.refused) == (4, 2)


def test_stream_survives_a_defect_of_who_reads() -> None:
    stream = Stream(SYMBOL)
    taken = take(stream, ZeroDivisionError('oops'))
    assert 'oops' in taken.refused
    assert isinstance(taken.defect, ZeroDivisionError)


def test_stream_refuses_a_stamp_from_the_future() -> None:
    stream = Stream(SYMBOL)
    taken = stream.take('3', 2_000_000_000, 0, LIMITS)
    assert 'in the future' in taken.refused
    assert stream.snapshot().fault == 'future'
    late = stream.take('3', 1_700_000_000_000_000_000, 0, LIMITS).refused
    assert 'the clock of the node, which stands at 0 s: publish /clock' in late


def test_stream_forgets_and_tells_how_far_stamps_ran_backwards() -> None:
    stream = Stream(SYMBOL)
    take(stream, '3', 5_000_000_000)
    assert stream.take('4', 1_000_000_000, 5_000_000_001, LIMITS).jump_s == 4.0
    assert stream.snapshot().value == Stamped('4', 1_000_000_000)


def test_stream_clear_forgets_everything() -> None:
    stream = Stream(SYMBOL)
    take(stream, '3')
    stream.clear()
    assert stream.snapshot() == Reading(None)


def test_stream_of_points_ends_a_stroke_by_time() -> None:
    stream = Stream(build_modality(small_spec().modality('trajectory')))
    for k in range(5):
        point = Motion(np.array([[float(k), 0.0]], np.float32), np.zeros(1, np.float32))
        assert not take(stream, point, k * 10_000_000 + 1).news
    assert not stream.advance(41_000_000)
    assert stream.advance(1_000_000_000)
    value = stream.snapshot().value
    assert value is not None
    assert len(value.raw.points) == 5  # type: ignore[attr-defined]
