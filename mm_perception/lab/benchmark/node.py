"""The node section: latency over topics, lost images, processor and memory."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mm_perception.bundle import Bundle, load_bundle
from mm_perception.errors import MMPerceptionError
from mm_perception.lab.benchmark.echo_node import COUNT_DEPTH
from mm_perception.lab.benchmark.options import Options
from mm_perception.lab.benchmark.remote import BenchmarkFailed
from mm_perception.lab.benchmark.robot import Robot
from mm_perception.lab.benchmark.rows import (
    Case,
    Measured,
    Row,
    latency_row,
    ratio_row,
    value_row,
)
from mm_perception.lab.harness.processes import NodeProcess, free_domain, ros_environment

TICKS_PER_S = os.sysconf('SC_CLK_TCK')
UTIME, STIME = 11, 12  # fields of /proc/PID/stat after the name, in parentheses


class ProcessUse:
    """
    CPU time since it was made, and memory now.

    :param pid: of the process.
    """

    def __init__(self, pid: int) -> None:
        self._folder = Path('/proc') / str(pid)
        self._begin_s, self._cpu_begin_s = time.monotonic(), self._cpu_s()

    def cpu_percent(self) -> float:
        """CPU time of all threads over time on the clock, in % of one core."""
        elapsed_s = time.monotonic() - self._begin_s
        return 100.0 * (self._cpu_s() - self._cpu_begin_s) / elapsed_s

    def resident_mb(self) -> float:
        """Resident memory (10^6 bytes)."""
        for line in (self._folder / 'status').read_text().splitlines():
            if line.startswith('VmRSS:'):
                return int(line.split()[1]) * 1024e-6
        return 0.0

    def _cpu_s(self) -> float:
        fields = (self._folder / 'stat').read_text().rpartition(')')[2].split()
        return (int(fields[UTIME]) + int(fields[STIME])) / TICKS_PER_S


START_S = 60.0


class Scene:
    """
    Robots and nodes, on a ROS domain of their own.

    :param bundle: what the node runs.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle, self._domain = bundle, free_domain()
        os.environ.update(ros_environment(self._domain))
        # So that the nodes end with this process when it is told to end.
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))

    @contextmanager
    def robot(self, reliable: bool = False) -> Iterator[Robot]:
        """A robot; ``reliable`` is the quality of service of its camera."""
        robot = Robot(self._bundle, self._domain, reliable)
        try:
            yield robot
        finally:
            robot.close()

    @contextmanager
    def node(self, **parameters: Any) -> Iterator[NodeProcess]:
        """The node, as it starts."""
        fixed = {'bundle': str(self._bundle.path.resolve()), 'autostart': True}
        yield from _process('cmi_node', {**fixed, **parameters})

    @contextmanager
    def echo(self, **parameters: Any) -> Iterator[NodeProcess]:
        """The node of plain rclpy, as it starts."""
        yield from _process('echo_node', parameters)


def _process(name: str, parameters: Mapping[str, Any]) -> Iterator[NodeProcess]:
    process = NodeProcess(name, parameters)
    try:
        yield process
        process.check()
    finally:
        process.stop()


def wait_until(
    condition: Callable[[], Any],
    send: Callable[[float, Callable[[], Any]], None],
    process: NodeProcess,
    otherwise: str,
) -> None:
    """
    Send or listen until a condition holds.

    :param send: a method of the robot.
    :raises BenchmarkFailed: if it does not hold in time, with the last words of the process.
    :raises DemoFailed: if the process ends.
    """

    def over() -> bool:
        process.check()
        return bool(condition())

    send(START_S, over)
    if not condition():
        raise BenchmarkFailed(f'{otherwise} within {START_S:.0f} s; its log: {process.log_tail()}')


SECTION = 'node'
END_TO_END, BARE_ECHO = 'end_to_end', 'bare_echo'
ENGINES = ('onnx', 'torch')
RELIABILITIES = ('best_effort', 'reliable')
RATE_HZ = 30.0
MAX_STARTS = 5
SETTLE_S, QUIET_S = 0.5, 2.5
WARM, SHORT = 0.2, 0.1
"""Shares of ``seconds``: after which memory is to stay flat; for which engines are compared."""
MODALITIES = 4


def measure_node(options: Options) -> Measured:
    """Latency, lost images, CPU, memory and start of the node with four live sensors."""
    scene = Scene(load_bundle(options.bundle))
    rows: list[Row] = []
    notes: list[str] = []
    with tqdm(total=4 + len(ENGINES), desc='     node', unit='run', leave=False) as bar:
        rows += measure_latency(scene, options)
        bar.update()
        for reliability in RELIABILITIES:
            rows += measure_loss(scene, options.seconds, reliability)
            bar.update()
        rows += measure_start(scene, min(options.repeats, MAX_STARTS))
        bar.update()
        for engine in ENGINES:
            try:
                rows += measure_memory(scene, SHORT * options.seconds, engine)
            except MMPerceptionError as error:
                notes.append(f'{engine}: {error}')
            bar.update()
    return Measured((*rows, *over_both(rows)), tuple(notes))


def measure_latency(scene: Scene, options: Options) -> list[Row]:
    """
    From an image published to the latent with its stamp, and to its echo, by turns.

    Every value triggers a fusion, so that nothing waits for a timer.
    """
    turn_s = max(options.seconds / (2 * options.repeats), SETTLE_S)
    with scene.robot() as robot, scene.node(trigger='any') as node, scene.echo() as echo:
        turns: dict[str, list[np.ndarray]] = {END_TO_END: [], BARE_ECHO: []}
        sends = {END_TO_END: robot.send_to_node, BARE_ECHO: robot.send_to_echo}
        for name, process in ((END_TO_END, node), (BARE_ECHO, echo)):
            wait_until(lambda: robot.answered, sends[name], process, f'{name}: nothing came')
            _one_turn(robot, sends[name], SETTLE_S)
        for _ in range(options.repeats):
            for name, send in sends.items():
                turns[name].append(_one_turn(robot, send, turn_s))
        engine = robot.engine()
    return latency_rows(turns, engine)


def _one_turn(robot: Robot, send: Callable[[float], None], seconds: float) -> np.ndarray:
    send(SETTLE_S)  # until sensors that paused are used again
    robot.take_latencies_ms()
    send(seconds)
    robot.listen(SETTLE_S)
    return robot.take_latencies_ms()


def latency_rows(turns: dict[str, list[np.ndarray]], engine: str) -> list[Row]:
    """
    Rows of latencies and their ratios.

    :param turns: per case a list of latencies (ms), NaN for an image without an answer.
    :raises BenchmarkFailed: if a turn has no answer at all.
    """
    cases = {
        END_TO_END: Case(END_TO_END, engine, modalities=MODALITIES),
        BARE_ECHO: Case(BARE_ECHO, 'rclpy'),
    }
    rows, answered = [], {}
    for name, case in cases.items():
        answered[name] = [turn[np.isfinite(turn)] for turn in turns[name]]
        if not all(len(turn) for turn in answered[name]):
            raise BenchmarkFailed(f'{name}: no image of a whole turn was answered; try again')
        rows.append(latency_row(SECTION, case, answered[name], distribution=True))
        shares = [100.0 * np.isfinite(turn).mean() for turn in turns[name]]
        rows.append(value_row(SECTION, case._replace(case=f'{name}:answered'), shares, '%'))
    for percent in (50, 99):
        case = cases[END_TO_END]._replace(case=f'{END_TO_END}_over_{BARE_ECHO}:p{percent}')
        pair = answered[END_TO_END], answered[BARE_ECHO]
        rows.append(ratio_row(SECTION, case, *pair, (percent, percent)))
    return rows


def measure_loss(scene: Scene, seconds: float, reliability: str) -> list[Row]:
    """
    Lost images at 30 Hz, and what the node takes meanwhile at ``rate_hz`` 30.

    The node's own count stands beside that of a plain subscriber of the same camera. Both have
    queues of a second: with the node's usual one a newer image replaces one that still waits.
    """
    reliable = reliability == 'reliable'
    parameters = {'rate_hz': RATE_HZ}
    qos = {
        'qos_overrides./image.subscription.reliability': reliability,
        'qos_overrides./image.subscription.depth': COUNT_DEPTH,
    }
    with (
        scene.robot(reliable) as robot,
        scene.node(**parameters, **qos) as node,
        scene.echo(role='count', reliable=reliable) as counter,
    ):
        wait_until(lambda: robot.answered, robot.send_to_node, node, 'no latent came')
        wait_until(lambda: robot.images_counted, robot.send_to_node, counter, 'no image came')
        before, use = _settled_counts(robot), ProcessUse(node.pid)
        robot.send_to_node(WARM * seconds)
        warm_mb = use.resident_mb()
        robot.send_to_node((1.0 - WARM) * seconds)
        cpu, end_mb = use.cpu_percent(), use.resident_mb()
        sent, received, counted = _settled_counts(robot) - before
        case = Case('', robot.engine(), modalities=MODALITIES)
    figures = [
        (f'images_sent:{reliability}', sent, 'images'),
        (f'images_lost:{reliability}', sent - received, 'images'),
        (f'images_lost:{reliability}:plain_subscriber', sent - counted, 'images'),
        (f'cpu_percent:{reliability}', cpu, '% of one core'),
        (f'memory_after_warm_up:{reliability}', warm_mb, 'MB'),
        (f'memory_growth:{reliability}', end_mb - warm_mb, 'MB'),
    ]
    return [value_row(SECTION, case._replace(case=name), [v], unit) for name, v, unit in figures]


def _settled_counts(robot: Robot) -> np.ndarray:
    """Images sent, received by the node and by the plain subscriber, when none is on its way."""

    def counts() -> tuple[int, int, int]:
        return robot.images_sent, robot.images_received(), robot.images_counted

    robot.listen(QUIET_S, lambda: len(set(counts())) == 1)
    return np.array(counts())


def over_both(rows: Sequence[Row]) -> list[Row]:
    """Rows of both reliabilities together: images lost in all, and the larger of the others."""
    together = []
    for name, combine in (('images_lost', sum), ('cpu_percent', max), ('memory_growth', max)):
        pair = [row for row in rows if row.case in (f'{name}:{r}' for r in RELIABILITIES)]
        value = combine(row.value or 0.0 for row in pair)
        together.append(value_row(SECTION, pair[0].key._replace(case=name), [value], pair[0].unit))
    return together


def measure_start(scene: Scene, repeats: int) -> list[Row]:
    """Time from the start of the process to its first latent."""
    durations_s = []
    for _ in range(repeats):
        with scene.robot() as robot:
            begin_s = time.monotonic()
            with scene.node() as node:
                wait_until(lambda: robot.answered, robot.send_to_node, node, 'no latent came')
                durations_s.append(time.monotonic() - begin_s)
                robot.send_to_node(QUIET_S, robot.engine)
                engine = robot.engine()
    case = Case('first_latent', engine, modalities=MODALITIES)
    return [value_row(SECTION, case, durations_s, 's')]


def measure_memory(scene: Scene, seconds: float, engine: str) -> list[Row]:
    """Resident memory of the node with one engine, after some seconds of work."""
    with scene.robot() as robot, scene.node(engine=engine, rate_hz=RATE_HZ) as node:
        wait_until(lambda: robot.answered, robot.send_to_node, node, 'no latent came')
        robot.send_to_node(seconds)
        resident_mb = ProcessUse(node.pid).resident_mb()
    case = Case('memory', engine, modalities=MODALITIES)
    return [value_row(SECTION, case, [resident_mb], 'MB')]
