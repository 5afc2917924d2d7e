"""What a LeRobot dataset holds, feature by feature, and the modalities that it could give."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mm_perception.data.drafting import (
    Draft,
    Frames,
    Seen,
    Timing,
    distinct,
    draft_image,
    draft_symbol,
    draft_vector,
    group_names,
    name_of,
)
from mm_perception.data.lerobot import NUMBERS, PICTURES, read_picture
from mm_perception.data.lerobot_files import (
    LeRobot,
    element_names,
    open_lerobot,
    read_frames,
    read_table,
)
from mm_perception.errors import DataError

BOOKKEEPING = frozenset(['timestamp', 'frame_index', 'episode_index', 'index', 'task_index'])
"""Features that every dataset has, and that are no sensor's."""
COMMANDS = 'action'
"""A feature that is one sensor, whatever its elements are called: it comes in one message."""
VIDEOS, FRAMES = 8, 20


def survey_lerobot(path: Path, topics: Collection[str] = ()) -> tuple[list[Seen], float]:
    """
    Look at what a LeRobot dataset holds.

    :param topics: features to look at, with ``/`` or ``.`` between their parts; empty for all.
    :returns: what was seen of each feature, and how long the episodes are in all (s).
    :raises DataError: if it cannot be read, or lacks one of the features.
    """
    source = open_lerobot(path)
    wanted = [topic.strip('/').replace('/', '.') for topic in topics]
    features = {n: a for n, a in source.info['features'].items() if n not in BOOKKEEPING}
    known = [name.replace('/', '.') for name in features]
    absent = [name for name in wanted if name not in known]
    if absent:
        raise DataError(f'{path}: has no feature {absent[0]}; it has {", ".join(known)}')
    there = [n for n in source.episodes if source.data_file(n).is_file()]
    if not there:
        raise DataError(f'{path}: no episode has its data file; copy the folder data')
    count = 0
    seen = []
    for name, about in features.items():
        if wanted and name.replace('/', '.') not in wanted:
            continue
        found = _survey_feature(source, name, about, there)
        count = max(count, found.timing.count)
        seen.append(found)
    return distinct(seen), count / source.fps


def _survey_feature(
    source: LeRobot, name: str, about: Mapping[str, Any], episodes: Collection[int]
) -> Seen:
    dtype, topic = str(about.get('dtype')), name.replace('.', '/')
    period_s = 1.0 / source.fps
    if dtype == 'video':
        return _survey_video(source, name, topic, episodes)
    column = _column(source, name, episodes)
    when = Timing(len(column), period_s, period_s, period_s)
    values = [value for value in column if value is not None]
    if dtype.startswith(NUMBERS) and values:
        drafts, remarks = _vectors(name, about, np.array([np.ravel(v) for v in values]), when)
    elif dtype.startswith(PICTURES) and values:
        frames = Frames()
        for value in values[:: max(1, len(values) // (VIDEOS * FRAMES))]:
            picture = read_picture(value)
            frames.follow(zlib.crc32(picture.tobytes()))
            frames.take(picture)
        drafts, remarks = _one(draft_image(name_of(topic), frames, when))
    elif dtype == 'string' and values:
        drafts, remarks = _one(draft_symbol(name_of(topic), values, when))
    else:
        drafts, remarks = (), ('no values' if not values else f'no kind takes {dtype}',)
    return Seen(topic, dtype, when, drafts, remarks)


def _column(source: LeRobot, name: str, episodes: Collection[int]) -> list[Any]:
    files = dict.fromkeys(source.data_file(episode) for episode in episodes)
    found: list[Any] = []
    for file in tqdm(files, desc=name, unit='file', leave=False):
        found += read_table(file, (name,))[name].to_pylist()
    return found


def _vectors(
    name: str, about: Mapping[str, Any], values: np.ndarray, when: Timing
) -> tuple[tuple[Draft, ...], tuple[str, ...]]:
    labels = element_names(about) or [str(k) for k in range(values.shape[1])]
    own = name_of(name)
    groups = [('', tuple(labels))] if name == COMMANDS else group_names(labels)
    drafts: list[Draft] = []
    remarks: list[str] = []
    for label, members in groups:
        columns = [labels.index(member) for member in members]
        draft, more = draft_vector(label or own, members, values[:, columns], when)
        drafts += [draft] if draft else []
        remarks += [f'{label or own}: {remark}' for remark in more]
    return tuple(drafts), tuple(remarks)


def _survey_video(source: LeRobot, name: str, topic: str, episodes: Collection[int]) -> Seen:
    files = {n: source.video_file(name, n) for n in episodes}
    there = [n for n, file in files.items() if file.is_file()]
    frames = Frames()
    for episode in tqdm(there[:: max(1, len(there) // VIDEOS)], desc=name, leave=False):
        begin_s = source.video_begin_s(name, episode)
        times_s = begin_s + np.arange(FRAMES) / source.fps
        for _, frame in read_frames(files[episode], times_s, 1.0 / source.fps):
            frames.follow(zlib.crc32(frame.tobytes()))
            frames.take(frame)
    period_s = 1.0 / source.fps
    length = sum(int(source.episodes[n].get('length') or 0) for n in there)
    when = Timing(length or frames.count, period_s, period_s, period_s)
    if not frames.count:
        return Seen(topic, 'video', when, (), ('no video is there',))
    drafts, remarks = _one(draft_image(name_of(topic), frames, when))
    if len(there) < len(files):
        remarks = (*remarks, f'{len(files) - len(there)} of {len(files)} episodes have no video')
    return Seen(topic, 'video', when, drafts, remarks)


def _one(
    drafted: tuple[Draft | None, tuple[str, ...]],
) -> tuple[tuple[Draft, ...], tuple[str, ...]]:
    draft, remarks = drafted
    return ((draft,) if draft else ()), remarks
