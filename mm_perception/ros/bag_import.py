"""From recorded bags to a dataset: row by row what the node would have used."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.serialization import deserialize_message
from rosbags.typesys import Stores, get_typestore

from mm_perception.data.dataset import Dataset
from mm_perception.data.rows import Account, Rows, Wanted
from mm_perception.errors import DataError, InvalidInput
from mm_perception.fusion.assessment import Assessor
from mm_perception.fusion.health import Checks, limits_of
from mm_perception.fusion.streams import Reading, Stream
from mm_perception.modalities import build_modality
from mm_perception.ros.bag_files import Bag, Say, installed_type, silent
from mm_perception.ros.codecs import InputCodec, codec_for, stamp_of
from mm_perception.spec import ModelSpec


def resolve(topic: str, namespace: str) -> str:
    """Full name of a topic; only relative ones are in the namespace."""
    prefix = '' if topic.startswith('/') else namespace.strip('/')
    return '/'.join(('', prefix, topic) if prefix else ('', topic.lstrip('/')))


def stamp_ns_of(message: Any) -> int:
    """Time of a message's header, or of its first transform; 0 if it has none."""
    holder = next(iter(getattr(message, 'transforms', ())), message)
    header = getattr(holder, 'header', None)
    return 0 if header is None else stamp_of(header, 0)


def reader_of(name: str) -> Callable[[bytes], Any]:
    """
    Reader of serialised messages of a type, which need not be installed if ROS 2 defines it.

    :raises RuntimeError: from what is returned, for what is no such message.
    """
    kind = installed_type(name)
    if kind is not None:
        return lambda data: deserialize_message(data, kind)
    store = get_typestore(Stores.ROS2_JAZZY)

    def read(data: bytes) -> Any:
        try:
            return store.deserialize_cdr(data, name)
        except Exception as error:  # it raises anything
            raise RuntimeError(f'no {name}: {error!r}') from error

    return read


def check_topics(bag: Bag, topics: Mapping[str, str], codecs: Mapping[str, InputCodec]) -> None:
    """
    Check that a bag has what some modalities need.

    :param topics: full name of the topic per modality; several may share one.
    :param codecs: of the modalities, which say what type of message is expected.
    :raises DataError: if it has none of the topics, or one of another type.
    """
    known = bag.topics
    if not known:
        raise DataError(f'{bag.path}: holds no topics; record it again')
    if not set(topics.values()) & set(known):
        raise DataError(
            f'{bag.path}: has none of the topics {", ".join(topics.values())}; it has'
            f' {", ".join(known)}; set topic in the configuration'
        )
    for name, topic in topics.items():
        if topic in known and known[topic].message != codecs[name].heard:
            raise DataError(
                f'{bag.path}: {topic} is {known[topic].message}, not {codecs[name].heard};'
                ' set message in the configuration'
            )


SAME_CLOCK_S = 10.0
GAP_NS = 60_000_000_000
CHECKS = Checks(agreement=False)
WHOLE = (0.0, math.inf)


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


class Player:
    """
    Bags, played to the input side of the node.

    :param namespace: that relative topics were recorded in.
    """

    def __init__(self, spec: ModelSpec, namespace: str) -> None:
        self.kinds = {m.name: build_modality(m) for m in spec.modalities}
        self._codecs = {m.name: codec_for(self.kinds[m.name]) for m in spec.modalities}
        self.topics = {
            m.name: resolve(self._codecs[m.name].topic_of(m), namespace) for m in spec.modalities
        }
        self.limits = {m.name: limits_of(m) for m in spec.modalities}
        self.accounts = {name: Account() for name in spec.names}
        self._names: dict[str, list[str]] = {}
        self._latched: set[str] = set()
        for name, topic in self.topics.items():
            self._names.setdefault(topic, []).append(name)
            if relay := self._codecs[name].relay:
                self._latched.add(relay.latched_topic)
                self._names.setdefault(relay.latched_topic, []).append(name)
        self._streams: dict[str, Stream] = {}
        self._relays: dict[str, Callable[[Any, bool], Any]] = {}
        self._received_ns: dict[str, int] = {}

    def play(self, path: Path, rate_hz: float, say: Say) -> Iterator[Tick]:
        """Take every message of a bag in its order; yields the ticks in between."""
        self._streams = {name: Stream(kind) for name, kind in self.kinds.items()}  # no past
        self._relays = {n: c.relay.begin() for n, c in self._codecs.items() if c.relay}
        self._received_ns = {}
        period_ns = round(1e9 / rate_hz)
        own_ns = self._own_time_ns(path, say)
        now_ns, first_ns, tick_ns = own_ns, None, 0
        for topic, receipt_ns, message in self._read(path, say):
            now_ns = max(now_ns, self._stamp_ns(topic, message)) if own_ns else receipt_ns
            if first_ns is None:
                first_ns = tick_ns = now_ns + period_ns
            if now_ns - tick_ns > GAP_NS:
                yield self._tick(tick_ns, first_ns)
                tick_ns = now_ns
            while tick_ns <= now_ns:
                yield self._tick(tick_ns, first_ns)
                tick_ns += period_ns
            for name in self._names[topic]:
                self._take(name, topic, message, now_ns)
        if first_ns is not None:
            yield self._tick(tick_ns, first_ns)

    def _stamp_ns(self, topic: str, message: Any) -> int:
        """Time of a message; 0 of one that holds for ever, which may be of any age."""
        return 0 if topic in self._latched else stamp_ns_of(message)

    def _own_time_ns(self, path: Path, say: Say) -> int:
        """First stamp of a bag whose stamps are of another clock than its recorder; else 0."""
        for topic, receipt_ns, message in self._read(path, silent):
            stamp_ns = self._stamp_ns(topic, message)
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

    def _read(self, path: Path, say: Say) -> Iterator[tuple[str, int, Any]]:
        """Topic, time of receipt (ns) and message, of all that can be read."""
        with Bag(path, say) as bag:
            check_topics(bag, self.topics, self._codecs)
            read = {t: reader_of(self._codecs[names[0]].heard) for t, names in self._names.items()}
            for topic, receipt_ns, data in bag.messages(self._names):
                try:
                    message = read[topic](data)
                except RuntimeError as error:
                    for name in self._names[topic]:
                        self.accounts[name].messages += 1
                        self.accounts[name].refuse(str(error))
                else:
                    yield topic, receipt_ns, message

    def _take(self, name: str, topic: str, message: Any, now_ns: int) -> None:
        stream, account = self._streams[name], self.accounts[name]
        make, failure = self._relays.get(name), None
        if make is not None:
            try:
                message = make(message, topic in self._latched)
            except InvalidInput as error:
                failure = error
            if message is None:
                return
        account.messages += 1
        gap_s = (now_ns - self._received_ns.get(name, now_ns)) * 1e-9
        account.gap_s = max(account.gap_s, gap_s)
        self._received_ns[name] = now_ns
        try:
            if failure is not None:
                raise failure
            raw, stamp_ns = self._codecs[name].decode(message, now_ns, self.kinds[name].single)
        except Exception as error:  # noqa: BLE001 - what cannot be read is counted
            taken = stream.refuse(error, now_ns)
        else:
            taken = stream.take(raw, stamp_ns, now_ns, self.limits[name])
        account.jumps += taken.jump_s > 0.0
        if taken.refused:
            account.refuse(taken.refused)

    def _tick(self, now_ns: int, first_ns: int) -> Tick:
        for stream in self._streams.values():
            stream.advance(now_ns)
        readings = {name: stream.snapshot() for name, stream in self._streams.items()}
        return Tick(now_ns, (now_ns - first_ns) * 1e-9, readings)


@dataclass(frozen=True)
class Bags:
    """
    Bags to read, and how.

    :param paths: folders or files.
    :param rate_hz: ticks per second of recorded time.
    :param namespace: that relative topics were recorded in.
    :param span_s: from when to when each bag is used, in seconds since its first tick.
    """

    paths: Sequence[Path]
    rate_hz: float = 10.0
    namespace: str = ''
    span_s: tuple[float, float] = WHOLE

    def ticks(self, player: Player, say: Say) -> Iterator[tuple[int, Tick]]:
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


def raw_values(
    spec: ModelSpec, bags: Bags, names: Sequence[str], wanted: Wanted | None = None
) -> dict[str, list[Any]]:
    """
    Raw values of some modalities that bags show at their ticks.

    :param wanted: which times of each bag; all if not given.
    :raises DataError: as :func:`import_bags`.
    """
    chosen = replace(spec, modalities=tuple(m for m in spec.modalities if m.name in names))
    player = Player(chosen, bags.namespace)
    found: dict[str, list[tuple[int, float, Any]]] = {name: [] for name in names}
    last_s: dict[int, float] = {}
    for number, tick in bags.ticks(player, silent):
        last_s[number] = tick.time_s
        for name, reading in tick.readings.items():
            raw = None if reading.value is None else reading.value.raw
            if raw is not None and (not found[name] or found[name][-1][2] is not raw):
                found[name].append((number, tick.time_s, raw))
            elif raw is None:
                account = player.accounts[name]
                account.reason = reading.lacking or reading.pending or account.reason
    silent_ones = {name: player.accounts[name] for name in names if not found[name]}
    if silent_ones:
        raise DataError(nothing_usable(bags.paths, silent_ones))
    return {
        name: [
            raw
            for number, time_s, raw in seen
            if wanted is None or wanted(number, np.array([time_s]), last_s[number])[0]
        ]
        for name, seen in found.items()
    }


def import_bags(
    spec: ModelSpec, bags: Bags, say: Say = silent
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
    player = Player(spec, bags.namespace)
    assessors = [Assessor(player.kinds, {}) for _ in bags.paths]  # each begins without a past
    rows = Rows(spec.names)
    for number, tick in bags.ticks(player, say):
        found = assessors[number].assess(tick.readings, player.limits, CHECKS, tick.now_ns)
        rows.add(found.observed, number, tick.time_s)
        for name, verdict in found.verdicts.items():
            account = player.accounts[name]
            account.reason = verdict.reason or account.reason
            if not verdict.used:
                fault = verdict.fault or verdict.state.value
                account.faults[fault] = account.faults.get(fault, 0) + 1
    if not rows.shown:
        raise DataError(nothing_usable(bags.paths, player.accounts))
    return rows.dataset(player.kinds, bags.recordings(), player.accounts), player.accounts


def nothing_usable(bags: Sequence[Path], accounts: Mapping[str, Account]) -> str:
    """Say of every modality why nothing of it can be used."""
    reasons = '; '.join(
        f'{name}: {account.reason or "no message in the span"}'
        for name, account in accounts.items()
    )
    return f'{", ".join(map(str, bags))}: nothing in it can be used ({reasons})'
