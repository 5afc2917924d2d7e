"""Stages that do not depend on each other, trained in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor

import torch

from mm_perception.training import distributed
from mm_perception.training.loop import Fitted

Task = Callable[[int], Fitted]


def side_by_side(tasks: Mapping[str, Task], jobs: int) -> dict[str, Fitted]:
    """
    Run tasks on several processes; in turn for one job, and where all processes share a task.

    :param tasks: each takes the row of its progress bar; can be pickled.
    """
    jobs = min(jobs, len(tasks))
    if jobs <= 1 or distributed.world_size() > 1:
        return {name: task(0) for name, task in tasks.items()}
    context = multiprocessing.get_context('spawn')
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(jobs, context, begin_worker, (threads,)) as pool:
        futures = {n: pool.submit(task, i) for i, (n, task) in enumerate(tasks.items())}
        return {name: future.result() for name, future in futures.items()}


def begin_worker(threads: int) -> None:
    """Prepare a process of a pool: torch takes so many threads, and it ends with its parent."""
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that is killed cannot stop what it started."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
