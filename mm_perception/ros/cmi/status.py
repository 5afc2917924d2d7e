"""How the modalities stand, as entries of diagnostic messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from mm_perception.fusion.health import State, Verdict
from mm_perception.fusion.perception import OBSERVED, Fused
from mm_perception.ros.codecs import make_header

LEVELS = {
    State.OK: DiagnosticStatus.OK,
    State.DISABLED: DiagnosticStatus.OK,
    State.WAITING: DiagnosticStatus.WARN,
    State.STALE: DiagnosticStatus.WARN,
    State.REJECTED: DiagnosticStatus.ERROR,
    State.INCONSISTENT: DiagnosticStatus.ERROR,
}


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
