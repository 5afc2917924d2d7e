"""What the messages of a sensor show about it, apart from their data. Knows no ROS."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mm_perception.modalities.quality import Trace


@dataclass(frozen=True)
class Signs:
    """
    When messages came; times in nanoseconds on the node's clock, None before the first.

    :param received_ns: newest message.
    :param since_ns: first of the messages whose data equals the newest.
    :param changed_ns: newest message whose data differed from the one before.
    :param stamp_ns: stamp of the newest message that could be read.
    :param trace: of that message.
    :param backwards_s: how far stamps jumped back and have not caught up; 0: they did not.
    """

    received_ns: int | None = None
    since_ns: int | None = None
    changed_ns: int | None = None
    stamp_ns: int | None = None
    trace: Trace | None = None
    backwards_s: float = 0.0


class Tracker:
    """Follows the messages of one sensor."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all messages."""
        self.signs = Signs()
        self._furthest_ns: int | None = None

    def arrive(self, now_ns: int) -> None:
        """A message came, of whatever quality."""
        self.signs = replace(self.signs, received_ns=now_ns)

    def read(self, trace: Trace, stamp_ns: int, now_ns: int, backwards_s: float) -> float:
        """
        Take what a readable message showed.

        :param backwards_s: how far its stamp may lie before the last one.
        :returns: how far it jumped back beyond that, in seconds; 0 if it did not.
        """
        signs = self.signs
        jump_s = 0.0
        if signs.stamp_ns is not None and signs.stamp_ns - stamp_ns > backwards_s * 1e9:
            jump_s = (signs.stamp_ns - stamp_ns) * 1e-9
            if self._furthest_ns is None:
                self._furthest_ns = signs.stamp_ns
        if self._furthest_ns is not None and stamp_ns >= self._furthest_ns:
            self._furthest_ns = None
        behind_s = 0.0 if self._furthest_ns is None else (self._furthest_ns - stamp_ns) * 1e-9
        first = signs.trace is None
        same = signs.trace is not None and trace.mark == signs.trace.mark
        self.signs = replace(
            signs,
            since_ns=signs.since_ns if same else now_ns,
            changed_ns=signs.changed_ns if same or first else now_ns,
            stamp_ns=stamp_ns,
            trace=trace,
            backwards_s=behind_s,
        )
        return jump_s


class ClockWatch:
    """
    Notices a clock that is set back, as simulated time is when it starts again.

    :param tolerance_s: steps back that do not count.
    """

    def __init__(self, tolerance_s: float = 0.1) -> None:
        self._tolerance_ns = int(tolerance_s * 1e9)
        self._newest_ns: int | None = None

    def look(self, now_ns: int) -> float:
        """How far the clock went back since the last look, in seconds; 0 if it did not."""
        newest_ns = now_ns if self._newest_ns is None else self._newest_ns
        self._newest_ns = now_ns
        return (newest_ns - now_ns) * 1e-9 if newest_ns - now_ns > self._tolerance_ns else 0.0
