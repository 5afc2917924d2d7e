"""Which sensors are out when."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

FAULT = 'silent'
PRESENT_S, BACK_S = 2.5, 2.0
SINGLE_S, GROUP_S = 9.5, 1.8
MARGIN_S = 0.2


@dataclass(frozen=True)
class Phase:
    """
    A time in which the same sensors are out.

    :param missing: names of modalities, in the order of the model.
    :param start_s: from the start of the schedule.
    :param duration_s: all of it, until the next phase begins.
    """

    missing: tuple[str, ...]
    start_s: float
    duration_s: float

    @property
    def name(self) -> str:
        """What happens, in words."""
        return ' + '.join(self.missing) + ' out' if self.missing else 'all present'

    @property
    def end_s(self) -> float:
        """When the next phase begins."""
        return self.start_s + self.duration_s


def plan_phases(max_age_s: Mapping[str, float], scale: float = 1.0) -> tuple[Phase, ...]:
    """
    Plan phases in which every proper subset of the sensors is out once.

    One sensor fails or returns at a time (a Gray code). A failure counts from when its last
    value is stale, so a phase is longer by that; sensors whose values stay fresh the longest
    change least often.

    :param max_age_s: per modality how long a value stays fresh.
    :param scale: of all durations but that wait.
    """
    quick_first = sorted(max_age_s, key=lambda name: max_age_s[name])
    phases = [Phase((), 0.0, PRESENT_S * scale)]
    for missing in _walk(quick_first):
        before = phases[-1].missing
        wait_s = max((max_age_s[m] + MARGIN_S for m in missing if m not in before), default=0.0)
        scored_s = (SINGLE_S if len(missing) == 1 else GROUP_S) * scale
        ordered = tuple(name for name in max_age_s if name in missing)
        phases.append(Phase(ordered, phases[-1].end_s, wait_s + scored_s))
    return (*phases, Phase((), phases[-1].end_s, BACK_S * scale))


def _walk(names: Sequence[str]) -> list[set[str]]:
    """All non-empty proper subsets; neighbours differ in one name (but for the full set)."""
    codes = [number ^ (number >> 1) for number in range(1, 2 ** len(names))]
    subsets = [{name for k, name in enumerate(names) if code >> k & 1} for code in codes]
    return [subset for subset in subsets if len(subset) < len(names)]


def schedule_json(phases: Sequence[Phase]) -> str:
    """Write phases as the schedule of a replay node."""
    entries = []
    for phase in phases:
        entry = asdict(phase)
        entries.append({'sensors': entry.pop('missing'), **entry, 'phase': phase.name})
    return json.dumps([{**entry, 'fault': FAULT} for entry in entries])


def phase_at(phases: Sequence[Phase], elapsed_s: float) -> Phase | None:
    """Phase at a time since the start of the schedule, or None outside of it."""
    return next((p for p in phases if p.start_s <= elapsed_s < p.end_s), None)
