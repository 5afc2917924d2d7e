"""From recorded bags to a dataset: row by row what the node would have used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.serialization import deserialize_message
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader, ReaderError
from tqdm import tqdm

from mm_perception.data.dataset import Dataset
from mm_perception.errors import DataError
from mm_perception.fusion.assessment import Assessor
from mm_perception.fusion.health import Checks, Limits
from mm_perception.fusion.streams import Stream
from mm_perception.modalities import Modality, build_modality
from mm_perception.modalities.base import Array
from mm_perception.ros.codecs import InputCodec, input_codec, stamp_of
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


@dataclass
class Account:
    """
    What became of one modality's messages.

    :param messages: in the bags, and how many of these were ``refused``.
    :param values: different ones that rows show.
    :param rows: that have it.
    :param reason: why it was not used last, empty if it always was.
    """

    messages: int = 0
    refused: int = 0
    values: int = 0
    rows: int = 0
    reason: str = ''


@dataclass
class _Rows:
    """Gathers values and the rows that show them."""

    names: tuple[str, ...]
    values: dict[str, list[Array]] = field(default_factory=dict)
    shown: list[dict[str, int]] = field(default_factory=list)
    bag: list[int] = field(default_factory=list)

    def add(self, observed: Mapping[str, Array], bag: int) -> bool:
        """Add a row if it shows anything new; the same array is the same value."""
        for name, array in observed.items():
            known = self.values.setdefault(name, [])
            if not known or known[-1] is not array:
                known.append(array)
        row = {name: len(self.values[name]) - 1 for name in self.names if name in observed}
        if not row or (self.shown and self.bag[-1] == bag and row == self.shown[-1]):
            return False
        self.shown.append(row)
        self.bag.append(bag)
        return True

    def dataset(self, kinds: Mapping[str, Modality[Any]], bags: Sequence[Path]) -> Dataset:
        """All rows, with the values that any of them shows."""
        nothing = {name: [np.zeros(kinds[name].shape, np.float32)] for name in self.names}
        values = {name: np.stack(v) for name, v in (nothing | self.values).items()}
        index = {n: np.array([row.get(n, 0) for row in self.shown]) for n in self.names}
        present = np.array([[name in row for name in self.names] for row in self.shown])
        recording = ([bag.name for bag in bags], np.array(self.bag))
        return Dataset(self.names, values, index, present, {'recording': recording}).shown()


class _Player:
    """
    One bag, played to the input side of the node.

    :param topics: per modality, as they are in bags.
    """

    def __init__(
        self,
        spec: ModelSpec,
        kinds: Mapping[str, Modality[Any]],
        codecs: Mapping[str, InputCodec],
        topics: Mapping[str, str],
        rows: _Rows,
        accounts: Mapping[str, Account],
    ) -> None:
        self._kinds, self._codecs, self._topics = kinds, codecs, topics
        self._rows, self._accounts = rows, accounts
        self._streams = {name: Stream(kinds[name]) for name in spec.names}
        self._limits = {m.name: Limits(max_age_s=m.max_age_s) for m in spec.modalities}
        self._assessor = Assessor(kinds, {})

    def play(self, path: Path, number: int, period_ns: int, say: Callable[[str], None]) -> None:
        """Take every message in its order, and a row at every tick."""
        own_ns = self._own_time_ns(path, say)
        now_ns, tick_ns = own_ns, None
        for name, receipt_ns, message in self._read(path):
            now_ns = max(now_ns, stamp_ns_of(message)) if own_ns else receipt_ns
            tick_ns = now_ns + period_ns if tick_ns is None else tick_ns
            if now_ns - tick_ns > GAP_NS:
                self._tick(tick_ns, number)
                tick_ns = now_ns
            while tick_ns <= now_ns:
                self._tick(tick_ns, number)
                tick_ns += period_ns
            self._accounts[name].messages += 1
            self._take(name, message, now_ns)
        if tick_ns is not None:
            self._tick(tick_ns, number)

    def _own_time_ns(self, path: Path, say: Callable[[str], None]) -> int:
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
        for name, receipt_ns, data in read_messages(path, self._topics, self._codecs):
            try:
                message = deserialize_message(data, self._codecs[name].message_type)
            except RuntimeError as error:
                self._refuse(name, str(error))
            else:
                yield name, receipt_ns, message

    def _take(self, name: str, message: Any, now_ns: int) -> None:
        stream = self._streams[name]
        try:
            raw, stamp_ns = self._codecs[name].decode(message, now_ns, self._kinds[name])
        except Exception as error:  # noqa: BLE001 - what cannot be read is counted
            taken = stream.refuse(error, now_ns)
        else:
            taken = stream.take(raw, stamp_ns, now_ns, self._limits[name])
        if taken.refused:
            self._refuse(name, taken.refused)

    def _tick(self, now_ns: int, bag: int) -> None:
        for stream in self._streams.values():
            stream.advance(now_ns)
        readings = {name: stream.snapshot() for name, stream in self._streams.items()}
        found = self._assessor.assess(readings, self._limits, CHECKS, now_ns)
        added = self._rows.add(found.observed, bag)
        for name, verdict in found.verdicts.items():
            self._accounts[name].rows += added and name in found.observed
            self._accounts[name].reason = verdict.reason or self._accounts[name].reason

    def _refuse(self, name: str, reason: str) -> None:
        self._accounts[name].refused += 1
        self._accounts[name].reason = reason


def import_bags(
    spec: ModelSpec,
    bags: Sequence[Path],
    rate_hz: float = 10.0,
    namespace: str = '',
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Dataset, dict[str, Account]]:
    """
    Read bags as the node would have heard them.

    At every tick the modalities are judged by the rules of the node; what it would have used
    makes a row, if anything in it is new. Values pass through the transforms of the node.

    :param spec: modalities with their topics, message types and ``max_age_s``.
    :param bags: folders that ``ros2 bag record`` wrote; rows tell theirs by the attribute
        ``recording``.
    :param rate_hz: ticks per second of recorded time.
    :param namespace: that relative topics were recorded in.
    :param say: takes what is worth a line.
    :returns: the rows, and per modality what became of its messages.
    :raises DataError: if a bag cannot be read, a topic is of another type, or no row results.
    :raises ConfigError: if no such modality can come in such a message.
    """
    kinds = {m.name: build_modality(m) for m in spec.modalities}
    codecs = {m.name: input_codec(m.kind, m.message) for m in spec.modalities}
    topics = {m.name: resolve(m.topic or m.name, namespace) for m in spec.modalities}
    accounts = {name: Account() for name in spec.names}
    rows = _Rows(spec.names)
    for number, path in enumerate(bags):  # each begins without a past
        player = _Player(spec, kinds, codecs, topics, rows, accounts)
        player.play(path, number, round(1e9 / rate_hz), say)
    for name, account in accounts.items():
        if not account.messages:
            account.reason = f'no messages on {topics[name]}'
    if not rows.shown:
        raise DataError(_nothing_usable(bags, accounts))
    dataset = rows.dataset(kinds, bags)
    for name, account in accounts.items():
        account.values = len(dataset.values[name]) if account.rows else 0
    return dataset, accounts


def _nothing_usable(bags: Sequence[Path], accounts: Mapping[str, Account]) -> str:
    reasons = '; '.join(f'{name}: {account.reason}' for name, account in accounts.items())
    return f'{", ".join(map(str, bags))}: nothing in it can be used ({reasons})'
