"""The thresholds by which sensors are judged. Knows no ROS."""

from __future__ import annotations

from dataclasses import dataclass, field

from mm_perception.modalities.quality import (
    BLACK,
    CLIPPED,
    FROZEN,
    HOLES,
    OUT_OF_RANGE,
    SATURATED,
    SILENT,
    STILL,
    Thresholds,
)

FUTURE, BACKWARDS, MALFORMED, FLAPPING = 'future', 'backwards', 'malformed', 'flapping'
UNREADABLE = 'cannot be read'  # begins the reason where ours is the fault
TOLERABLE = (FROZEN, STILL, SILENT, BLACK, SATURATED, CLIPPED, HOLES, OUT_OF_RANGE)
WHEN_SILENT, WHEN_HOLD, WHEN_PRIOR = 'silent', 'hold', 'prior'
WHEN_NOTHING = (WHEN_SILENT, WHEN_HOLD, WHEN_PRIOR)


@dataclass(frozen=True)
class Limits:
    """
    Thresholds of one modality.

    :param max_age_s: age (by header time) up to which a value is fresh.
    :param hold: use a stale value still, rather than none.
    :param future_s: how far a stamp may lie in the future.
    :param backwards_s: how far a stamp may lie before the last one.
    """

    enabled: bool
    max_age_s: float
    hold: bool
    future_s: float
    backwards_s: float = 0.5


@dataclass(frozen=True)
class Checks:
    """
    Thresholds of all modalities; 0 switches a check off.

    :param frozen_s: how long equal data may repeat while other sensors change.
    :param silent_s: how long a microphone may give nothing but zeros.
    :param thresholds: of complete values.
    :param tolerate: faults that are reported but take nothing out.
    :param flaps: dropouts within ``flap_s`` that hold a modality out.
    :param steady_s: how long it must be well to come back then.
    :param agreement: compare the modalities with each other.
    :param exclude_inconsistent: leave out the one that the others contradict.
    :param inconsistent_s: how long they must contradict it.
    """

    frozen_s: float = 0.7
    silent_s: float = 0.7
    thresholds: Thresholds = field(default_factory=Thresholds)
    tolerate: frozenset[str] = frozenset()
    flaps: int = 5
    flap_s: float = 5.0
    steady_s: float = 2.0
    agreement: bool = True
    exclude_inconsistent: bool = True
    inconsistent_s: float = 0.5

    def stuck_s(self, fault: str) -> float:
        """How long equal data may repeat before it is this fault; 0: for ever."""
        return {FROZEN: self.frozen_s, STILL: self.frozen_s, SILENT: self.silent_s}.get(fault, 0.0)
