"""LeRobot datasets of version 3.0, written without lerobot: parquet, pictures in it as PNG."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from mm_perception.errors import ConfigError

VERSION, CHUNK_SIZE = 'v3.0', 1000
MARKER = 'meta/info.json'
FILE = 'chunk-{chunk_index:03d}/file-{file_index:03d}'
COUNTERS = {
    'timestamp': 'float32',
    'frame_index': 'int64',
    'episode_index': 'int64',
    'index': 'int64',
    'task_index': 'int64',
}
PICTURE = pa.struct([('bytes', pa.binary()), ('path', pa.string())])


@dataclass(frozen=True)
class Column:
    """
    A feature of a dataset.

    :param dtype: ``float32``, ``bool``, ``image`` or ``string``.
    :param shape: of one value; of an image height, width and channels.
    :param names: of the elements.
    """

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()

    def about(self) -> dict[str, Any]:
        """What ``meta/info.json`` says of it."""
        return {'dtype': self.dtype, 'shape': list(self.shape), 'names': list(self.names) or None}

    def array(self, values: Sequence[Any]) -> pa.Array:
        """All values of an episode."""
        if self.dtype == 'image':
            return pa.array([{'bytes': _png(v), 'path': None} for v in values], PICTURE)
        if self.dtype == 'string':
            return pa.array(values, pa.string())
        kind = pa.float32() if self.dtype == 'float32' else pa.bool_()
        if self.shape == (1,):
            return pa.array([value[0] for value in values], kind)
        flat = pa.array(np.concatenate(values), kind)
        return pa.FixedSizeListArray.from_arrays(flat, self.shape[0])


def whole_rate(rate_hz: float) -> int:
    """
    Frames per second of a dataset.

    :raises ConfigError: if they are not whole.
    """
    if round(rate_hz) != rate_hz or rate_hz < 1.0:
        raise ConfigError(f'the rate is {rate_hz:g} Hz; LeRobot wants whole frames per second')
    return round(rate_hz)


def _png(picture: NDArray[Any]) -> bytes:
    """PNG of ``uint8[H, W]`` or RGB ``uint8[H, W, 3]``."""
    bgr = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode('.png', bgr)[1])


@dataclass
class _Moments:
    """Running statistics of a feature."""

    count: int = 0
    total: Any = 0.0
    squares: Any = 0.0
    least: Any = np.inf
    most: Any = -np.inf

    def take(self, values: NDArray[Any]) -> None:
        """Take values, ``float[N, ...]``."""
        self.count += len(values)
        self.total = self.total + values.sum(axis=0)
        self.squares = self.squares + (values**2).sum(axis=0)
        self.least = np.minimum(self.least, values.min(axis=0))
        self.most = np.maximum(self.most, values.max(axis=0))

    def plain(self) -> dict[str, Any]:
        """What ``meta/stats.json`` says."""
        mean = self.total / self.count
        std = np.sqrt(np.maximum(self.squares / self.count - mean**2, 0.0))
        found = {'min': self.least, 'max': self.most, 'mean': mean, 'std': std}
        return {key: value.tolist() for key, value in found.items()} | {'count': [self.count]}


@dataclass
class LeRobotWriter:
    """
    Writes episodes one by one, each in a file of its own, and ``meta`` at the end.

    :param path: an empty folder.
    :param fps: frames per second.
    :param task: what the robot does, in words.
    """

    path: Path
    fps: int
    columns: Mapping[str, Column]
    task: str
    robot: str
    _episodes: list[dict[str, Any]] = field(default_factory=list)
    _moments: dict[str, _Moments] = field(default_factory=dict)
    _frames: int = 0

    def add(self, episode: Mapping[str, Sequence[Any]]) -> None:
        """Write an episode: per feature one value a frame."""
        number, length = len(self._episodes), len(next(iter(episode.values())))
        frame = np.arange(length)
        table = {name: column.array(episode[name]) for name, column in self.columns.items()}
        table |= {
            'timestamp': pa.array((frame / self.fps).astype(np.float32)),
            'frame_index': pa.array(frame),
            'episode_index': pa.array(np.full(length, number)),
            'index': pa.array(self._frames + frame),
            'task_index': pa.array(np.zeros(length, np.int64)),
        }
        chunk, file = divmod(number, CHUNK_SIZE)
        place = self.path / 'data' / f'{FILE.format(chunk_index=chunk, file_index=file)}.parquet'
        place.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.table(table), place)
        for name, column in self.columns.items():
            if column.dtype != 'string':
                moments = self._moments.setdefault(name, _Moments())
                moments.take(_numbers(column, episode[name]))
        self._episodes.append(
            {
                'episode_index': number,
                'tasks': [self.task],
                'length': length,
                'data/chunk_index': chunk,
                'data/file_index': file,
                'dataset_from_index': self._frames,
                'dataset_to_index': self._frames + length,
                'meta/episodes/chunk_index': 0,
                'meta/episodes/file_index': 0,
            }
        )
        self._frames += length

    def close(self) -> None:
        """Write ``meta``."""
        meta = self.path / 'meta'
        place = meta / 'episodes' / f'{FILE.format(chunk_index=0, file_index=0)}.parquet'
        place.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.Table.from_pylist(self._episodes), place)
        parquet.write_table(_tasks(self.task), meta / 'tasks.parquet')
        features = {name: column.about() for name, column in self.columns.items()}
        features |= {n: {'dtype': d, 'shape': [1], 'names': None} for n, d in COUNTERS.items()}
        info = {
            'codebase_version': VERSION,
            'robot_type': self.robot,
            'total_episodes': len(self._episodes),
            'total_frames': self._frames,
            'total_tasks': 1,
            'chunks_size': CHUNK_SIZE,
            'data_files_size_in_mb': 100,
            'video_files_size_in_mb': 500,
            'fps': self.fps,
            'splits': {'train': f'0:{len(self._episodes)}'},
            'data_path': f'data/{FILE}.parquet',
            'video_path': None,
            'features': features,
        }
        stats = {name: moments.plain() for name, moments in self._moments.items()}
        for file, content in (('info.json', info), ('stats.json', stats)):
            (meta / file).write_text(json.dumps(content, indent=1) + '\n')


def _numbers(column: Column, values: Sequence[Any]) -> NDArray[np.float64]:
    """Values as statistics count them: ``float64[N, n]``; of pictures ``float64[N, C, 1, 1]``."""
    array = np.stack(values).astype(np.float64)
    if column.dtype != 'image':
        return array.reshape(len(array), -1)
    pixels = array.reshape(len(array), -1, column.shape[2]) / 255.0
    return pixels.reshape(-1, column.shape[2], 1, 1)


def _tasks(task: str) -> pa.Table:
    """Table of the one task, whose words are the index that pandas finds."""
    columns = [
        {'name': name, 'field_name': name, 'pandas_type': kind, 'numpy_type': of, 'metadata': None}
        for name, kind, of in (('task_index', 'int64', 'int64'), ('task', 'unicode', 'object'))
    ]
    index = {'index_columns': ['task'], 'column_indexes': [], 'columns': columns}
    about = json.dumps({**index, 'pandas_version': '2.0.0'}).encode()
    table = pa.table({'task_index': pa.array([0]), 'task': pa.array([task])})
    return table.replace_schema_metadata({b'pandas': about})
