"""Multimodal datasets: unique values per modality, rows that point at them, presence masks."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mm_perception.errors import DataError
from mm_perception.resources import link_all, replace_folder


@contextmanager
def complete_folder(path: Path, marker: str, keep: bool = False) -> Iterator[Path]:
    """
    Write into a temporary sibling that takes the place of ``path`` when all went well.

    :param marker: file that a folder of this sort has; another non-empty folder is never
        replaced.
    :param keep: whether it begins with all that ``path`` holds, as second names of the same files:
        put others in their place, and do not write into them.
    :returns: the folder to write into.
    :raises DataError: if ``path`` holds something else, or cannot be written.
    """
    if path.exists() and not path.is_dir():
        raise DataError(f'{path}: is a file; name a folder with --out')
    if path.exists() and not (path / marker).is_file() and any(path.iterdir()):
        raise DataError(f'{path}: holds something else; name another folder with --out')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f'.{path.name}.', dir=path.parent))
    except OSError as error:
        raise DataError(f'{path.parent}: cannot be written ({error.strerror})') from error
    try:
        scratch.chmod(0o755)
        for file in path.iterdir() if keep and path.exists() else ():
            link_all(file, scratch / file.name)
        yield scratch
        replace_folder(scratch, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


FORMAT = 1
MANIFEST = 'dataset.json'
BUILD_FILE = 'build.json'
PREPROCESSING = 'preprocessing'


RECORDING = 'recording'
"""Attribute that tells of which recording a row is."""


@dataclass(frozen=True)
class Recording:
    """
    One recording of a dataset.

    :param rows: of the dataset, in the order of time, ``int[T]``.
    :param time_s: when they were, ``float64[T]``.
    """

    name: str
    rows: np.ndarray
    time_s: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """
    Rows of several modalities, any of which may be missing in any row.

    Where rows have a time, a split as it is saved holds the rows of one recording one after the
    other, in the order of time.

    :param names: the modalities, in the order of ``present``.
    :param values: unique values, ``uint8`` (a 255th each) or ``float[U_m, *shape]``.
    :param index: which unique value each row shows, ``int[N]``.
    :param present: which modalities were recorded, ``bool[N, M]``.
    :param attributes: per row, such as writer or speaker: names and ``int[N]`` into them.
    :param time_s: when each row was, on its recording's clock, ``float64[N]``; None for data
        without time.
    """

    names: tuple[str, ...]
    values: Mapping[str, np.ndarray]
    index: Mapping[str, np.ndarray]
    present: np.ndarray
    attributes: Mapping[str, tuple[Sequence[str], np.ndarray]] = field(default_factory=dict)
    time_s: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.present)

    def unique(self, name: str, positions: np.ndarray) -> np.ndarray:
        """Unique values of a modality, ``float32[B, *shape]``, uint8 scaled to 0..1."""
        values = self.values[name][positions]
        scale = np.float32(255.0 if values.dtype == np.uint8 else 1.0)
        return values.astype(np.float32) / scale

    def rows(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Values of a modality in some rows, ``float32[B, *shape]``."""
        return self.unique(name, self.index[name][rows])

    def subset(self, rows: np.ndarray) -> Dataset:
        """Only some rows; unique values stay shared."""
        return replace(
            self,
            index={name: index[rows] for name, index in self.index.items()},
            present=self.present[rows],
            attributes={k: (names, i[rows]) for k, (names, i) in self.attributes.items()},
            time_s=None if self.time_s is None else self.time_s[rows],
        )

    @property
    def tells_time(self) -> bool:
        """Whether the rows tell their recording and time."""
        return self.time_s is not None and RECORDING in self.attributes

    def recordings(self) -> list[Recording]:
        """
        Rows of each recording, in the order of time.

        :raises DataError: if the rows do not tell their recording and time.
        """
        if self.time_s is None or RECORDING not in self.attributes:
            raise DataError('the dataset tells no time of its rows; import its recordings again')
        names, number = self.attributes[RECORDING]
        found = []
        for k, name in enumerate(names):
            rows = np.flatnonzero(number == k)
            rows = rows[np.argsort(self.time_s[rows], kind='stable')]
            if len(rows):
                found.append(Recording(name, rows, self.time_s[rows]))
        return found

    def shown(self) -> Dataset:
        """Only the values that a row shows; one stays where a modality was never recorded."""
        values, index = {}, {}
        for column, name in enumerate(self.names):
            used = np.unique(self.index[name][self.present[:, column]])
            used = used if len(used) else np.zeros(1, np.int64)
            if len(used) == len(self.values[name]):  # as importers have them: nothing to copy
                values[name], index[name] = self.values[name], self.index[name]
                continue
            place = np.zeros(len(self.values[name]), np.int64)
            place[used] = np.arange(len(used))
            values[name], index[name] = self.values[name][used], place[self.index[name]]
        return replace(self, values=values, index=index)

    def complete(self) -> Dataset:
        """Only the rows in which every modality was recorded."""
        return self.subset(np.flatnonzero(self.present.all(axis=1)))

    def only(self, name: str) -> Dataset:
        """Only one modality."""
        column = self.names.index(name)
        return replace(
            self,
            names=(name,),
            values={name: self.values[name]},
            index={name: self.index[name]},
            present=self.present[:, column : column + 1],
        )


def save_dataset(path: Path, split: str, dataset: Dataset) -> None:
    """
    Write one split into a dataset's folder (``SPLIT.safetensors``) and list it.

    :param path: the folder; made if it does not exist.
    :raises DataError: if rows have a time, but are not in its order, recording by recording.
    """
    if dataset.time_s is not None:
        rows = [recording.rows for recording in dataset.recordings()]
        if not np.array_equal(np.concatenate([[], *rows]), np.arange(len(dataset))):
            raise DataError(
                f'{path}: rows of split {split} are not in the order of time; sort them, one'
                ' recording after the other'
            )
    path.mkdir(parents=True, exist_ok=True)
    arrays = {'present': dataset.present}
    for name in dataset.names:
        arrays[f'values.{name}'] = np.ascontiguousarray(dataset.values[name])
        arrays[f'index.{name}'] = dataset.index[name].astype(np.int32)
    for name, (_, index) in dataset.attributes.items():
        arrays[f'attribute.{name}'] = index.astype(np.int32)
    if dataset.time_s is not None:
        arrays['time_s'] = dataset.time_s.astype(np.float64)
    _put(path / f'{split}.safetensors', lambda file: save_file(arrays, file))
    manifest = _manifest_or_new(path)
    manifest['splits'][split] = {
        'rows': len(dataset),
        'modalities': list(dataset.names),
        'attributes': {name: list(names) for name, (names, _) in dataset.attributes.items()},
    }
    _write_json(path / MANIFEST, manifest)


def save_preprocessing(path: Path, decided: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """
    Note in a dataset's folder which options of preprocessing its training data decided.

    :param decided: option by option, per modality.
    :returns: splits that were made with other options: they are no longer listed.
    """
    path.mkdir(parents=True, exist_ok=True)
    manifest = _manifest_or_new(path)
    plain = json.loads(json.dumps(decided))
    outdated: tuple[str, ...] = ()
    if manifest.get(PREPROCESSING, {}) != plain:
        outdated, manifest['splits'] = tuple(manifest['splits']), {}
    manifest[PREPROCESSING] = plain
    _write_json(path / MANIFEST, manifest)
    return outdated


def load_preprocessing(path: Path) -> dict[str, dict[str, Any]]:
    """
    Options of preprocessing that a dataset's training data decided, per modality.

    :returns: none where there is no dataset yet.
    :raises DataError: if it is broken.
    """
    decided: dict[str, dict[str, Any]] = _manifest_or_new(path).get(PREPROCESSING, {})
    return decided


def add_build(path: Path, split: str, **facts: Any) -> None:
    """
    Write into a dataset's folder how one of its splits was made; what others say stays.

    :param facts: such as its sources; size and SHA-256 are added.
    """
    file = path / BUILD_FILE
    known = json.loads(file.read_text()).get('splits', {}) if file.is_file() else {}
    listed = _manifest(path)['splits']
    facts['rows'] = listed[split]['rows']
    save_build(path, {k: v for k, v in {**known, split: facts}.items() if k in listed})


def save_build(
    path: Path, splits: Mapping[str, Mapping[str, Any]], **facts: Any
) -> dict[str, Any]:
    """
    Write how a dataset was made into its folder (``build.json``).

    :param splits: facts about each split, such as its size; its file's SHA-256 is added.
    :param facts: about all of it, such as the seed and the sources.
    :returns: what was written.
    """
    about = {}
    for split, known in splits.items():
        content = (path / f'{split}.safetensors').read_bytes()
        about[split] = {**known, 'sha256': hashlib.sha256(content).hexdigest()}
    summary = {**facts, 'splits': about}
    _write_json(path / BUILD_FILE, summary)
    return summary


def splits(path: Path) -> tuple[str, ...]:
    """
    Names of the splits in a dataset's folder.

    :raises DataError: if it is no dataset.
    """
    return tuple(_manifest(path)['splits'])


def load_dataset(path: Path, split: str) -> Dataset:
    """
    Read one split of a dataset.

    :raises DataError: if the folder, the split or its file is missing or broken.
    """
    manifest = _manifest(path)
    if split not in manifest['splits']:
        raise DataError(f'{path}: has no split "{split}"; it has {", ".join(manifest["splits"])}')
    about = manifest['splits'][split]
    file = path / f'{split}.safetensors'
    try:
        arrays = load_file(file)
        return Dataset(
            names=tuple(about['modalities']),
            values={n: arrays[f'values.{n}'] for n in about['modalities']},
            index={n: arrays[f'index.{n}'] for n in about['modalities']},
            present=arrays['present'].astype(bool),
            attributes={
                name: (names, arrays[f'attribute.{name}'])
                for name, names in about['attributes'].items()
            },
            time_s=arrays.get('time_s'),
        )
    except (OSError, SafetensorError, KeyError) as error:
        raise DataError(f'{file}: missing or broken ({error}); build the dataset again') from error


def to_bytes(array: np.ndarray) -> np.ndarray:
    """Levels from 0 to 1 as bytes, ``uint8``; what lies beyond is cut off."""
    return np.rint(np.clip(array, 0.0, 1.0) * 255.0).astype(np.uint8)


def _write_json(file: Path, content: Any) -> None:
    _put(file, lambda new: new.write_text(json.dumps(content, indent=1) + '\n'))


def _put(file: Path, write: Callable[[Path], Any]) -> None:
    """Put a new file in the place of another in one step."""
    new = file.with_name(f'.{file.name}')
    write(new)
    os.replace(new, file)


def _manifest_or_new(path: Path) -> dict[str, Any]:
    new = {'format': FORMAT, 'splits': {}}
    return _manifest(path) if (path / MANIFEST).is_file() else new


def _manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    try:
        manifest = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise DataError(
            f'{path}: not a dataset ({MANIFEST} missing or broken); run mm-perception build-data'
        ) from error
    if not isinstance(manifest, dict) or manifest.get('format') != FORMAT:
        raise DataError(f'{file}: written by another version; build the dataset again')
    return manifest
