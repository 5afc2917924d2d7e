"""One thread that does the work; the newest job wins."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Job = TypeVar('Job')


class Worker(Generic[Job]):
    """
    Runs jobs in a thread of its own, never more than one waiting: a newer one replaces it.

    :param work: does a job.
    :param report: called with an exception that ``work`` raised; the thread goes on.
    """

    def __init__(self, work: Callable[[Job], None], report: Callable[[Exception], None]) -> None:
        self.replaced = 0
        self._work = work
        self._report = report
        self._condition = threading.Condition()
        self._job: Job | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name='fusion', daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Hand over a job; one that still waits is dropped and counted in ``replaced``."""
        with self._condition:
            self.replaced += self._job is not None
            self._job = job
            self._condition.notify()

    def stop(self) -> None:
        """Finish the job under way, drop the one that waits, end the thread."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._stopping or self._job is not None)
                if self._stopping:
                    return
                job, self._job = self._job, None
            try:
                self._work(job)  # type: ignore[arg-type]
            except Exception as error:  # noqa: BLE001 - a failed tick must not end all ticks
                self._report(error)
