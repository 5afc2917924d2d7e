"""Timing of several things in turn, so that a machine whose speed drifts treats them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
from tqdm import tqdm

FIRST_CALLS = 3
Key = TypeVar('Key')
Contestant = Callable[[int], np.ndarray]
"""Makes a number of calls; gives the duration of each, ``float[calls]`` in ms."""


def clocked(call: Callable[[], object]) -> Contestant:
    """Time every call; the first ones of a turn, which find other data in the caches, are not."""

    def measure(calls: int) -> np.ndarray:
        for _ in range(FIRST_CALLS):
            call()
        durations_ms = np.empty(calls)
        for k in range(calls):
            begin = time.perf_counter_ns()
            call()
            durations_ms[k] = (time.perf_counter_ns() - begin) * 1e-6
        return durations_ms

    return measure


def interleave(
    contestants: Mapping[Key, Contestant], repeats: int, calls: int, title: str
) -> dict[Key, np.ndarray]:
    """
    Let every contestant make its calls in every repeat, each time in another order.

    :param title: of the progress bar.
    :returns: ``float[repeats, calls]`` per contestant (ms).
    """
    keys = list(contestants)
    durations_ms = {key: np.empty((repeats, calls)) for key in keys}
    with tqdm(total=repeats * len(keys), desc=f'{title:>9}', unit='turn', leave=False) as bar:
        for repeat in range(repeats):
            first = repeat % len(keys)
            for key in keys[first:] + keys[:first]:
                durations_ms[key][repeat] = contestants[key](calls)
                bar.update()
    return durations_ms
