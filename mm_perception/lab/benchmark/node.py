"""The node section: latency over topics, lost images, processor and memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any

import numpy as np
from tqdm import tqdm

from mm_perception.bundle import Bundle, load_bundle
from mm_perception.errors import MMPerceptionError
from mm_perception.lab.benchmark.echo_node import COUNT_DEPTH
from mm_perception.lab.benchmark.measurements import (
    Case,
    Measurement,
    Result,
    figure,
    latency,
    ratio,
)
from mm_perception.lab.benchmark.options import Options
from mm_perception.lab.benchmark.remote import BenchmarkFailed
from mm_perception.lab.benchmark.robot import Robot
from mm_perception.lab.harness.processes import NodeProcess, isolate, running


class Scene:
    """
    Robots and nodes, on a ROS domain of their own.

    :param bundle: what the node runs.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle, self._domain = bundle, isolate()

    @contextmanager
    def robot(self, reliable: bool = False) -> Iterator[Robot]:
        """A robot; ``reliable`` is the quality of service of its camera."""
        with closing(Robot(self._bundle, self._domain, reliable)) as robot:
            yield robot

    def node(self, **parameters: Any) -> AbstractContextManager[NodeProcess]:
        """The node, as it starts."""
        fixed = {'bundle': str(self._bundle.path.resolve()), 'autostart': True}
        return running('cmi_node', {**fixed, **parameters})

    def echo(self, **parameters: Any) -> AbstractContextManager[NodeProcess]:
        """The node of plain rclpy, as it starts."""
        return running('echo_node', parameters)


END_TO_END, BARE_ECHO = 'end_to_end', 'bare_echo'
ENGINES = ('onnx', 'torch')
RELIABILITIES = ('best_effort', 'reliable')
RATE_HZ = 30.0
MAX_STARTS = 5
SETTLE_S, QUIET_S = 0.5, 2.5
WARM, SHORT = 0.2, 0.1
"""Shares of ``seconds``: after which memory is to stay flat; for which engines are compared."""
MODALITIES = 4


def measure_node(options: Options) -> Result:
    """Latency, lost images, CPU, memory and start of the node with four live sensors."""
    scene = Scene(load_bundle(options.bundle))
    rows: list[Measurement] = []
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
    return rows + over_both(rows), notes


def measure_latency(scene: Scene, options: Options) -> list[Measurement]:
    """
    From an image published to the latent with its stamp, and to its echo, alternately.

    Every value triggers a fusion, so that nothing waits for a timer.
    """
    seconds = max(options.seconds / (2 * options.repeats), SETTLE_S)
    with scene.robot() as robot, scene.node(trigger='any') as node, scene.echo() as echo:
        repeats: dict[str, list[np.ndarray]] = {END_TO_END: [], BARE_ECHO: []}
        feeds = {END_TO_END: robot.feed_node, BARE_ECHO: robot.feed_echo}
        for name, process in ((END_TO_END, node), (BARE_ECHO, echo)):
            feeds[name]()
            robot.expect(robot.answered, process, f'{name}: nothing came')
            _one_repeat(robot, feeds[name], SETTLE_S)
        for _ in range(options.repeats):
            for name, feed in feeds.items():
                repeats[name].append(_one_repeat(robot, feed, seconds))
        engine = robot.engine()
    return latency_rows(repeats, engine)


def _one_repeat(robot: Robot, feed: Callable[[], None], seconds: float) -> np.ndarray:
    feed()
    robot.run(SETTLE_S)  # until sensors that paused are used again
    robot.take_latencies_ms()
    robot.run(seconds)
    robot.rest()
    robot.run(SETTLE_S)
    return robot.take_latencies_ms()


def latency_rows(repeats: dict[str, list[np.ndarray]], engine: str) -> list[Measurement]:
    """
    Give the latencies and their ratios.

    :param repeats: per case a list of latencies (ms), NaN for an image without an answer.
    :raises BenchmarkFailed: if a repeat has no answer at all.
    """
    cases = {
        END_TO_END: Case(END_TO_END, engine, modalities=MODALITIES),
        BARE_ECHO: Case(BARE_ECHO, 'rclpy'),
    }
    rows, answered = [], {}
    for name, case in cases.items():
        answered[name] = [times[np.isfinite(times)] for times in repeats[name]]
        if not all(len(times) for times in answered[name]):
            raise BenchmarkFailed(f'{name}: no image of a whole repeat was answered; try again')
        rows.append(latency(case, answered[name], distribution=True))
        shares = [100.0 * np.isfinite(times).mean() for times in repeats[name]]
        rows.append(figure(case._replace(case=f'{name}:answered'), shares, '%'))
    for percent in (50, 99):
        case = cases[END_TO_END]._replace(case=f'{END_TO_END}_over_{BARE_ECHO}:p{percent}')
        pair = answered[END_TO_END], answered[BARE_ECHO]
        rows.append(ratio(case, *pair, (percent, percent)))
    return rows


def measure_loss(scene: Scene, seconds: float, reliability: str) -> list[Measurement]:
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
        robot.feed_node()
        robot.expect(robot.answered, node, 'no latent came')
        robot.expect(lambda: robot.images_counted, counter, 'no image came')
        before = _settled_counts(robot)
        node.cpu_percent()
        robot.feed_node()
        robot.run(WARM * seconds)
        warm_mb = node.resident_bytes() * 1e-6
        robot.run((1.0 - WARM) * seconds)
        cpu, end_mb = node.cpu_percent(), node.resident_bytes() * 1e-6
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
    return [figure(case._replace(case=name), [v], unit) for name, v, unit in figures]


def _settled_counts(robot: Robot) -> np.ndarray:
    """Images sent, received by the node and by the plain subscriber, when none is on its way."""

    def counts() -> tuple[int, int, int]:
        return robot.images_sent, robot.images_received(), robot.images_counted

    robot.rest()
    robot.wait(lambda: len(set(counts())) == 1, QUIET_S)
    return np.array(counts())


def over_both(rows: Sequence[Measurement]) -> list[Measurement]:
    """Give both reliabilities together: images lost in all, and the larger of the others."""
    together = []
    for name, combine in (('images_lost', sum), ('cpu_percent', max), ('memory_growth', max)):
        pair = [row for row in rows if row.case in (f'{name}:{r}' for r in RELIABILITIES)]
        value = combine(row.value or 0.0 for row in pair)
        together.append(figure(pair[0].key._replace(case=name), [value], pair[0].unit))
    return together


def measure_start(scene: Scene, repeats: int) -> list[Measurement]:
    """Time from the start of the process to its first latent."""
    durations_s = []
    for _ in range(repeats):
        with scene.robot() as robot:
            begin_s = time.monotonic()
            with scene.node() as node:
                robot.feed_node()
                robot.expect(robot.answered, node, 'no latent came')
                durations_s.append(time.monotonic() - begin_s)
                robot.wait(robot.engine, QUIET_S)
                engine = robot.engine()
    case = Case('first_latent', engine, modalities=MODALITIES)
    return [figure(case, durations_s, 's')]


def measure_memory(scene: Scene, seconds: float, engine: str) -> list[Measurement]:
    """Resident memory of the node with one engine, after some seconds of work."""
    with scene.robot() as robot, scene.node(engine=engine, rate_hz=RATE_HZ) as node:
        robot.feed_node()
        robot.expect(robot.answered, node, 'no latent came')
        robot.run(seconds)
        resident_mb = node.resident_bytes() * 1e-6
    case = Case('memory', engine, modalities=MODALITIES)
    return [figure(case, [resident_mb], 'MB')]
