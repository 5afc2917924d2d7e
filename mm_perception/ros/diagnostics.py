"""What the node says about itself: ``~/status`` and ``/diagnostics``."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from mm_perception.ros.codecs import make_header
from mm_perception.ros.fusion import OBSERVED, Fused
from mm_perception.ros.health import State, Verdict

LEVELS = {
    State.OK: DiagnosticStatus.OK,
    State.DISABLED: DiagnosticStatus.OK,
    State.WAITING: DiagnosticStatus.WARN,
    State.STALE: DiagnosticStatus.WARN,
    State.REJECTED: DiagnosticStatus.ERROR,
    State.INCONSISTENT: DiagnosticStatus.ERROR,
}


class StageTimes:
    """Durations of the latest ticks, per stage."""

    def __init__(self, length: int = 600) -> None:
        self._length = length
        self._stages: dict[str, deque[float]] = {}

    def add(self, stage_ms: Mapping[str, float]) -> None:
        """Take the durations of one tick (ms)."""
        for stage, duration_ms in stage_ms.items():
            self._stages.setdefault(stage, deque(maxlen=self._length)).append(duration_ms)

    def percentiles(self) -> dict[str, str]:
        """Median and 99th percentile of each stage, as ``<stage>_p50_ms`` and ``_p99_ms``."""
        values = {}
        for stage, durations in list(self._stages.items()):
            p50, p99 = np.percentile(list(durations), (50, 99))
            values[f'{stage}_p50_ms'] = f'{p50:.3f}'
            values[f'{stage}_p99_ms'] = f'{p99:.3f}'
        return values


class Rates:
    """Rates of counters between one look and the next."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[int, float]] = {}

    def rate_hz(self, name: str, count: int) -> float:
        """Rate of a counter since it was last asked for; 0 the first time."""
        now_s = time.monotonic()
        last, last_s = self._last.get(name, (count, now_s))
        self._last[name] = (count, now_s)
        return max(count - last, 0) / (now_s - last_s) if now_s > last_s else 0.0


def make_status(name: str, level: bytes, message: str, values: Mapping[str, Any]) -> Any:
    """Build one entry of a diagnostic array."""
    return DiagnosticStatus(
        name=name,
        level=level,
        message=message,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )


def status_message(fused: Fused, frame_id: str) -> DiagnosticArray:
    """Build the message of ``~/status``: one entry per modality, the stamp of the latent."""
    entries = [_modality_status(name, verdict, fused) for name, verdict in fused.verdicts.items()]
    return DiagnosticArray(header=make_header(fused.stamp_ns, frame_id), status=entries)


def verdict_values(verdict: Verdict) -> dict[str, str]:
    """How a modality stands, as keys and values."""
    return {
        'state': verdict.state.value,
        'fault': verdict.fault,
        'used': str(verdict.used).lower(),
        'age_ms': '' if verdict.age_s is None else f'{verdict.age_s * 1e3:.1f}',
        'surprise': '' if verdict.surprise is None else f'{verdict.surprise:.2f}',
    }


def level(verdict: Verdict) -> bytes:
    """Level of a modality's diagnostics; a fault that is tolerated is a warning."""
    if verdict.state is State.OK and verdict.fault:
        return DiagnosticStatus.WARN
    return LEVELS[verdict.state]


def _modality_status(name: str, verdict: Verdict, fused: Fused) -> Any:
    inferred = 'inferred' if fused.source == OBSERVED else fused.source
    values = {
        **verdict_values(verdict),
        'source': 'sensor' if verdict.used else inferred,
        'reason': verdict.reason,
    }
    return make_status(name, level(verdict), verdict.reason or 'ok', values)
