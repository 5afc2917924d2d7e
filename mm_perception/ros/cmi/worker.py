"""The thread that fuses: when a tick is due on a clock that nobody sets, or for what came."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable


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
        self._due_s = math.inf if period_s is None else self.began_s
        self._asked = False
        self._thread = threading.Thread(target=self._run, name='fusion', daemon=True)
        self._thread.start()

    def pace(self, period_s: float | None) -> None:
        """Change the period, from now on."""
        with self._condition:
            self._period_s = period_s
            self._due_s = math.inf if period_s is None else time.monotonic() + period_s
            self._condition.notify()

    def expect(self, within_s: float) -> None:
        """Let the next tick be due then, whatever the period says."""
        with self._condition:
            self._due_s = time.monotonic() + within_s
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
                early_s = self._due_s - time.monotonic()
                if early_s <= 0.0:
                    break
                self._condition.wait(None if math.isinf(early_s) else early_s)
            self._asked = False
            self._set_next(time.monotonic())
            return not self.abandoned

    def _set_next(self, now_s: float) -> None:
        """Set when the next tick is due; those that should have been by now are dropped."""
        if self._period_s is None:
            self._due_s = math.inf
        elif self._follow:
            self._due_s = now_s + self._period_s
        elif now_s >= self._due_s:
            missed = int((now_s - self._due_s) / self._period_s)
            self.dropped += missed
            self._due_s += (missed + 1) * self._period_s


PERIODS = 5
COMPLETE, WAIT, NOTHING = 'complete', 'wait', 'nothing'


class Stamps:
    """
    Tells when all values of one stamp are there, so that there is one tick for them.

    A modality is waited for if its own period says that its next value belongs to the newest
    stamp; what was overdue is not waited for again until it comes. Stamps belong together that
    differ by less than half of the shortest period. Any thread may call.

    :param names: of the modalities.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(names)
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Forget all stamps."""
        with self._lock:
            self._last_ns: dict[str, int] = {}
            self._periods_ns: dict[str, deque[int]] = {}
            self._overdue: set[str] = set()
            self._open_ns = self._closed_ns = 0

    @property
    def waiting(self) -> bool:
        """Whether some of a stamp's values have come and were not fused yet."""
        return bool(self._open_ns)

    def take(self, name: str, stamp_ns: int) -> str:
        """
        Take the stamp of a new value.

        :returns: whether all of its stamp are there now (``COMPLETE``), others are waited for
            from now on (``WAIT``), or nothing has to be done (``NOTHING``).
        """
        with self._lock:
            last_ns = self._last_ns.get(name)
            if last_ns is not None and stamp_ns != last_ns:
                periods = self._periods_ns.setdefault(name, deque(maxlen=PERIODS))
                # Stamps that ran backwards say nothing of the period, nor does what was before.
                if stamp_ns > last_ns:
                    periods.append(stamp_ns - last_ns)
                else:
                    self._open_ns = self._closed_ns = 0
                    periods.clear()
            self._last_ns[name] = stamp_ns
            self._overdue.discard(name)
            apart_ns = self._apart_ns()
            if self._closed_ns and stamp_ns - self._closed_ns < max(apart_ns, 1):
                return NOTHING
            begins = not self._open_ns
            self._open_ns = max(self._open_ns, stamp_ns)
            if not self._lacking(apart_ns):
                return COMPLETE
            return WAIT if begins else NOTHING

    def close(self) -> int:
        """
        Begin a tick; what its stamp still lacks is overdue.

        :returns: the newest stamp that was closed so far; 0 before the first.
        """
        with self._lock:
            if self._open_ns:
                self._overdue.update(self._lacking(self._apart_ns()))
                self._closed_ns, self._open_ns = self._open_ns, 0
            return self._closed_ns

    def _apart_ns(self) -> int:
        """By how much stamps differ that do not belong together, at least."""
        return min((min(each) for each in self._periods_ns.values() if each), default=0) // 2

    def _lacking(self, apart_ns: int) -> set[str]:
        """Names of what belongs to the open stamp, has not come, and is not overdue."""
        lacking = set()
        for name in self._names:
            last_ns, periods = self._last_ns.get(name), self._periods_ns.get(name)
            if last_ns is None:
                lacking.add(name)
            elif not periods:
                lacking |= {name} if last_ns < self._open_ns else set()
            elif last_ns + min(periods) <= self._open_ns + apart_ns:
                lacking.add(name)
        return lacking - self._overdue
