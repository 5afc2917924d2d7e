"""The files of LeRobot datasets (versions 2.0, 2.1, 3.0): what meta says, parquet, video."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as parquet
from numpy.typing import NDArray
from pyarrow import ArrowException, Table

from mm_perception.errors import DataError
from mm_perception.resources import read_file

VERSIONS = ('v2.0', 'v2.1', 'v3.0')
MAX_META_BYTES = 64 << 20
MAX_FPS, MAX_ELEMENTS = 100_000.0, 1 << 24
_TEMPLATE = re.compile(r'(?!/)(?!.*\.\.)(?:[^{}]|\{[a-z]\w*(?::0?\d?d)?\}){1,300}')


@dataclass(frozen=True)
class LeRobot:
    """
    A LeRobot dataset: what ``meta`` says of it.

    :param info: ``meta/info.json``.
    :param episodes: by number, what ``meta`` says of each.
    """

    path: Path
    info: Mapping[str, Any]
    episodes: Mapping[int, Mapping[str, Any]] = field(repr=False)

    @property
    def fps(self) -> float:
        """Frames per second."""
        return float(self.info['fps'])

    def data_file(self, episode: int) -> Path:
        """Parquet file that holds an episode's numbers."""
        return self._file('data_path', 'data', episode)

    def video_file(self, feature: str, episode: int) -> Path:
        """Video that holds an episode's frames of a camera."""
        return self._file('video_path', f'videos/{feature}', episode, video_key=feature)

    def video_begin_s(self, feature: str, episode: int) -> float:
        """When an episode begins in its video."""
        return float(self.episodes[episode].get(f'videos/{feature}/from_timestamp') or 0.0)

    def _file(self, template: str, prefix: str, episode: int, **more: str) -> Path:
        about, named = self.episodes[episode], str(self.info.get(template))
        try:
            if not _TEMPLATE.fullmatch(named):
                raise ValueError(named[:80])
            return self.path / named.format(
                episode_index=episode,
                episode_chunk=episode // self.info['chunks_size'],
                chunk_index=about.get(f'{prefix}/chunk_index'),
                file_index=about.get(f'{prefix}/file_index'),
                **more,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f'{self.path}: meta does not tell the files of episode {episode} ({template}:'
                f' {error}); load it with lerobot once, or convert it anew'
            ) from error


def open_lerobot(path: Path) -> LeRobot:
    """
    Read what ``meta`` says of a LeRobot dataset.

    :raises DataError: if it is none, is broken, or of another version.
    """
    file = path / 'meta' / 'info.json'
    try:
        info = json.loads(read_file(file, MAX_META_BYTES))
        version = str(info['codebase_version'])
        _check(info)
    except (*_BROKEN, AttributeError, RecursionError) as error:
        raise DataError(
            f'{file}: missing or broken ({_line(error)}); give the folder of a LeRobot dataset'
        ) from error
    if version not in VERSIONS:
        raise DataError(
            f'{path}: is of version {version}; {", ".join(VERSIONS)} can be read: convert it with'
            ' lerobot'
        )
    return LeRobot(path, info, _episodes(path, version))


def _check(info: dict[str, Any]) -> None:
    """Raise anything if what is said of the features cannot be used."""
    info['chunks_size'] = int(info.get('chunks_size', 1000))
    if not (0.0 < float(info['fps']) <= MAX_FPS and info['chunks_size'] > 0):
        raise ValueError(f'fps {info["fps"]}, chunks_size {info["chunks_size"]}')
    for name, about in info['features'].items():
        shape = list(about.get('shape', ()))
        if not all(isinstance(n, int) and 0 <= n <= MAX_ELEMENTS for n in shape[:8]):
            raise ValueError(f'{name}: shape')
        if len(shape) > 8 or math.prod(shape) > MAX_ELEMENTS or len(name) > 200:
            raise ValueError(f'{name[:80]}: too large')
        if not isinstance(about['dtype'], str):
            raise ValueError(f'{name}: dtype')
        element_names(about)


def element_names(about: Mapping[str, Any]) -> list[str]:
    """Names of the elements of a feature; none unless each has one."""
    names = list(_flat(about.get('names')))
    return names if len(names) == math.prod(about.get('shape', ())) else []


def _flat(names: Any) -> Iterator[str]:
    """Names of elements: a list, or lists in a list or by group."""
    if isinstance(names, str):
        yield names
    else:
        for part in (names.values() if isinstance(names, Mapping) else names) or ():
            yield from _flat(part)


def _episodes(path: Path, version: str) -> dict[int, dict[str, Any]]:
    if version == 'v3.0':
        found = []
        for file in sorted((path / 'meta' / 'episodes').glob('*/*.parquet')):
            columns = [c for c in _schema(file) if not c.startswith('stats/')]
            found += read_table(file, tuple(columns)).to_pylist()
    else:
        file = path / 'meta' / 'episodes.jsonl'
        try:
            lines = read_file(file, MAX_META_BYTES).decode().splitlines()
            found = [json.loads(line) for line in lines if line.strip()]
        except (DataError, ValueError, RecursionError) as error:
            raise DataError(
                f'{file}: missing or broken ({_line(error)}); copy it again'
            ) from error
    try:
        episodes = {int(about['episode_index']): dict(about) for about in found}
    except _BROKEN as error:
        raise DataError(
            f'{path}: meta lists an episode without its number ({_line(error)})'
        ) from error
    if not episodes:
        raise DataError(f'{path}: meta lists no episodes; copy meta/episodes again')
    return dict(sorted(episodes.items()))


def _schema(file: Path) -> list[str]:
    try:
        _refuse_pipes(file)
        return list(parquet.read_schema(file).names)
    except (OSError, ArrowException) as error:
        raise DataError(f'{file}: not readable parquet ({_line(error)}); copy it again') from error


@lru_cache(maxsize=1)
def read_table(file: Path, columns: tuple[str, ...]) -> Table:
    """
    Read columns of a file; the last is kept, since an episode may share its file with the next.

    :raises DataError: if the file cannot be read, or lacks one.
    """
    missing = [column for column in columns if column not in _schema(file)]
    if missing:
        raise DataError(f'{file}: has no column {missing[0]}; copy it again')
    try:
        return parquet.read_table(file, columns=list(columns))
    except (OSError, ArrowException) as error:
        raise DataError(f'{file}: not readable parquet ({_line(error)}); copy it again') from error


def _refuse_pipes(file: Path) -> None:
    if file.exists() and not file.is_file():
        raise OSError('no regular file')


_BROKEN = (DataError, ValueError, TypeError, KeyError, OverflowError)


def _line(error: Exception) -> str:
    return ' '.join(str(error).split())[:200]


def read_frames(
    file: Path, times_s: NDArray[np.float64], tolerance_s: float
) -> Iterator[tuple[int, NDArray[Any]]]:
    """
    Decode the frames nearest to some times; only these are converted.

    :param times_s: in the video, growing, ``float64[T]``.
    :param tolerance_s: how far a frame may be away; with none so near, nothing comes.
    :returns: which of the times, and its frame, ``uint8[H, W, 3]`` RGB.
    :raises DataError: if the video cannot be read.
    """
    try:
        _refuse_pipes(file)
        with av.open(str(file)) as container:
            stream = container.streams.video[0]
            if times_s[0] > 0.0 and stream.time_base:
                container.seek(int(times_s[0] / stream.time_base), stream=stream)
            for k, frame in _nearest(container.decode(stream), times_s):
                if abs(float(frame.time) - times_s[k]) <= tolerance_s:
                    yield k, frame.to_ndarray(format='rgb24')
    except (av.FFmpegError, OSError, IndexError) as error:
        raise DataError(
            f'{file}: not a readable video ({error}); copy it again, or take it away: rows then'
            ' lack it'
        ) from error


def _nearest(frames: Iterator[Any], times_s: NDArray[np.float64]) -> Iterator[tuple[int, Any]]:
    k, before = 0, None
    for frame in frames:
        while k < len(times_s) and frame.time >= times_s[k]:
            closer = before is None or frame.time - times_s[k] <= times_s[k] - before.time
            yield k, frame if closer else before
            k += 1
        if k == len(times_s):
            return
        before = frame
    for late in range(k, len(times_s) if before is not None else 0):
        yield late, before
