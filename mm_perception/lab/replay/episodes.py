"""Recorded episodes of a robot: what each sensor gave, with its times."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mm_perception.errors import DataError

FORMAT = 1
LIST_FILE = 'episodes.json'
BROKEN = (
    OSError,
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    SafetensorError,
    cv2.error,
)


@dataclass(frozen=True)
class Channel:
    """
    How a sensor's values are sent.

    :param kind: of the modality: ``image`` or ``vector``.
    :param message: ROS message type; empty for the kind's default.
    :param names: of a vector's elements, for messages that name them.
    """

    topic: str
    kind: str
    message: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Track:
    """
    What one sensor gave.

    :param times_s: since the episode began, ``float64[T]``, increasing.
    :param values: raw values, ``float32[T, n]``, or RGB frames, ``uint8[T, H, W, 3]``.
    """

    times_s: np.ndarray
    values: np.ndarray

    def at(self, time_s: float) -> np.ndarray:
        """Newest value at a time; the first one before that."""
        position = int(np.searchsorted(self.times_s, time_s, 'right')) - 1
        return np.asarray(self.values[max(position, 0)])


@dataclass(frozen=True)
class Episode:
    """
    One recording of a robot.

    :param label: its name.
    :param seconds: how long it lasts.
    :param tracks: per modality.
    """

    label: str
    seconds: float
    tracks: Mapping[str, Track]

    @property
    def source(self) -> str:
        """Where it is from."""
        return self.label

    @property
    def needed_s(self) -> float:
        """How long it has to be on show."""
        return self.seconds


@dataclass(frozen=True)
class Episodes:
    """
    Episodes of one robot.

    :param channels: per modality.
    """

    channels: Mapping[str, Channel]
    episodes: Sequence[Episode]


def save_episodes(path: Path, recorded: Episodes) -> None:
    """Write ``episodes.json`` and a safetensors file per episode; frames as PNG."""
    path.mkdir(parents=True, exist_ok=True)
    for episode in recorded.episodes:
        arrays: dict[str, np.ndarray] = {}
        for name, track in episode.tracks.items():
            arrays[f'{name}.times_s'] = track.times_s
            if recorded.channels[name].kind == 'image':
                files = [cv2.imencode('.png', frame[:, :, ::-1])[1] for frame in track.values]
                arrays[f'{name}.png'] = np.concatenate(files)
                arrays[f'{name}.sizes'] = np.array([len(file) for file in files])
            else:
                arrays[f'{name}.values'] = np.ascontiguousarray(track.values)
        save_file(arrays, path / f'{episode.label}.safetensors')
    listed = [{'name': e.label, 'seconds': e.seconds} for e in recorded.episodes]
    channels = {name: asdict(channel) for name, channel in recorded.channels.items()}
    text = {'format': FORMAT, 'channels': channels, 'episodes': listed}
    (path / LIST_FILE).write_text(json.dumps(text, indent=1) + '\n')


def holds_episodes(path: Path) -> bool:
    """Whether a folder of recordings holds those of a robot."""
    return (path / LIST_FILE).is_file()


def load_episodes(path: Path) -> Episodes:
    """
    Read a folder of episodes.

    :raises DataError: if a file is missing or broken.
    """
    file = path / LIST_FILE
    try:
        text = file.read_text()
    except OSError as error:
        raise DataError(f'{file}: cannot be read ({error.strerror})') from error
    try:
        listed = json.loads(text)
        if listed['format'] != FORMAT:
            raise DataError(f'{file}: format {listed["format"]} is unknown')
        channels = {
            name: Channel(c['topic'], c['kind'], c['message'], tuple(c['names']))
            for name, c in listed['channels'].items()
        }
        episodes = [
            Episode(e['name'], float(e['seconds']), _read(path, e['name'], channels))
            for e in listed['episodes']
        ]
    except BROKEN as error:
        raise DataError(f'{path}: episodes do not fit together ({error!r})') from error
    if not episodes:
        raise DataError(f'{path}: holds no recordings')
    return Episodes(channels, episodes)


def _read(path: Path, name: str, channels: Mapping[str, Channel]) -> dict[str, Track]:
    arrays = load_file(path / f'{name}.safetensors')
    tracks = {}
    for channel in channels:
        times_s = arrays[f'{channel}.times_s']
        if channels[channel].kind == 'image':
            values = _frames(arrays[f'{channel}.png'], arrays[f'{channel}.sizes'])
        else:
            values = arrays[f'{channel}.values']
        if len(times_s) == 0 or len(times_s) != len(values):
            raise ValueError(f'{name}: {channel} has {len(times_s)} times, {len(values)} values')
        tracks[channel] = Track(times_s, values)
    return tracks


def _frames(files: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """RGB frames, ``uint8[T, H, W, 3]``, of PNG files behind each other."""
    frames = []
    for file in np.split(files, np.cumsum(sizes)[:-1]):
        pixels = cv2.imdecode(file, cv2.IMREAD_COLOR)
        if pixels is None:
            raise ValueError('a frame is no PNG')
        frames.append(pixels[:, :, ::-1])
    return np.ascontiguousarray(frames)
