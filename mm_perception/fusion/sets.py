"""Complete sets of values, for who wants nothing but those. Knows no ROS."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection
from dataclasses import replace

from mm_perception.fusion.results import NONE, Fused
from mm_perception.modalities import Stamped


class Sets:
    """
    Seeks the newest values of several sensors whose stamps lie close together.

    :param slop_s: how far apart the stamps of a set may lie.
    :param depth: how many values of a sensor may wait for those of others.
    """

    def __init__(self, slop_s: float, depth: int = 30) -> None:
        self.slop_s = slop_s
        self._values: dict[str, deque[Stamped]] = defaultdict(lambda: deque(maxlen=depth))

    def add(self, name: str, value: Stamped | None) -> None:
        """Take a sensor's newest value, if it is one."""
        values = self._values[name]
        if value is not None and not (values and values[-1] is value):
            values.append(value)

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()

    def newest(self, names: Collection[str]) -> dict[str, Stamped]:
        """Newest set of these sensors; empty if there is none."""
        if not names or not all(self._values[name] for name in names):
            return {}
        stamps = {value.stamp_ns for name in names for value in self._values[name]}
        for end_ns in sorted(stamps, reverse=True):
            found = {name: self._last_within(name, end_ns) for name in names}
            complete = {name: value for name, value in found.items() if value is not None}
            if len(complete) == len(names):
                return complete
        return {}

    def lacking(self, names: Collection[str]) -> list[str]:
        """Which of these sensors have no value that belongs to the newest of all."""
        stamps = [value.stamp_ns for name in names for value in self._values[name]]
        end_ns = max(stamps, default=0)
        return sorted(name for name in names if self._last_within(name, end_ns) is None)

    def _last_within(self, name: str, end_ns: int) -> Stamped | None:
        begin_ns = end_ns - int(self.slop_s * 1e9)
        fit = [v for v in self._values[name] if begin_ns <= v.stamp_ns <= end_ns]
        return max(fit, key=lambda value: value.stamp_ns, default=None)


def withheld(fused: Fused, reason: str) -> Fused:
    """Say that nothing comes of a tick, and why no modality took part."""
    verdicts = {
        name: replace(verdict, used=False, reason=verdict.reason or reason)
        for name, verdict in fused.verdicts.items()
    }
    return Fused(fused.stamp_ns, verdicts, {}, None, stage_ms=fused.stage_ms, source=NONE)
