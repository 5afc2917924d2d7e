"""From recorded bags to a dataset: row by row what the node would have used."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rclpy.serialization import deserialize_message
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader, ReaderError
from tqdm import tqdm

from mm_perception.data.dataset import Dataset
from mm_perception.data.rows import Account, Rows
from mm_perception.errors import DataError
from mm_perception.fusion.assessment import Assessor
from mm_perception.fusion.health import Checks, Limits
from mm_perception.fusion.streams import Reading, Stream
from mm_perception.modalities import build_modality
from mm_perception.ros.codecs import InputCodec, codec_for, stamp_of
from mm_perception.spec import ModelSpec


def resolve(topic: str, namespace: str) -> str:
    """Full name of a topic; only relative ones are in the namespace."""
    prefix = '' if topic.startswith('/') else namespace.strip('/')
    return '/'.join(('', prefix, topic) if prefix else ('', topic.lstrip('/')))


def stamp_ns_of(message: Any) -> int:
    """Time of a message's header; 0 if it has none or its sender left it out."""
    header = getattr(message, 'header', None)
    return 0 if header is None else stamp_of(header, 0)


def read_messages(
    path: Path, topics: Mapping[str, str], codecs: Mapping[str, InputCodec]
) -> Iterator[tuple[str, int, bytes]]:
    """
    Read what a bag holds of some modalities, with a progress bar.

    :param topics: full name of the topic per modality; several may share one.
    :param codecs: of the modalities, which say what type of message is expected.
    :returns: modality, time of receipt (ns) and content of every message, in their order.
    :raises DataError: if the bag cannot be read, has none of the topics, or one of another type.
    """
    try:
        with Reader(path) as reader:
            chosen = _find(reader.connections, path, topics, codecs)
            count = sum(connection.msgcount for connection in chosen)
            bar = {'desc': path.name, 'total': count, 'unit': 'message', 'leave': False}
            for connection, receipt_ns, data in tqdm(reader.messages(chosen), **bar):
                for name, topic in topics.items():
                    if topic == connection.topic:
                        yield name, receipt_ns, bytes(data)
    except (ReaderError, OSError) as error:
        raise DataError(
            f'{path}: not a readable bag ({error}); give the folder that ros2 bag record wrote,'
            ' or mend it with ros2 bag reindex'
        ) from error


def _find(
    connections: Sequence[Connection],
    path: Path,
    topics: Mapping[str, str],
    codecs: Mapping[str, InputCodec],
) -> list[Connection]:
    found = [c for c in connections if c.topic in topics.values()]
    if not found:
        known = ', '.join(dict.fromkeys(c.topic for c in connections)) or 'none'
        raise DataError(
            f'{path}: has none of the topics {", ".join(topics.values())}; it has {known};'
            ' set topic in the configuration'
        )
    for connection in found:
        for name, topic in topics.items():
            if topic == connection.topic and connection.msgtype != codecs[name].name:
                raise DataError(
                    f'{path}: {topic} is {connection.msgtype}, not {codecs[name].name};'
                    ' set message in the configuration'
                )
    return found


SAME_CLOCK_S = 10.0
GAP_NS = 60_000_000_000
CHECKS = Checks(agreement=False)
WHOLE = (0.0, math.inf)
Say = Callable[[str], None]


def _silent(text: str) -> None:
    pass


@dataclass(frozen=True)
class Tick:
    """
    What the node would look at once.

    :param now_ns: on the bag's clock.
    :param time_s: since the bag's first tick.
    :param readings: of every modality.
    """

    now_ns: int
    time_s: float
    readings: dict[str, Reading]


class _Player:
    """
    Bags, played to the input side of the node.

    :param namespace: that relative topics were recorded in.
    """

    def __init__(self, spec: ModelSpec, namespace: str) -> None:
        self.kinds = {m.name: build_modality(m) for m in spec.modalities}
        self.topics = {m.name: resolve(m.topic or m.name, namespace) for m in spec.modalities}
        self.limits = {m.name: Limits(max_age_s=m.max_age_s) for m in spec.modalities}
        self.accounts = {name: Account() for name in spec.names}
        self._codecs = {m.name: codec_for(self.kinds[m.name]) for m in spec.modalities}
        self._streams: dict[str, Stream] = {}

    def play(self, path: Path, rate_hz: float, say: Say) -> Iterator[Tick]:
        """Take every message of a bag in its order; yields the ticks in between."""
        self._streams = {name: Stream(kind) for name, kind in self.kinds.items()}  # no past
        period_ns = round(1e9 / rate_hz)
        own_ns = self._own_time_ns(path, say)
        now_ns, first_ns, tick_ns = own_ns, None, 0
        for name, receipt_ns, message in self._read(path):
            now_ns = max(now_ns, stamp_ns_of(message)) if own_ns else receipt_ns
            if first_ns is None:
                first_ns = tick_ns = now_ns + period_ns
            if now_ns - tick_ns > GAP_NS:
                yield self._tick(tick_ns, first_ns)
                tick_ns = now_ns
            while tick_ns <= now_ns:
                yield self._tick(tick_ns, first_ns)
                tick_ns += period_ns
            self.accounts[name].messages += 1
            self._take(name, message, now_ns)
        if first_ns is not None:
            yield self._tick(tick_ns, first_ns)

    def _own_time_ns(self, path: Path, say: Say) -> int:
        """First stamp of a bag whose stamps are of another clock than its recorder; else 0."""
        for _, receipt_ns, message in self._read(path):
            stamp_ns = stamp_ns_of(message)
            away_s = (receipt_ns - stamp_ns) * 1e-9
            if stamp_ns and abs(away_s) > SAME_CLOCK_S:
                say(
                    f'{path}: stamps are {away_s:.3g} s before the time of recording, so of'
                    ' another clock (a simulation?); theirs is used'
                )
                return stamp_ns
            if stamp_ns:
                break
        return 0

    def _read(self, path: Path) -> Iterator[tuple[str, int, Any]]:
        """Modality, time of receipt (ns) and message, of all that can be read."""
        for name, receipt_ns, data in read_messages(path, self.topics, self._codecs):
            try:
                message = deserialize_message(data, self._codecs[name].message_type)
            except RuntimeError as error:
                self.accounts[name].refuse(str(error))
            else:
                yield name, receipt_ns, message

    def _take(self, name: str, message: Any, now_ns: int) -> None:
        stream = self._streams[name]
        try:
            raw, stamp_ns = self._codecs[name].decode(message, now_ns, self.kinds[name])
        except Exception as error:  # noqa: BLE001 - what cannot be read is counted
            taken = stream.refuse(error, now_ns)
        else:
            taken = stream.take(raw, stamp_ns, now_ns, self.limits[name])
        if taken.refused:
            self.accounts[name].refuse(taken.refused)

    def _tick(self, now_ns: int, first_ns: int) -> Tick:
        for stream in self._streams.values():
            stream.advance(now_ns)
        readings = {name: stream.snapshot() for name, stream in self._streams.items()}
        return Tick(now_ns, (now_ns - first_ns) * 1e-9, readings)


@dataclass(frozen=True)
class Bags:
    """
    Bags to read, and how.

    :param paths: folders that ``ros2 bag record`` wrote.
    :param rate_hz: ticks per second of recorded time.
    :param namespace: that relative topics were recorded in.
    :param span_s: from when to when each bag is used, in seconds since its first tick.
    """

    paths: Sequence[Path]
    rate_hz: float = 10.0
    namespace: str = ''
    span_s: tuple[float, float] = WHOLE

    def ticks(self, player: _Player, say: Say) -> Iterator[tuple[int, Tick]]:
        """Number of the bag, and tick, of all in the span."""
        begin_s, end_s = self.span_s
        for number, path in enumerate(self.paths):
            for tick in player.play(path, self.rate_hz, say):
                if begin_s <= tick.time_s < end_s:
                    yield number, tick
        for name, account in player.accounts.items():
            if not account.messages:
                account.reason = f'no messages on {player.topics[name]}'

    def recordings(self) -> list[str]:
        """Names of the recordings: those of the bags' folders, the whole path if two agree."""
        names = [path.name for path in self.paths]
        return [p.name if names.count(p.name) == 1 else p.as_posix() for p in self.paths]


def raw_values(spec: ModelSpec, bags: Bags, names: Sequence[str]) -> dict[str, list[Any]]:
    """
    Raw values of some modalities that bags show at their ticks.

    :raises DataError: as :func:`import_bags`.
    """
    chosen = replace(spec, modalities=tuple(m for m in spec.modalities if m.name in names))
    player = _Player(chosen, bags.namespace)
    found: dict[str, list[Any]] = {name: [] for name in names}
    for _, tick in bags.ticks(player, _silent):
        for name, reading in tick.readings.items():
            raw = None if reading.value is None else reading.value.raw
            if raw is not None and (not found[name] or found[name][-1] is not raw):
                found[name].append(raw)
    silent = {name: player.accounts[name] for name in names if not found[name]}
    if silent:
        raise DataError(_nothing_usable(bags.paths, silent))
    return found


def import_bags(
    spec: ModelSpec, bags: Bags, say: Say = _silent
) -> tuple[Dataset, dict[str, Account]]:
    """
    Read bags as the node would have heard them.

    At every tick the modalities are judged by the rules of the node; what it would have used
    makes a row. A tick at which nothing can be used makes none. Values pass through the
    transforms of the node.

    :param spec: modalities with their topics, message types and ``max_age_s``.
    :param say: takes what is worth a line.
    :returns: the rows, which tell their bag by the attribute ``recording`` and their time since
        its first tick; and per modality what became of its messages.
    :raises DataError: if a bag cannot be read, a topic is of another type, or no row results.
    :raises ConfigError: if no such modality can come in such a message.
    """
    player = _Player(spec, bags.namespace)
    assessors = [Assessor(player.kinds, {}) for _ in bags.paths]  # each begins without a past
    rows = Rows(spec.names)
    for number, tick in bags.ticks(player, say):
        found = assessors[number].assess(tick.readings, player.limits, CHECKS, tick.now_ns)
        rows.add(found.observed, number, tick.time_s)
        for name, verdict in found.verdicts.items():
            account = player.accounts[name]
            account.reason = verdict.reason or account.reason
    if not rows.shown:
        raise DataError(_nothing_usable(bags.paths, player.accounts))
    return rows.dataset(player.kinds, bags.recordings(), player.accounts), player.accounts


def _nothing_usable(bags: Sequence[Path], accounts: Mapping[str, Account]) -> str:
    reasons = '; '.join(f'{name}: {account.reason}' for name, account in accounts.items())
    return f'{", ".join(map(str, bags))}: nothing in it can be used ({reasons})'
