"""Frames of a video at given times."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from mm_perception.errors import DataError


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
