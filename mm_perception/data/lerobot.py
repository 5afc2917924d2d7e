"""LeRobot datasets (versions 2.0, 2.1 and 3.0) to rows of a dataset, without lerobot itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pyarrow import Table
from tqdm import tqdm

from mm_perception.data.dataset import Dataset, to_bytes
from mm_perception.data.lerobot_files import (
    LeRobot,
    element_names,
    open_lerobot,
    read_frames,
    read_table,
)
from mm_perception.data.rows import Account, Rows, Wanted
from mm_perception.errors import ConfigError, DataError, InvalidInput
from mm_perception.modalities import Modality, build_modality
from mm_perception.spec import ModelSpec

NUMBERS = ('float', 'int', 'uint', 'bool')
PICTURES = ('video', 'image')
READABLE = {'image': PICTURES, 'vector': NUMBERS, 'symbol': ('string',)}
"""Kind of modality -> how the types of the features begin that it takes."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Feature:
    """
    What a LeRobot dataset recorded, and how a modality takes it.

    :param dtype: such as ``float32``, ``video``, ``image``, ``string``.
    :param elements: of a vector that the modality takes; empty for all.
    """

    name: str
    dtype: str
    elements: tuple[int, ...] = ()


def find_features(spec: ModelSpec, source: LeRobot) -> dict[str, Feature]:
    """
    Find the feature of every modality: the one that its topic names.

    As in ROS, ``/`` may stand where the feature has a dot.

    :raises ConfigError: if there is none, or it is nothing for that kind.
    """
    found = {}
    for modality in spec.modalities:
        key = (modality.topic or modality.name).strip('/').replace('/', '.')
        known = {name.replace('/', '.'): name for name in source.info['features']}
        if key not in known:
            raise ConfigError(
                f'{modality.name}: {source.path} has no feature {key}; it has'
                f' {", ".join(source.info["features"])}; set topic in the configuration'
            )
        about = source.info['features'][known[key]]
        dtype = str(about.get('dtype'))
        if not dtype.startswith(READABLE.get(modality.kind, ())):
            raise ConfigError(
                f'{modality.name}: {key} holds {dtype}, which kind {modality.kind} cannot take;'
                ' pictures are for image, numbers for vector, strings for symbol'
            )
        labels = build_modality(modality).labels if dtype.startswith(NUMBERS) else ()
        elements = _elements(modality.name, key, about, labels)
        found[modality.name] = Feature(known[key], dtype, elements)
    return found


def _elements(
    modality: str, feature: str, about: Mapping[str, Any], wanted: Sequence[str]
) -> tuple[int, ...]:
    """Positions of the elements that have these names, or these numbers."""
    if not wanted:
        return ()
    names, size = element_names(about), math.prod(about.get('shape', ()))
    place = {str(k): k for k in range(size)} | {name: k for k, name in enumerate(names)}
    missing = [name for name in wanted if name not in place]
    if missing:
        known = ', '.join(names) or f'0 to {size - 1}'
        raise ConfigError(
            f'{modality}: {feature} has no element {missing[0]}; it has {known}; set names in'
            ' preprocessing'
        )
    return tuple(place[name] for name in wanted)


@dataclass(frozen=True)
class Frames:
    """
    The frames of one episode that become rows.

    :param rows: of the episode's file.
    :param time_s: since the episode's first frame, ``float64[T]``.
    :param stamp_s: the same as the file has them.
    """

    episode: int
    rows: NDArray[np.int64]
    time_s: NDArray[np.float64]
    stamp_s: NDArray[np.float64]


class Episodes:
    """
    Episodes of a LeRobot dataset at a rate.

    :param numbers: of the episodes; empty for all that have a data file.
    :raises DataError: if one of them is not there, or the rate is above that of the dataset.
    :raises ConfigError: if a modality finds no feature.
    """

    def __init__(
        self,
        spec: ModelSpec,
        path: Path,
        numbers: Sequence[int] = (),
        rate_hz: float = 10.0,
        say: Say = lambda text: None,
    ) -> None:
        self.source = open_lerobot(path)
        if rate_hz > self.source.fps * 1.001:
            raise DataError(
                f'--rate is {rate_hz:g}; {path} has {self.source.fps:g} frames per second'
            )
        self.rate_hz = rate_hz
        self._spec, self._say = spec, say
        self._features = find_features(spec, self.source)
        self.numbers = self._there(numbers)

    def _there(self, numbers: Sequence[int]) -> tuple[int, ...]:
        known = self.source.episodes
        unknown = [n for n in numbers if n not in known]
        if unknown:
            raise DataError(
                f'{self.source.path}: has no episode {unknown[0]}; it has {min(known)} to'
                f' {max(known)}'
            )
        chosen = tuple(numbers or known)
        found = tuple(n for n in chosen if self.source.data_file(n).is_file())
        absent = sorted(set(chosen) - set(found))
        if absent and (numbers or not found):
            raise DataError(
                f'{self.source.data_file(absent[0])}: missing; copy it, or choose other --episodes'
            )
        if absent:
            self._say(
                f'{self.source.path}: {len(absent)} of {len(chosen)} episodes have no data file'
                ' and are left out'
            )
        return found

    def raw_values(
        self, names: Sequence[str], wanted: Wanted | None = None
    ) -> dict[str, list[Any]]:
        """
        Raw values of some modalities.

        :param wanted: which times of each episode; all if not given.
        :raises DataError: if a file is broken.
        """
        found: dict[str, list[Any]] = {name: [] for name in names}
        for number, episode in enumerate(self.numbers):
            frames = self._frames(episode)
            time_s = frames.time_s
            kept = None if wanted is None else wanted(number, time_s, float(time_s[-1]))
            if kept is not None and not kept.any():
                continue
            for name in names:
                raws = self._raws(self._features[name], frames)
                found[name] += [raw for k, raw in raws if kept is None or kept[k]]
        return found

    def read(self, spec: ModelSpec) -> tuple[Dataset, dict[str, Account]]:
        """
        Turn the episodes into rows; each is a recording.

        :param spec: with all preprocessing decided.
        :returns: the rows, and per modality what became of its frames.
        :raises DataError: if a file is broken.
        """
        kinds = {m.name: build_modality(m) for m in spec.modalities}
        accounts = {name: Account() for name in spec.names}
        rows = Rows(spec.names)
        absent = dict.fromkeys(spec.names, 0)
        for number, episode in enumerate(
            tqdm(self.numbers, desc=self.source.path.name, unit='episode', leave=False)
        ):
            frames = self._frames(episode)
            observed: list[dict[str, NDArray[Any]]] = [{} for _ in frames.rows]
            for name, kind in kinds.items():
                before = accounts[name].messages
                for k, array in self._arrays(name, kind, frames, accounts[name]):
                    observed[k][name] = array
                absent[name] += accounts[name].messages == before
            for row, time_s in zip(observed, frames.time_s, strict=True):
                rows.add(row, number, float(time_s))
        if not rows.shown:
            reasons = '; '.join(f'{n}: {a.reason or "absent"}' for n, a in accounts.items())
            raise DataError(f'{self.source.path}: nothing in it can be used ({reasons})')
        for name, count in absent.items():
            if count:
                self._say(
                    f'{name}: {count} of {len(self.numbers)} episodes have no'
                    f' {self._features[name].name}; their rows lack it'
                )
        recordings = [f'episode_{episode:06d}' for episode in self.numbers]
        return rows.dataset(kinds, recordings, accounts), accounts

    def _frames(self, episode: int) -> Frames:
        """Of every tick the nearest frame."""
        table = self._table(episode)
        rows = np.flatnonzero(table['episode_index'].to_numpy() == episode)
        stamp_s = table['timestamp'].to_numpy()[rows].astype(np.float64)
        if not len(rows) or not (np.diff(stamp_s) > 0).all():
            raise DataError(
                f'{self.source.data_file(episode)}: episode {episode} is empty or its timestamps'
                ' do not grow; record or convert it again'
            )
        time_s = stamp_s - stamp_s[0]
        ticks = np.arange(int(time_s[-1] * self.rate_hz + 0.5) + 1) / self.rate_hz
        after = np.clip(np.searchsorted(time_s, ticks), 1, max(1, len(rows) - 1))
        after = np.minimum(after, len(rows) - 1)
        before = np.maximum(after - 1, 0)
        nearest = np.where(ticks - time_s[before] < time_s[after] - ticks, before, after)
        nearest = np.unique(nearest)
        return Frames(episode, rows[nearest], time_s[nearest], stamp_s[nearest])

    def _table(self, episode: int) -> Table:
        columns = {f.name for f in self._features.values() if f.dtype != 'video'}
        return read_table(
            self.source.data_file(episode), ('episode_index', 'timestamp', *sorted(columns))
        )

    def _raws(self, feature: Feature, frames: Frames) -> Iterator[tuple[int, Any]]:
        """Which of the frames, and the raw value that it has."""
        if feature.dtype == 'video':
            yield from self._pictures(feature, frames)
            return
        column = self._table(frames.episode)[feature.name].take(frames.rows).to_pylist()
        for k, stored in enumerate(column):
            if stored is None:
                continue
            if feature.dtype == 'image':
                yield k, read_picture(stored)
            elif feature.dtype == 'string':
                yield k, stored
            else:
                yield k, _vector(stored, feature.elements)

    def _pictures(self, feature: Feature, frames: Frames) -> Iterator[tuple[int, NDArray[Any]]]:
        file = self.source.video_file(feature.name, frames.episode)
        if file.is_file():
            begin_s = self.source.video_begin_s(feature.name, frames.episode)
            yield from read_frames(file, begin_s + frames.stamp_s, 1.0 / self.source.fps)

    def _arrays(
        self, name: str, kind: Modality[Any], frames: Frames, account: Account
    ) -> Iterator[tuple[int, NDArray[Any]]]:
        """Which of the frames, and its array; pictures of 8 bits stay bytes."""
        feature, window = self._features[name], kind.new_window()
        for k, raw in self._raws(feature, frames):
            account.messages += 1
            window.push(raw, round(frames.time_s[k] * 1e9))
            if window.latest is None:
                continue
            try:
                array = kind.to_model(window.latest.raw)
            except InvalidInput as error:
                account.refuse(str(error))
            else:
                yield k, to_bytes(array) if feature.dtype in PICTURES else array


def _vector(stored: Any, elements: Sequence[int]) -> NDArray[Any]:
    """Numbers that lie in a parquet file; too few of them stay too few, to be refused."""
    try:
        numbers = np.asarray(stored, np.float32).reshape(-1)
    except ValueError:  # lists of unequal length
        return np.empty(0, np.float32)
    return numbers[[k for k in elements if k < len(numbers)]] if elements else numbers


def read_picture(stored: Any) -> NDArray[Any]:
    """Decode a picture that lies in a parquet file; RGB."""
    content = stored.get('bytes') or b''
    bgr = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    if bgr is None:
        return np.empty((0, 0, 3), np.uint8)  # refused as what it is
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
