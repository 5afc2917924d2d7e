"""Watches the ticks from outside, on a clock that nobody sets, and acts when they stop."""

from __future__ import annotations

import faulthandler
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from mm_perception.ros.lifecycle import leave

CHECK_S = 0.25
MIN_SILENCE_S = 1.0
PERIODS = 3.0
STILL_S = 1.0
JOIN_S = 2.0
REPORT, RESTART, EXIT = 'report', 'restart', 'exit'
REACTIONS = (RESTART, EXIT, REPORT)


@dataclass(frozen=True)
class Pulse:
    """
    What there is to see of the ticks; times are steady, in seconds.

    :param finished: how many ticks the thread has finished.
    :param finished_s: when the last one was finished, or the thread began.
    :param period_s: time between two that are due.
    :param ros_time_ns: time of the node's clock if it is simulated, else None.
    :param clock_publishers: how many publishers ``/clock`` has; 0 if time is not simulated.
    :param error: what the last tick that failed raised; empty if none did.
    """

    finished: int
    finished_s: float
    period_s: float
    ros_time_ns: int | None = None
    clock_publishers: int = 0
    error: str = ''


@dataclass(frozen=True)
class Alarm:
    """
    Ticks are missing.

    :param text: what is wrong and what to do.
    :param silent_s: for how long.
    :param curable: whether another thread or process could do better.
    """

    text: str
    silent_s: float
    curable: bool


class TickWatch:
    """Judges whether ticks come when they are due; knows neither threads nor ROS."""

    def __init__(self, now_s: float) -> None:
        self._looked_s = self._awake_s = self._moved_s = now_s
        self._ros_time_ns: int | None = None
        self._finished = -1
        self._finished_ros_ns = 0

    def look(self, now_s: float, pulse: Pulse) -> Alarm | None:
        """
        Judge; to be called a few times per second.

        :returns: None if all is well.
        """
        if now_s - self._looked_s > 4 * CHECK_S:
            self._awake_s = now_s  # the whole process stood still: nothing could have ticked
        self._looked_s = now_s
        still_s = self._still_s(now_s, pulse)
        if still_s > STILL_S:
            return Alarm(_about_clock(still_s, pulse.clock_publishers), still_s, curable=False)
        silent_s = now_s - max(pulse.finished_s, self._awake_s)
        due_s = silent_s
        if pulse.ros_time_ns is not None:
            due_s = min(silent_s, (pulse.ros_time_ns - self._finished_ros_ns) * 1e-9)
        if due_s <= max(MIN_SILENCE_S, PERIODS * pulse.period_s):
            return None
        why = f'each one fails: {pulse.error}' if pulse.error else 'the one under way hangs'
        return Alarm(
            f'no finished tick for {silent_s:.1f} s ({why}): no latents', silent_s, curable=True
        )

    def _still_s(self, now_s: float, pulse: Pulse) -> float:
        """For how long simulated time has stood still; 0 if time is not simulated."""
        time_ns = pulse.ros_time_ns
        if time_ns is None or time_ns != self._ros_time_ns:
            self._moved_s = now_s
        if time_ns is not None:
            began = self._ros_time_ns is None or time_ns < self._finished_ros_ns
            if began or pulse.finished != self._finished:
                self._finished_ros_ns = time_ns
        self._ros_time_ns, self._finished = time_ns, pulse.finished
        return now_s - max(self._moved_s, self._awake_s)


def _about_clock(still_s: float, publishers: int) -> str:
    if not publishers:
        return (
            'no latents: use_sim_time is on but /clock has no publisher; start the simulation, or'
            ' set use_sim_time to false'
        )
    return f'no latents: /clock has stood still for {still_s:.1f} s; is the simulation paused?'


class Watchdog:
    """
    A thread that looks after the ticks.

    :param pulse: says how the ticks stand; None while none are due.
    :param say: called with what is wrong, at every look; with None when all is well.
    :param restart: called once to put another thread in the place of one that hangs.
    :param choose: reaction, one of ``REACTIONS``, and after how many seconds.
    """

    def __init__(
        self,
        pulse: Callable[[], Pulse | None],
        say: Callable[[Alarm | None], None],
        restart: Callable[[], None],
        choose: Callable[[], tuple[str, float]],
    ) -> None:
        self._pulse = pulse
        self._say = say
        self._restart = restart
        self._choose = choose
        self._restarted = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name='watchdog', daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; it may be the one that calls."""
        self._closing.set()
        if self._thread is not threading.current_thread():
            self._thread.join(JOIN_S)

    def _run(self) -> None:
        watch = TickWatch(time.monotonic())
        armed = False
        while True:
            reaction, after_s = self._choose()
            if reaction == EXIT:  # for what holds the interpreter, and this thread with it
                faulthandler.dump_traceback_later(2 * after_s + JOIN_S, exit=True)
            elif armed:
                faulthandler.cancel_dump_traceback_later()
            armed = reaction == EXIT
            if self._closing.wait(CHECK_S):
                break
            pulse = self._pulse()
            if pulse is None:
                watch = TickWatch(time.monotonic())
            alarm = None if pulse is None else watch.look(time.monotonic(), pulse)
            if pulse is not None and pulse.finished:
                self._restarted = False
            self._say(alarm)
            if alarm is not None and alarm.curable and alarm.silent_s > after_s:
                self._react(reaction)
        if armed:
            faulthandler.cancel_dump_traceback_later()

    def _react(self, reaction: str) -> None:
        if reaction == RESTART and not self._restarted:
            self._restarted = True
            self._restart()
        elif reaction != REPORT:
            leave('the ticks cannot be brought back')
