"""The demonstration from beginning to end."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console

import mm_perception
from mm_perception.bundle import Bundle
from mm_perception.lab.demo.error_judge import ErrorJudge
from mm_perception.lab.demo.judge import Judge, TicksOf
from mm_perception.lab.demo.label_judge import LabelJudge
from mm_perception.lab.demo.log import Log, Phase, Tick, gather_ticks, plan_phases, schedule_json
from mm_perception.lab.demo.observer import Observer
from mm_perception.lab.demo.scores import (
    latency_ms,
    one_sensor_out,
    rate_hz,
    score_phase,
    targets,
    ticks_by_phase,
)
from mm_perception.lab.demo.screen import Screen
from mm_perception.lab.harness.processes import (
    NodeProcess,
    interruptions_deferred,
    isolate,
    running,
    viewing,
)
from mm_perception.lab.replay.episodes import holds_episodes, load_episodes
from mm_perception.modalities import Modality, build_modality

REFRESH_S = 0.25
AFTER_S = 0.3


@dataclass(frozen=True)
class DemoOptions:
    """
    What is demonstrated.

    :param recordings: folder of recordings, ``real``, or empty for those of the bundle.
    :param data_root: folder of the raw recordings, for ``real``.
    :param rate_hz: of the node.
    :param scale: of the durations of the phases.
    :param seed: of the order of the recordings.
    :param quick: one sensor out at a time only, and briefly.
    """

    recordings: str = ''
    data_root: Path = Path('../shared/data')
    rate_hz: float = 10.0
    scale: float = 1.0
    device: str = 'auto'
    seed: int = 0
    quick: bool = False


@dataclass(frozen=True)
class Outcome:
    """
    What a demonstration gave.

    :param summary: what goes into summary.json.
    :param ticks: of every phase.
    :param judge: that told how good it is.
    """

    summary: dict[str, Any]
    ticks: dict[Phase, list[Tick]]
    judge: Judge


class Demo:
    """
    Runs the nodes, observes them, and counts.

    :param bundle: what the node runs; carries the classifiers that evaluate it.
    """

    def __init__(self, bundle: Bundle, options: DemoOptions, console: Console) -> None:
        self._bundle = bundle
        self._options = options
        self._console = console
        self.modalities: dict[str, Modality[Any]] = {
            spec.name: build_modality(spec) for spec in bundle.spec.modalities
        }
        self.phases = plan_phases(
            {spec.name: spec.max_age_s for spec in bundle.spec.modalities},
            options.scale,
            options.quick,
        )

    def run(self) -> Outcome:
        """
        Run all phases.

        :raises NodeFailed: if a node ends or says nothing.
        """
        begin_s = time.monotonic()
        started = datetime.now(timezone.utc).isoformat(timespec='seconds')
        domain = isolate()
        with ExitStack() as stack:
            page = stack.enter_context(viewing())
            cmi = stack.enter_context(running('cmi_node', self._cmi_parameters()))
            replay = stack.enter_context(running('replay_node', self._replay_parameters()))
            with interruptions_deferred():
                observer = Observer(self.modalities, domain)
                stack.callback(observer.close)
            log, judge = observer.log, self._judge(observer.log)
            self._console.print(f'ROS_DOMAIN_ID={domain}; starting the nodes', style='dim')
            observer.expect(lambda: log.statuses, cmi, 'cmi_node published no status')
            observer.expect(lambda: log.latents, replay, 'no latent came')
            self._console.print(page())
            self._watch(log, judge, (cmi, replay))
        judge.read(log)
        ticks = self._ticks(log)
        summary = self._summary(log, ticks, judge)
        summary |= {'seconds': round(time.monotonic() - begin_s, 1), 'started': started}
        return Outcome(summary, ticks, judge)

    def _judge(self, log: Log) -> Judge:
        """Whoever knows what is played."""
        recordings = Path(self._options.recordings or self._bundle.path / 'recordings')
        if holds_episodes(recordings.expanduser()):
            recorded = load_episodes(recordings.expanduser())
            return ErrorJudge(recorded, self.modalities, log)
        return LabelJudge(self._bundle, self.modalities)

    def _cmi_parameters(self) -> dict[str, Any]:
        return {
            'bundle': str(self._bundle.path.resolve()),
            'autostart': True,
            'rate_hz': self._options.rate_hz,
            'device': self._options.device,
        }

    def _replay_parameters(self) -> dict[str, Any]:
        return {
            'bundle': str(self._bundle.path.resolve()),
            'recordings': self._options.recordings,
            'data_root': str(self._options.data_root),
            'seed': self._options.seed,
            'schedule': schedule_json(self.phases),
            'wait_for_subscribers': True,
        }

    def _watch(self, log: Log, judge: Judge, nodes: tuple[NodeProcess, ...]) -> None:
        """Show what happens until the schedule is over."""
        remaining, names = list(self.phases), list(self.modalities)
        with Screen(names, self.phases, judge, self._console) as screen:
            while remaining:
                for node in nodes:
                    node.check()
                now_ns = time.time_ns()
                judge.read(log)
                screen.update(log, now_ns)
                if log.elapsed_s(now_ns) > remaining[0].end_s + AFTER_S:
                    phase = remaining.pop(0)
                    ticks = self._ticks(log)[phase]
                    screen.finish_phase(score_phase(phase, ticks, names, judge.figures))
                time.sleep(REFRESH_S)

    def _ticks(self, log: Log) -> dict[Phase, list[Tick]]:
        """Ticks of every phase so far."""
        ticks = gather_ticks(log, list(self.modalities), 1.0 / self._options.rate_hz)
        return ticks_by_phase(log, ticks, self.phases)

    def _summary(self, log: Log, ticks: TicksOf, judge: Judge) -> dict[str, Any]:
        names = list(self.modalities)
        phases = [score_phase(phase, ticks[phase], names, judge.figures) for phase in self.phases]
        measured_hz = rate_hz(log.latents)
        singles = one_sensor_out(phases)
        reached = targets(singles, judge.criteria, measured_hz, self._options.rate_hz)
        return {
            'ok': all(target.met for target in reached),
            'bundle': self._bundle.frame_id,
            'recordings': self._options.recordings or 'those of the bundle',
            'judged_by': judge.kind,
            'rate_hz': self._options.rate_hz,
            'latent_rate_hz': None if measured_hz is None else round(measured_hz, 3),
            'latency_ms': latency_ms(log.latents),
            'one_sensor_out': singles,
            'targets': [target.plain() for target in reached],
            **judge.overall(ticks),
            'phases': phases,
            'device': log.model_info.get('device'),
            'engine': log.model_info.get('engine'),
            'versions': _versions(),
        }


def _versions() -> dict[str, str]:
    """Of this package, and of what can run a model, where it is installed."""
    versions = {'mm_perception': mm_perception.__version__}
    for name in ('onnxruntime', 'torch'):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
