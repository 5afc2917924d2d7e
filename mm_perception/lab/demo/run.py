"""The demonstration from beginning to end."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import mm_perception
from mm_perception.bundle import Bundle
from mm_perception.lab.demo.log import Log, Phase, gather_ticks, plan_phases, schedule_json
from mm_perception.lab.demo.observer import LabelReader, Observer
from mm_perception.lab.demo.report import draw_phases
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
    DemoFailed,
    NodeProcess,
    free_domain,
    interruptions_deferred,
    ros_environment,
)
from mm_perception.modalities import Modality, build_modality

START_S = 60.0
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
    """

    recordings: str = ''
    data_root: Path = Path('../shared/data')
    rate_hz: float = 10.0
    scale: float = 1.0
    device: str = 'auto'
    seed: int = 0


class Demo:
    """
    Runs the nodes, observes them, and counts.

    :param bundle: what the node runs; carries the classifiers that judge it.
    """

    def __init__(self, bundle: Bundle, options: DemoOptions, console: Console) -> None:
        self._bundle = bundle
        self._options = options
        self._console = console
        self.modalities: dict[str, Modality[Any]] = {
            spec.name: build_modality(spec) for spec in bundle.spec.modalities
        }
        self.phases = plan_phases(
            {spec.name: spec.max_age_s for spec in bundle.spec.modalities}, options.scale
        )

    def run(self) -> tuple[dict[str, Any], np.ndarray]:
        """
        Run all phases.

        :returns: what goes into summary.json, and the picture.
        :raises DemoFailed: if a node ends or says nothing.
        """
        begin_s = time.monotonic()
        started = datetime.now(timezone.utc).isoformat(timespec='seconds')
        domain = free_domain()
        os.environ.update(ros_environment(domain))
        # So that the nodes end with this process when it is told to end.
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        with ExitStack() as stack:
            cmi = self._start(stack, 'cmi_node', self._cmi_parameters())
            replay = self._start(stack, 'replay_node', self._replay_parameters())
            with interruptions_deferred():
                observer = Observer(self.modalities, domain)
                stack.callback(observer.close)
            reader = LabelReader(self._bundle, self.modalities)
            self._console.print(f'ROS_DOMAIN_ID={domain}; starting the nodes', style='dim')
            _wait(lambda: bool(observer.log.statuses), cmi, 'cmi_node published no status')
            log = observer.log
            _wait(lambda: bool(log.latents), replay, 'no latent came')
            self._watch(log, reader, (cmi, replay))
        summary = self._summary(log, reader)
        summary |= {'seconds': round(time.monotonic() - begin_s, 1), 'started': started}
        ticks = gather_ticks(log, list(self.modalities), 1.0 / self._options.rate_hz)
        by_phase = ticks_by_phase(log, ticks, self.phases)
        return summary, draw_phases(log, by_phase, self.modalities, 1.0 / self._options.rate_hz)

    def _start(self, stack: ExitStack, module: str, parameters: Mapping[str, Any]) -> NodeProcess:
        with interruptions_deferred():
            node = NodeProcess(module, parameters)
            stack.callback(node.stop)
        return node

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

    def _watch(self, log: Log, reader: LabelReader, nodes: tuple[NodeProcess, ...]) -> None:
        """Show what happens until the schedule is over."""
        remaining = list(self.phases)
        with Screen(list(self.modalities), self.phases, self._console) as screen:
            while remaining:
                for node in nodes:
                    node.check()
                now_ns = time.time_ns()
                reader.read_generated(log)
                screen.update(log, reader, now_ns)
                if log.elapsed_s(now_ns) > remaining[0].end_s + AFTER_S:
                    phase = remaining.pop(0)
                    screen.finish_phase(self._score(log, phase))
                time.sleep(REFRESH_S)

    def _score(self, log: Log, phase: Phase) -> dict[str, Any]:
        names = list(self.modalities)
        ticks = gather_ticks(log, names, 1.0 / self._options.rate_hz)
        return score_phase(phase, ticks_by_phase(log, ticks, [phase])[phase], names)

    def _summary(self, log: Log, reader: LabelReader) -> dict[str, Any]:
        reader.read_generated(log)
        phases = [self._score(log, phase) for phase in self.phases]
        measured_hz = rate_hz(log.latents)
        singles = one_sensor_out(phases)
        reached = targets(singles, measured_hz, self._options.rate_hz)
        return {
            'ok': all(target.met for target in reached),
            'bundle': self._bundle.frame_id,
            'recordings': self._options.recordings or 'those of the bundle',
            'rate_hz': self._options.rate_hz,
            'latent_rate_hz': None if measured_hz is None else round(measured_hz, 3),
            'latency_ms': latency_ms(log.latents),
            'one_sensor_out': singles,
            'targets': [target.plain() for target in reached],
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


def _wait(condition: Any, node: NodeProcess, otherwise: str) -> None:
    end_s = time.monotonic() + START_S
    while not condition():
        node.check()
        if time.monotonic() > end_s:
            raise DemoFailed(f'{otherwise} within {START_S:.0f} s; its log: {node.log_tail()}')
        time.sleep(0.05)
