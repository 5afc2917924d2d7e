"""The thread that fuses: when a tick is due on a clock that nobody sets, or when it is asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Worker:
    """
    Does the same work again and again in a thread of its own.

    :param work: does it once; it is given this worker, which may be :attr:`abandoned` by then.
    :param report: called with an exception that ``work`` raised; the thread goes on.
    :param period_s: time between two beginnings; None to work only when asked.
    :param follow: count the period from the last beginning, rather than keep a beat.
    """

    def __init__(
        self,
        work: Callable[[Worker], None],
        report: Callable[[Exception], None],
        period_s: float | None,
        follow: bool = False,
    ) -> None:
        self.dropped = 0
        self.finished = 0
        self.abandoned = False
        self.began_s = self.finished_s = time.monotonic()
        self._work = work
        self._report = report
        self._period_s = period_s
        self._follow = follow
        self._condition = threading.Condition()
        self._due_s = self.began_s
        self._asked = False
        self._thread = threading.Thread(target=self._run, name='fusion', daemon=True)
        self._thread.start()

    def pace(self, period_s: float | None) -> None:
        """Change the period, from now on."""
        with self._condition:
            self._period_s = period_s
            self._due_s = time.monotonic() + (period_s or 0.0)
            self._condition.notify()

    def ask(self) -> None:
        """Ask for work at once; who asks while another still waits is counted in ``dropped``."""
        with self._condition:
            self.dropped += self._asked
            self._asked = True
            self._condition.notify()

    def stop(self, patience_s: float) -> bool:
        """
        Finish the work under way and end the thread.

        :param patience_s: after which a thread that does not end is abandoned.
        :returns: whether it has ended.
        """
        with self._condition:
            self.abandoned = True
            self._condition.notify()
        self._thread.join(patience_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while self._wait():
            self.began_s = time.monotonic()
            try:
                self._work(self)
            except Exception as error:  # noqa: BLE001 - a failed tick must not end all ticks
                self._report(error)
            else:
                self.finished += 1
                self.finished_s = time.monotonic()

    def _wait(self) -> bool:
        """Wait until there is work; False if there will be none."""
        with self._condition:
            while not (self.abandoned or self._asked):
                if self._period_s is None:
                    self._condition.wait()
                    continue
                early_s = self._due_s - time.monotonic()
                if early_s <= 0.0:
                    break
                self._condition.wait(early_s)
            self._asked = False
            self._set_next(time.monotonic())
            return not self.abandoned

    def _set_next(self, now_s: float) -> None:
        """Set when the next tick is due; those that should have been by now are dropped."""
        if self._period_s is None:
            return
        if self._follow:
            self._due_s = now_s + self._period_s
        elif now_s >= self._due_s:
            missed = int((now_s - self._due_s) / self._period_s)
            self.dropped += missed
            self._due_s += (missed + 1) * self._period_s
