"""What can only be judged over time: whether a sensor is steady, and whether it is doubted."""

from __future__ import annotations

from collections import deque

from mm_perception.ros.checks import Checks


class Steadiness:
    """
    Keeps a modality out that comes and goes, until it has been well for a while.

    A dropout is a tick at which the modality is missing after one at which it was there; the
    first ``flaps - 1`` within ``flap_s`` cost nothing, so that a fault that ends is over at once.
    """

    def __init__(self) -> None:
        self._dropouts_s: deque[float] = deque()
        self._was_well = False
        self._well_since_s = 0.0
        self._held = False

    def holds_out(self, well: bool, now_s: float, checks: Checks) -> bool:
        """
        Take how the modality is at a tick; whether it must be left out although it is well.

        :param well: whether it could be used.
        """
        if well and not self._was_well:
            self._well_since_s = now_s
        if self._was_well and not well:
            self._dropouts_s.append(now_s)
        self._was_well = well
        while self._dropouts_s and now_s - self._dropouts_s[0] > checks.flap_s:
            self._dropouts_s.popleft()
        if checks.flaps and len(self._dropouts_s) >= checks.flaps:
            self._held = True
        if self._held and well and now_s - self._well_since_s >= checks.steady_s:
            self._held = False
            self._dropouts_s.clear()
        self._held = self._held and checks.flaps > 0
        return self._held and well


class Doubt:
    """
    Tells whether a modality contradicts the others, or only runs ahead of them or behind.

    Sensors change at different moments. A value that agreed with the others when it was new is
    not blamed for what they say later; one that never did is, after a while; and what is blamed
    is believed again as soon as it agrees.
    """

    def __init__(self) -> None:
        self._value: object = None
        self._agreed = False
        self._since_s: float | None = None
        self._blamed = False

    def blames(
        self, value: object, surprise: float, contradicted: bool, now_s: float, patience_s: float
    ) -> bool:
        """
        Take a comparison with the others; whether the modality is to blame.

        :param value: the data compared; another object for other data.
        :param surprise: up to 1 it agrees with them.
        :param contradicted: whether they agree against it.
        :param patience_s: how long they must.
        """
        if value is not self._value:
            self._value, self._agreed = value, False
        if surprise <= 1.0 and not contradicted:
            self._agreed, self._since_s, self._blamed = True, None, False
        elif contradicted and not self._agreed:
            self._since_s = now_s if self._since_s is None else self._since_s
            self._blamed = self._blamed or now_s - self._since_s >= patience_s
        return self._blamed


class Lasting:
    """Tells whether a condition has held for a while."""

    def __init__(self) -> None:
        self._since_s: float | None = None

    def lasts(self, holds: bool, now_s: float, patience_s: float) -> bool:
        """Take how it is now; whether it has held without a break for ``patience_s``."""
        if not holds:
            self._since_s = None
            return False
        self._since_s = now_s if self._since_s is None else self._since_s
        return now_s - self._since_s >= patience_s
