"""The messages of a recorded bag, without a ROS 2 installation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader, ReaderError
from tqdm import tqdm

from mm_perception.errors import DataError
from mm_perception.ros.codecs import InputCodec, stamp_of


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
