"""What the node says about itself: ``~/status``, ``/diagnostics``, and why there is no output."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from std_msgs.msg import Header

from mm_perception.fusion.health import State, Verdict
from mm_perception.fusion.perception import Perception
from mm_perception.fusion.results import OBSERVED, Fused
from mm_perception.ros.cmi.inputs import Inputs, Throttle
from mm_perception.ros.cmi.outputs import Outputs
from mm_perception.ros.cmi.watchdog import Alarm
from mm_perception.ros.codecs import make_header
from mm_perception.ros.qos import heartbeat_qos, overridable

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
        'confidence': _confidence(fused),
        'error': f'{fused.errors[name]:.4g}' if name in fused.errors else '',
        'reason': verdict.reason,
    }
    return make_status(name, level(verdict), verdict.reason or 'ok', values)


def _confidence(fused: Fused) -> str:
    chance = np.nan if fused.result is None else fused.result.confidence
    return '' if np.isnan(chance) else f'{chance:.3f}'


def twins(node: Node) -> int:
    """How many nodes of this node's full name there are, itself included."""
    own = node.get_name(), node.get_namespace()
    return sum(each == own for each in node.get_node_names_and_namespaces())


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


EXPLAIN_PERIOD_S = 10.0
UNREAD_PERIOD_S = 300.0
UNUSED_PERIOD_S = 60.0
PATIENCE = 3  # reports, one a second
NO_VERDICT = Verdict(State.WAITING, False, None, 'nothing was fused yet')


class Reporter:
    """
    Watches the node's work.

    :param node: whose name the diagnostics carry.
    :param inputs: its subscriptions.
    :param outputs: its publishers.
    """

    def __init__(self, node: Node, inputs: Inputs, outputs: Outputs) -> None:
        self.ticks = 0
        self.latents = 0
        self.errors = 0
        self.times = StageTimes()
        self._node = node
        self._inputs = inputs
        self._outputs = outputs
        self._disagree = False
        self._confidence = ''
        self._rates = Rates()
        self._reports = 0
        self._explain = Throttle(EXPLAIN_PERIOD_S)
        self._remind = Throttle(UNREAD_PERIOD_S)
        self._unused = Throttle(UNUSED_PERIOD_S)
        self._verdicts: Mapping[str, Verdict] = {}
        self._idle: dict[str, int] = {}  # reports in a row with messages that were not used
        self._status = outputs.advertise(DiagnosticArray, '~/status')
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._heartbeat = node.create_publisher(
            Header, '~/heartbeat', heartbeat_qos(), qos_overriding_options=overridable()
        )
        self._beaten = 0
        self._alarm: Alarm | None = None

    def destroy(self) -> None:
        """Destroy the publishers."""
        self._node.destroy_publisher(self._publisher)
        self._node.destroy_publisher(self._heartbeat)

    def beat(self, finished: int) -> None:
        """Publish a heartbeat if ticks were finished since the last one."""
        if finished != self._beaten:
            self._beaten = finished
            self._heartbeat.publish(make_header(self._node.get_clock().now().nanoseconds))

    def may_log_defect(self) -> bool:
        """Whether it is time for another traceback."""
        return self._explain.ready('defect')

    def add(self, fused: Fused, frame_id: str, tick_ms: float) -> None:
        """Publish how the modalities stood in a tick; take how long all of it took."""
        self._status.publish(status_message(fused, frame_id))
        self.ticks += 1
        self.latents += fused.result is not None
        self.times.add({**fused.stage_ms, 'tick': tick_ms})
        self._verdicts = fused.verdicts
        self._disagree, self._confidence = fused.disagree, _confidence(fused)
        for name, verdict in fused.verdicts.items():
            if verdict.state in (State.REJECTED, State.INCONSISTENT) or verdict.fault:
                self._inputs.report_fault(name, verdict)

    def report(
        self,
        perception: Perception,
        active: bool,
        enabled: bool,
        dropped: int,
        alarm: Alarm | None = None,
    ) -> None:
        """Publish the diagnostics, and log what keeps output away."""
        self._reports += 1
        self._alarm = alarm
        if alarm is not None and self._explain.ready(alarm.curable):
            self._node.get_logger().error(alarm.text)
        entries = [self._own_status(perception, active, enabled, dropped)]
        for name, stream in self._inputs.streams.items():
            entries.append(self._modality_status(name, stream.received, stream.refused))
        if active:
            self._explain_unused()
        now_ns = self._node.get_clock().now().nanoseconds
        message = DiagnosticArray(header=make_header(now_ns), status=entries)
        self._publisher.publish(message)
        if active and self._reports > PATIENCE:
            self._explain_outputs()

    def _explain_outputs(self) -> None:
        """Log who cannot be served, and that nobody is there to be served."""
        if self._outputs.unread() and self._remind.ready('unread'):
            self._node.get_logger().info(
                'nobody has subscribed to any output; reconstruction/* and filled/* are generated'
                ' only for subscribers'
            )
        if self._explain.ready('names') and twins(self._node) > 1:
            self._node.get_logger().warning(
                f'another node is called {self._node.get_fully_qualified_name()} too: services and'
                ' parameters reach either; remap one (-r __node:=NAME, or -r __ns:=/NAMESPACE)'
            )
        if self._explain.ready('consumers'):
            for line in self._outputs.explain():
                self._node.get_logger().warning(line)

    def _own_status(
        self, perception: Perception, active: bool, enabled: bool, dropped: int
    ) -> Any:
        name = self._node.get_fully_qualified_name()
        rate_hz = self._rates.rate_hz('latents', self.latents)
        problem = ''
        if not active:
            problem = f'not active: no latents; "ros2 lifecycle set {name} activate"'
        elif not enabled:
            problem = f'switched off through {name}/enable: no latents'
        elif rate_hz == 0.0 and not any(verdict.used for verdict in self._verdicts.values()):
            idle = [v.reason for v in self._verdicts.values() if v.state is State.OK and v.reason]
            problem = f'{idle[0] if idle else "no modality is usable"}: no latents'
        elif self._disagree:
            used = ', '.join(name for name, verdict in self._verdicts.items() if verdict.used)
            problem = f'{used} disagree, and none of them is outnumbered: the latent is doubtful'
        if problem and self._may_explain('node'):
            self._node.get_logger().info(problem)
        values = {
            'latent_rate_hz': f'{rate_hz:.2f}',
            'confidence': self._confidence,
            'ticks': self.ticks,
            'ticks_dropped': dropped,
            'errors': self.errors,
            'bundle': perception.bundle.frame_id,
            'engine': perception.engine.name,
            'device': perception.engine.device,
            **self.times.percentiles(),
        }
        level = DiagnosticStatus.WARN if problem else DiagnosticStatus.OK
        if self._alarm is not None:
            level, problem = DiagnosticStatus.ERROR, self._alarm.text
        return make_status(f'{self._node.get_name()}: fusion', level, problem or 'ok', values)

    def _modality_status(self, name: str, received: int, rejected: int) -> Any:
        verdict = self._verdicts.get(name, NO_VERDICT)
        rate_hz = self._rates.rate_hz(name, received)
        reason = verdict.reason
        if rate_hz == 0.0 and verdict.state in (State.WAITING, State.STALE):
            reason = self._inputs.explain_silence(name)
            if self._may_explain(name):
                self._node.get_logger().warning(f'{name}: {verdict.state.value}: {reason}')
        arrives, worst = rate_hz > 0.0, level(verdict)
        self._idle[name] = self._idle.get(name, 0) + 1 if arrives and not verdict.used else 0
        mixture = self._inputs.explain_mixture(name)
        if mixture:
            reason, worst = reason or mixture, max(worst, DiagnosticStatus.WARN)
            if self._may_explain(f'publishers of {name}'):
                self._node.get_logger().warning(f'{name}: {mixture}')
        values = {
            **verdict_values(verdict),
            'rate_hz': f'{rate_hz:.2f}',
            'received': received,
            'rejected': rejected,
            'topic': self._inputs.topic(name),
        }
        status = f'{self._node.get_name()}: {name}'
        if self._alarm is not None:
            silence = f'not judged for {self._alarm.silent_s:.1f} s: there are no ticks'
            return make_status(status, DiagnosticStatus.STALE, silence, values)
        return make_status(status, worst, reason or verdict.state.value, values)

    def _explain_unused(self) -> None:
        """Log why what has been received for some seconds is not used, unless a tick says so."""
        for name, reports in self._idle.items():
            verdict = self._verdicts.get(name, NO_VERDICT)
            silent = verdict.state in (State.WAITING, State.STALE) and not verdict.fault
            if reports > PATIENCE and silent and self._unused.ready((name, verdict.state)):
                self._node.get_logger().warning(self._inputs.explain_unused(name, verdict))

    def _may_explain(self, what: str) -> bool:
        """Whether it is time for a line in the log; not while discovery is under way."""
        return self._reports > PATIENCE and self._explain.ready(what)
