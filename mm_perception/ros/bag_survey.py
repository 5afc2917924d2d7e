"""What bags hold, topic by topic, and the modalities that it could give."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.serialization import deserialize_message

from mm_perception.data.drafting import (
    Draft,
    Frames,
    Seen,
    Timing,
    distinct,
    draft_image,
    draft_symbol,
    draft_vector,
    group_names,
    name_of,
    timing,
)
from mm_perception.errors import DataError, InvalidInput
from mm_perception.fusion.gathering import Named
from mm_perception.modalities import Motion, Waveform, build_modality
from mm_perception.modalities.utterances import frame_levels
from mm_perception.ros.bag_fields import Drafted, Fields
from mm_perception.ros.bag_files import Bag, Say, silent
from mm_perception.ros.bag_import import GAP_NS, SAME_CLOCK_S, reader_of, stamp_ns_of
from mm_perception.ros.codecs import input_codec, input_names
from mm_perception.ros.codecs.cloud import is_cloud
from mm_perception.ros.codecs.transforms import NAME
from mm_perception.spec import ModalitySpec

KINDS = ('image', 'vector', 'symbol', 'sound', 'trajectory')
USUALLY = {'sensor_msgs/msg/PointCloud2': 'sound'}
"""What a message is taken for that several kinds read."""
"""In the order in which they are tried: of what several can read, the first."""
MOST_VALUES = 20_000
MOST_FRAMES, MOST_FRAMES_SHOWN = 300, 12
JUMP_S = 0.5
RATES_HZ = (8000, 16000)
QUIET = 0.1
"""Level of the quiet fifth of a sound, in parts of the loud one, below which it is speech."""


def survey_bags(
    paths: Sequence[Path], topics: Collection[str] = (), say: Say = silent
) -> tuple[list[Seen], float]:
    """
    Look at what bags hold.

    :param topics: to look at; empty for all.
    :returns: what was seen of each topic, and how long the bags last in all (s), without the
        times in which nothing came for a minute.
    :raises DataError: if a bag cannot be read, lacks one of the topics, or nothing is in it.
    """
    watched: dict[str, _Watched] = {}
    length_s = 0.0
    for path in paths:
        with Bag(path, say) as bag:
            known = bag.topics
            absent = [topic for topic in topics if topic not in known]
            if absent:
                raise DataError(
                    f'{path}: has no topic {absent[0]}; it has {", ".join(known) or "none"}'
                )
            chosen = {name: t for name, t in known.items() if not topics or name in topics}
            for name, topic in chosen.items():
                every = max(1, topic.count // MOST_FRAMES)
                watched.setdefault(name, _Watched(name, topic.message, every)).begin()
            length_s += _look(bag, watched, chosen)
    if not watched:
        raise DataError(f'{", ".join(map(str, paths))}: holds no messages; record again')
    return distinct([each.seen() for each in watched.values()]), length_s


def _look(bag: Bag, watched: dict[str, _Watched], topics: Collection[str]) -> float:
    length_ns, last_ns = 0, None
    for topic, receipt_ns, data in bag.messages(topics):
        step_ns = 0 if last_ns is None else receipt_ns - last_ns
        length_ns += step_ns if step_ns < GAP_NS else 0
        last_ns = receipt_ns
        watched[topic].take(receipt_ns, data)
    return length_ns * 1e-9


class _Watched:
    """What came on one topic."""

    def __init__(self, topic: str, message: str, every: int) -> None:
        self._topic, self._message, self._usual_every = topic, message, every
        reading = (kind for kind in KINDS if message in input_names(kind))
        self._become(USUALLY.get(message) or next(reading, ''))
        self._fields = Fields(message) if self._kind in ('', 'vector') else None
        if self._fields is not None and not self._fields.paths:
            self._fields = None
        self._times_s: list[list[float]] = []
        self._values: list[Any] = []
        self._stride = 1
        self._frames = Frames()
        self._refused: dict[str, int] = {}
        self._read_tree = reader_of(message) if message == NAME else None
        self._frames_seen: dict[str, None] = {}
        self._count = self._jumps = 0
        self._away_s = 0.0
        self._stamp_ns = 0

    def _become(self, kind: str) -> None:
        self._kind = kind
        self._every = self._usual_every if kind == 'image' else 1
        self._codec = input_codec(kind, self._message) if kind else None
        spec = ModalitySpec('sensor', kind, preprocessing=_open_options(kind))
        self._modality: Any = build_modality(spec) if kind else None

    def begin(self) -> None:
        """Begin with a bag."""
        self._times_s.append([])
        self._stamp_ns = 0

    def take(self, receipt_ns: int, data: bytes) -> None:
        """Take a message as it was recorded."""
        self._times_s[-1].append(receipt_ns * 1e-9)
        self._count += 1
        if self._read_tree is not None:
            pairs = [
                (t.header.frame_id, t.child_frame_id) for t in self._read_tree(data).transforms
            ]
            self._frames_seen |= dict.fromkeys(f'{child} in {parent}' for parent, child in pairs)
        if self._message in USUALLY and self._count == 1 and _holds_points(self._codec, data):
            self._become('image')
        if self._codec is None and self._fields is None:
            return
        if self._kind == 'image':
            self._frames.follow(zlib.crc32(memoryview(data)[_STAMP.size :]))
            if (self._count - 1) % self._every:
                self._follow(_stamp_ns(data), receipt_ns)
                return
        try:
            raw = self._decode(data, receipt_ns)
        except (InvalidInput, RuntimeError) as error:
            reason = str(error)
            self._refused[reason] = self._refused.get(reason, 0) + 1
            return
        if self._kind == 'image':
            self._frames.take(raw)
        elif self._count % self._stride == 0:
            self._values.append(raw)
            if len(self._values) >= MOST_VALUES:
                self._values, self._stride = self._values[::2], 2 * self._stride

    def _decode(self, data: bytes, receipt_ns: int) -> Any:
        """Raw value of a message."""
        source: Any = self._fields or self._codec
        message = deserialize_message(data, source.message_type)
        self._follow(stamp_ns_of(message), receipt_ns)
        if self._fields is not None:
            return self._fields.read(message)
        assert self._codec is not None
        return self._codec.decode(message, receipt_ns, self._modality)[0]

    def _follow(self, stamp_ns: int, receipt_ns: int) -> None:
        if stamp_ns:
            self._away_s = max(self._away_s, abs(receipt_ns - stamp_ns) * 1e-9)
            self._jumps += self._stamp_ns - stamp_ns > JUMP_S * 1e9
            self._stamp_ns = stamp_ns

    def seen(self) -> Seen:
        """What is to be said of it."""
        when = _joined([timing(times_s) for times_s in self._times_s if times_s])
        remarks = []
        if self._away_s > SAME_CLOCK_S:
            remarks.append(
                f'stamps are up to {self._away_s:.3g} s away from the time of recording: another'
                ' clock, whose time is used'
            )
        if self._jumps:
            remarks.append(f'stamps run backwards {self._jumps} times')
        for reason, count in self._refused.items():
            remarks.append(f'{count} cannot be read: {reason}')
        if not self._count:
            remarks.append('no messages')
        if self._kind == '' and self._fields is None:
            remarks.append(
                _tree_remark(self._frames_seen)
                if self._frames_seen
                else f'no kind of modality takes {self._message}'
            )
            return Seen(self._topic, self._message, when, (), tuple(remarks))
        drafts, more = self._drafts(when)
        return Seen(self._topic, self._message, when, drafts, (*remarks, *more))

    def _drafts(self, when: Timing) -> tuple[tuple[Draft, ...], tuple[str, ...]]:
        name = name_of(self._topic)
        if self._kind == 'image':
            if not self._frames.count:
                return (), ()
            return _one(draft_image(name, self._frames, when))
        if not self._values:
            return (), ()
        if self._fields is not None:
            return self._fields.draft(name, np.array(self._values), when)
        draft = _DRAFTERS[self._kind]
        return draft(name, self._values, when)


def _holds_points(codec: Any, data: bytes) -> bool:
    """Whether a PointCloud2 is what its name says."""
    try:
        return is_cloud(deserialize_message(data, codec.message_type))
    except RuntimeError:
        return False


def _tree_remark(frames: Collection[str]) -> str:
    more = ', ...' if len(frames) > MOST_FRAMES_SHOWN else ''
    shown = ', '.join(list(frames)[:MOST_FRAMES_SHOWN]) + more
    return f'frames: {shown}; a vector takes two: preprocessing: {{tf: {{target: A, source: B}}}}'


_STAMP = struct.Struct('<4xiI')
"""Beginning of a serialised message with a header, as little-endian machines write it."""


def _stamp_ns(data: bytes) -> int:
    seconds, nanoseconds = _STAMP.unpack_from(data)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def _one(drafted: tuple[Draft | None, tuple[str, ...]]) -> Drafted:
    draft, remarks = drafted
    return ((draft,) if draft else ()), remarks


def _draft_vectors(name: str, values: list[Any], when: Timing) -> Drafted:
    named = [raw for raw in values if isinstance(raw, Named)]
    if named:
        return _draft_joints(name, named, when)
    sizes = sorted({len(raw) for raw in values})
    if len(sizes) > 1:
        return (), (f'vectors have {" or ".join(map(str, sizes))} elements',)
    return _one(draft_vector(name, (), np.stack(values).astype(np.float64), when))


def _draft_joints(name: str, parts: list[Named], when: Timing) -> Drafted:
    """Draft a vector per group of joints that come in the same messages."""
    together: dict[tuple[str, ...], list[Any]] = {}
    for part in parts:
        together.setdefault(part.names, []).append(part.values)
    drafts, remarks, taken = [], [], set()
    for names, rows in together.items():
        values = np.stack(rows).astype(np.float64)
        for label, members in group_names([n for n in names if n not in taken]):
            columns = [names.index(member) for member in members]
            draft, more = draft_vector(label or name, members, values[:, columns], when)
            drafts += [draft] if draft else []
            remarks += [f'{label or name}: {remark}' for remark in more]
        taken |= set(names)
    return tuple(drafts), tuple(remarks)


def _draft_symbols(name: str, values: list[Any], when: Timing) -> Drafted:
    return _one(draft_symbol(name, values, when))


def _draft_sound(name: str, values: list[Waveform], when: Timing) -> Drafted:
    rates = {raw.rate_hz for raw in values}
    samples = np.concatenate([raw.samples for raw in values])
    if len(rates) > 1:
        return (), (f'sample rates of {" and ".join(map(str, sorted(rates)))} Hz',)
    if not samples.any():
        return (), ('nothing but digital silence',)
    levels = frame_levels(samples, rates.pop())
    quiet, loud = np.quantile(levels, (0.2, 0.95))
    window = 'utterance' if quiet < QUIET * loud else 'sliding'
    rate_hz = next((r for r in reversed(RATES_HZ) if r <= values[0].rate_hz), RATES_HZ[0])
    options = {'rate_hz': rate_hz, 'window': window}
    age_s = when.max_age_s if window == 'sliding' else max(2.5, when.max_age_s)
    return (Draft(name, 'sound', options, age_s),), (f'taken for a sound by {window}',)


def _draft_motions(name: str, values: list[Any], when: Timing) -> Drafted:
    names = values[0].names if isinstance(values[0], Named) else ()
    points = [_points(raw) for raw in values]
    sizes = sorted({p.shape[1] for p in points})
    if len(sizes) > 1:
        return (), (f'points have {" or ".join(map(str, sizes))} coordinates',)
    whole = np.concatenate(points).astype(np.float64)
    flat = names == () and sizes == [3] and float(np.ptp(whole[:, 2])) < 1e-6
    options: dict[str, Any] = {'dimensions': 2 if flat else sizes[0]}
    if names:
        options['names'] = list(names)
    single = all(len(p) == 1 for p in points)
    strokes = single and when.gap_s > 5.0 * when.late_s > 0.0
    if single and not strokes:
        draft, more = draft_vector(name, (), whole[:, : options['dimensions']], when)
        if draft is None:
            return (), more
        options |= {'window': 'sliding', 'spacing': 'time'}
        options |= {key: draft.preprocessing[key] for key in ('low', 'high')}
    age_s = when.max_age_s if single and not strokes else max(2.5, when.max_age_s)
    return (Draft(name, 'trajectory', options, age_s),), ()


def _points(raw: Any) -> Any:
    if isinstance(raw, Named):
        return np.atleast_2d(raw.values)
    assert isinstance(raw, Motion)
    return raw.points


_DRAFTERS: dict[str, Callable[[str, list[Any], Timing], Drafted]] = {
    'vector': _draft_vectors,
    'symbol': _draft_symbols,
    'sound': _draft_sound,
    'trajectory': _draft_motions,
}


def _open_options(kind: str) -> dict[str, Any]:
    """Options with which every message of a kind can be read, whatever it holds."""
    options: dict[str, dict[str, Any]] = {
        'symbol': {'labels': ['any']},
        'trajectory': {'dimensions': 3},
    }
    return options.get(kind, {})


def _joined(parts: Sequence[Timing]) -> Timing:
    """Timing of several recordings together."""
    if not parts:
        return Timing(0)
    longest = max(parts, key=lambda part: part.count)
    return Timing(
        sum(part.count for part in parts),
        longest.period_s,
        max(part.late_s for part in parts),
        max(part.gap_s for part in parts),
    )
