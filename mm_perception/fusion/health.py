"""The thresholds by which sensors are judged, and how a modality can stand. Knows no ROS."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from mm_perception.config import described
from mm_perception.modalities.base import (
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
from mm_perception.spec import ModalitySpec

FUTURE, BACKWARDS, MALFORMED, FLAPPING = 'future', 'backwards', 'malformed', 'flapping'
UNREADABLE = 'cannot be read'  # begins the reason where ours is the fault
TOLERABLE = (FROZEN, STILL, SILENT, BLACK, SATURATED, CLIPPED, HOLES, OUT_OF_RANGE)
NO_OUTPUT, HOLD, PRIOR = 'silent', 'hold', 'prior'
FALLBACKS = (NO_OUTPUT, HOLD, PRIOR)
_HOUR_S = 3600.0


@dataclass(frozen=True)
class Limits:
    """Thresholds of one modality; ``hold`` uses a stale value still, rather than none."""

    enabled: bool = described(True, 'Whether the modality may take part in the fusion.')
    max_age_s: float = described(
        1.0, 'Age by header time up to which a value is fresh (s).', 0.001, 86400.0
    )
    frozen_s: float = described(
        0.0,
        'How long this sensor may repeat exactly the same data (s); 0: health.frozen_s.',
        0.0,
        _HOUR_S,
    )
    hold: bool = False
    future_s: float = described(
        0.5,
        'How far a stamp may lie in the future before its message is rejected (s).',
        0.0,
        _HOUR_S,
    )
    backwards_s: float = described(
        0.5,
        'How far a stamp may lie before the last one (s); beyond that, what was gathered is'
        ' forgotten.',
        0.0,
        _HOUR_S,
    )


def limits_of(modality: ModalitySpec) -> Limits:
    """Thresholds of a modality as its configuration has them."""
    return Limits(max_age_s=modality.max_age_s, frozen_s=modality.frozen_s)


@dataclass(frozen=True)
class Checks:
    """Thresholds of all modalities; 0 switches a check off."""

    frozen_s: float = described(
        0.7,
        'How long a camera or microphone may repeat exactly the same data while another sensor'
        ' changes, or a streamed pen the same point (s); 0: for ever.',
        0.0,
        _HOUR_S,
    )
    silent_s: float = described(
        0.7,
        'How long a microphone may give nothing but digital zeros (s); 0: for ever.',
        0.0,
        _HOUR_S,
    )
    thresholds: Thresholds = field(default_factory=Thresholds)
    tolerate: frozenset[str] = described(
        frozenset(),
        'Faults that are reported but take no modality out, separated by commas.',
        choices=TOLERABLE,
    )
    flaps: int = described(
        5,
        'Dropouts within health.flap_s that hold a modality out until it is steady; 0: never.',
        0,
        1000,
    )
    flap_s: float = described(5.0, 'Time within which dropouts are counted (s).', 0.1, _HOUR_S)
    steady_s: float = described(
        2.0,
        'How long a modality that was held out must be well before it is used again (s).',
        0.0,
        _HOUR_S,
    )
    agreement: bool = described(
        True,
        'Whether the modalities are compared with each other; needs a bundle that is calibrated'
        ' for it.',
    )
    exclude_inconsistent: bool = described(
        True, 'Whether a modality that the others contradict is left out of the fusion.'
    )
    inconsistent_s: float = described(
        0.5,
        'How long the others must contradict a modality before it is inconsistent (s).',
        0.0,
        _HOUR_S,
    )


class State(str, Enum):
    """State of a modality, as in ``~/status``."""

    WAITING = 'waiting'
    OK = 'ok'
    STALE = 'stale'
    REJECTED = 'rejected'
    INCONSISTENT = 'inconsistent'
    DISABLED = 'disabled'


@dataclass(frozen=True)
class Verdict:
    """
    How a modality stands.

    :param used: whether it takes part in the fusion.
    :param age_s: age of its newest value; None before the first.
    :param reason: one line, empty if all is well.
    :param fault: what is wrong, in one word, where the state does not say it.
    :param surprise: how far the others contradict it, 1 being too far; None if not compared.
    """

    state: State
    used: bool
    age_s: float | None = None
    reason: str = ''
    fault: str = ''
    surprise: float | None = None
