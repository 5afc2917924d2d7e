"""Bags as they lie about: folders or files, of ROS 2 or ROS 1, whole or torn."""

from __future__ import annotations

import contextlib
import io
import re
import struct
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rosbags.convert.converter import generate_message_converter
from rosbags.interfaces import Connection
from rosbags.rosbag1 import Reader as Ros1Reader
from rosbags.rosbag2 import Reader
from rosbags.rosbag2.reader import DirectoryReader
from rosbags.rosbag2.storage_mcap import ChunkInfo, McapReader
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from tqdm import tqdm

from mm_perception.errors import ConfigError, DataError
from mm_perception.ros.codecs.places import import_message

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Say = Callable[[str], None]
STORAGES = ('.mcap', '.db3', '.bag')
ZSTD = b'\x28\xb5\x2f\xfd'
"""Begins what a recorder compressed message by message; no serialised message begins so."""
MAX_REASON = 200
MAX_RATIO, MAX_MESSAGE_BYTES = 1000, 256 << 20
"""Of what is compressed: as a whole, by how much it may grow; and a single message."""


def silent(text: str) -> None:
    """Take a line, and say nothing."""


@dataclass(frozen=True)
class Topic:
    """
    What a bag holds of a topic.

    :param message: the type, ``package/msg/Type``; several, if publishers disagreed.
    :param count: of its messages.
    """

    name: str
    message: str
    count: int


def installed_type(name: str) -> Any:
    """Class of a type of messages, ``package/msg/Type``; None if it is not installed."""
    try:
        return import_message(name)
    except ConfigError:
        return None


class Bag:
    """
    A recording: what ``ros2 bag record`` or ``rosbag record`` wrote, to be used in a ``with``.

    Where ``metadata.yaml`` is missing or does not fit, the files are read by themselves. Of an
    mcap file that was cut off, all whole chunks are read.

    :param path: a folder, or a file (``.mcap``, ``.db3``, ``.bag``).
    :param say: takes what is worth a line, such as what is lost.
    :raises DataError: if nothing can be read.
    """

    def __init__(self, path: Path, say: Say = silent) -> None:
        self.path = path
        self._say = say
        self._stack = contextlib.ExitStack()
        self._parts: list[_Part] = []

    def __enter__(self) -> Bag:
        try:
            self._parts = self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def topics(self) -> dict[str, Topic]:
        """What it holds, by name, in the order of the recording."""
        types: dict[str, dict[str, None]] = {}
        counts: dict[str, int] = defaultdict(int)
        for part in self._parts:
            for connection in part.reader.connections:
                types.setdefault(connection.topic, {})[_modern(connection.msgtype)] = None
                counts[connection.topic] += connection.msgcount
        return {n: Topic(n, ' and '.join(of), counts[n]) for n, of in types.items()}

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, int, bytes]]:
        """
        Read messages in their order, with a progress bar; what comes before a break is given.

        :returns: topic, time of receipt (ns) and content, serialised as ROS 2 does.
        :raises DataError: if it breaks before the first.
        """
        count = sum(topic.count for topic in self.topics.values() if topic.name in topics)
        with tqdm(desc=self.path.name, total=count, unit='message', leave=False) as bar:
            for part in self._parts:
                yield from self._messages_of(part, topics, bar)

    def _messages_of(
        self, part: _Part, topics: Collection[str], bar: tqdm[Any]
    ) -> Iterator[tuple[str, int, bytes]]:
        chosen = [c for c in part.reader.connections if c.topic in topics]
        found = iter(part.messages(chosen)) if chosen else iter(())
        while True:
            try:
                message = next(found, None)
            except Exception as error:  # a torn file raises anything
                if not bar.n:
                    raise _unreadable(part.path, error) from error
                self._say(f'{part.path}: breaks off after {bar.n} messages ({_reason(error)})')
                return
            if message is None:
                return
            bar.update()
            yield message

    def _open(self) -> list[_Part]:
        if not self.path.exists():
            raise DataError(f'{self.path}: not a readable bag (no such file); give {_WANTED}')
        if self.path.is_dir() and (self.path / 'metadata.yaml').is_file():
            try:
                return [self._part(self.path)]
            except DataError as error:
                self._say(f'{error}; its files are read one by one')
        files = _files(self.path) if self.path.is_dir() else [self.path]
        if not files:
            raise DataError(f'{self.path}: not a readable bag (no bag in it); give {_WANTED}')
        return [self._part(file) for file in files]

    def _part(self, path: Path) -> _Part:
        ros1 = path.suffix == '.bag'
        try:
            if not (path.is_dir() or path.is_file()):
                raise ValueError('not a regular file')
            reader = Ros1Reader(path) if ros1 else _Reader(self._unpacked(path))
            self._stack.enter_context(reader)
            converters = _converters(reader.connections) if ros1 else {}
        except Exception as error:  # a broken file raises anything
            raise _unreadable(path, error) from error
        storage = getattr(reader, 'storage', None)
        lost = sum(getattr(s, 'lost_bytes', 0) for s in getattr(storage, 'storages', [storage]))
        if lost:
            self._say(f'{path}: cut off; all but its last {lost} bytes can be used')
        log = path.with_name(f'{path.name}-wal')
        if log.is_file() and log.stat().st_size:
            self._say(
                f'{path}: its recorder was killed, and what lies in {log.name} is not read: put it'
                f' in with sqlite3 {path.name} "pragma wal_checkpoint"'
            )
        return _Part(path, reader, converters)

    def _unpacked(self, path: Path) -> Path:
        """Take a file out of the compression as a whole, as rosbag2 offers it."""
        if path.suffix != '.zstd':
            return path
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix='bag.')))
        with zstd.open(path, 'rb') as packed, (folder / path.stem).open('wb') as plain:
            limit = path.stat().st_size * MAX_RATIO
            while piece := packed.read(1 << 20):
                if plain.write(piece) and plain.tell() > limit:
                    raise ValueError(f'it is more than {MAX_RATIO} times as large as its file')
        return folder / path.stem


@dataclass(frozen=True)
class _Part:
    """One reader of a bag, with ``converters`` from the form of ROS 1, per type."""

    path: Path
    reader: Any
    converters: Mapping[str, Callable[[bytes], Any]]

    def messages(self, chosen: list[Connection]) -> Iterator[tuple[str, int, bytes]]:
        for connection, receipt_ns, data in self.reader.messages(chosen):
            convert = self.converters.get(connection.msgtype, _plain)
            yield connection.topic, receipt_ns, bytes(convert(data))


_WANTED = 'a folder that ros2 bag record wrote, or a file .mcap, .db3 or .bag'


def _plain(data: bytes) -> bytes:
    if data[:4] != ZSTD:
        return data
    unpacking = zstd.ZstdDecompressor()
    found: bytes = unpacking.decompress(data, MAX_MESSAGE_BYTES)
    if not unpacking.eof:
        raise ValueError(f'a message of more than {MAX_MESSAGE_BYTES >> 20} MiB')
    return found


def _modern(message: str) -> str:
    """Name of a type as ROS 2 writes it; the first releases left ``msg`` out."""
    return re.sub(r'^(\w+)/(\w+)$', r'\1/msg/\2', message)


def _files(folder: Path) -> list[Path]:
    """Files of a bag in the order of recording: 2 comes before 10."""
    files = [f for f in folder.iterdir() if f.name.removesuffix('.zstd').endswith(STORAGES)]
    return sorted(files, key=lambda f: [int(n) if n.isdigit() else n for n in _PIECES(f.name)])


_PIECES = re.compile(r'(\d+)').split


def _unreadable(path: Path, error: Exception) -> DataError:
    mend = 'rosbag reindex' if path.suffix == '.bag' else 'ros2 bag reindex'
    return DataError(
        f'{path}: not a readable bag ({_reason(error)}); record it again, or mend it with {mend}'
    )


def _reason(error: Exception) -> str:
    return ' '.join(str(error).split())[:MAX_REASON] or type(error).__name__


def _converters(connections: Collection[Connection]) -> dict[str, Callable[[bytes], Any]]:
    """From the form of ROS 1 to that of ROS 2, per type of message."""
    old, new = get_typestore(Stores.EMPTY), get_typestore(Stores.ROS2_JAZZY)
    for connection in connections:
        found = get_types_from_msg(connection.msgdef.data, connection.msgtype)
        old.register(found)
        unknown = {name: fields for name, fields in found.items() if name not in new.fielddefs}
        new.register(unknown)
    with contextlib.redirect_stdout(io.StringIO()):  # it reports each type that has changed
        return {
            name: generate_message_converter(old, new, name, name, {}, src_is2=False, dst_is2=True)
            for name in {c.msgtype for c in connections}
        }


class _TornMcapReader(McapReader):
    """Reads an mcap file whose end is missing, as far as its chunks are whole."""

    lost_bytes = 0

    def _open(self) -> None:
        try:
            super()._open()
        except Exception:
            if not self.data_start:
                raise
            self._salvage()

    def _salvage(self) -> None:
        assert self.bio is not None
        self.schemas.clear()
        self.channels.clear()
        self.connections.clear()
        self.chunks.clear()
        self.data_end, size = self.data_start, self.bio.seek(0, io.SEEK_END)
        for kind, begin, end in _records(self.bio, self.data_start, size):
            if kind == _CHUNK:
                self.chunks.append(_chunk(self.bio, begin, end))
            self.data_end = end
        self.lost_bytes = size - self.data_end
        self.meta_scan()
        assert self.statistics is not None
        counts = self.statistics.channel_message_counts
        self.connections = [c._replace(msgcount=counts.get(c.id, 0)) for c in self.connections]
        begin_ns, end_ns = self.statistics.start_time, self.statistics.end_time
        self.metadata = self.metadata._replace(
            start_time=begin_ns,
            end_time=end_ns + 1,
            duration=max(0, end_ns + 1 - begin_ns),
            message_count=self.statistics.message_count,
        )


_HEADER, _CHUNK, _DATA_END = 0x01, 0x06, 0x0F


_ANY_CHANNEL = dict.fromkeys(range(1 << 16), 1)
"""Messages of a chunk, per channel: without its index there may be some of each."""


def _records(file: Any, position: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Kind, begin and end of the whole records up to the end of the data."""
    while position + 9 <= size:
        file.seek(position)
        kind, length = struct.unpack('<BQ', file.read(9))
        end = position + 9 + length
        if not _HEADER <= kind < _DATA_END or end > size:
            return
        yield kind, position, end
        position = end


def _chunk(file: Any, begin: int, end: int) -> ChunkInfo:
    """What an index would say of a chunk."""
    file.seek(begin + 9)
    first_ns, last_ns, size, _, name_length = struct.unpack('<QQQII', file.read(32))
    compression = file.read(name_length).decode()
    (packed,) = struct.unpack('<Q', file.read(8))
    counts = _ANY_CHANNEL
    return ChunkInfo(
        *(first_ns, last_ns, begin, end - begin, {}, 0, compression, packed, size, counts)
    )


class _FolderReader(DirectoryReader):
    """Reads folders whose files may be torn."""

    STORAGE_PLUGINS = MappingProxyType({'mcap': _TornMcapReader, 'sqlite3': Sqlite3Reader})


class _Reader(Reader):
    """Reads folders and files that may be torn."""

    STORAGE_PLUGINS = MappingProxyType(
        {'dir': _FolderReader, '.mcap': _TornMcapReader, '.db3': Sqlite3Reader}
    )
