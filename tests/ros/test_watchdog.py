"""Ticks that cease, in every way that we know: said within 2 s, and healed or ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.duration import Duration
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.qos import LivelinessPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from mm_perception.bundle import Bundle
from mm_perception.lab.digits.recordings import save_recordings
from mm_perception.ros.cmi.inputs import Delays
from mm_perception.ros.cmi.watchdog import Pulse, TickWatch
from mm_perception.ros.codecs import time_message
from mm_perception.ros.lifecycle import EXIT_STALLED
from tests.helpers.robot import NodeProcess, Robot
from tests.helpers.spoken_digits import make_recordings

HELPERS = Path(__file__).parents[1] / 'helpers'
WITHIN_S = 2.0
SECOND_NS = 1_000_000_000
OK, STALE, ERROR = DiagnosticStatus.OK, DiagnosticStatus.STALE, DiagnosticStatus.ERROR


class Stalling:
    """A node whose ticks can be stopped, and what its diagnostics say of it."""

    def __init__(self, folder: Path, robot: Robot, bundle: Bundle, *parameters: str) -> None:
        self.file = folder / 'stall'
        self.robot = robot
        robot.watch('/diagnostics', DiagnosticArray)
        os.environ['STALL'] = str(self.file)
        usual = (f'bundle:={bundle.path}', 'autostart:=true', 'stalled.after_s:=1.5')
        script = HELPERS / 'stalling_node.py'
        self.node = NodeProcess(
            folder / 'log', *usual, *parameters, namespace='/second', script=script
        )
        robot.live = {'image'}
        robot.until_used({'image'}, 40.0)

    def stop_ticks(self, how: str) -> None:
        """Let the ticks stop in some way; the diagnostics have to say so in time."""
        self.file.write_text(how)
        self.until_error(how)

    def until_error(self, how: str, says: str = 'no finished tick') -> None:
        """Go on until the diagnostics say that there are no ticks."""
        begin_s = time.monotonic()
        self.robot.until(lambda: self.level() == ERROR and says in self.said(), how, 10.0)
        took_s = time.monotonic() - begin_s
        print(f'{how}: said after {took_s:.2f} s: {self.said()}')
        assert took_s < WITHIN_S
        assert self.level('image') == STALE, 'an old verdict is not repeated'

    def until_well(self, how: str) -> None:
        """Go on until the ticks are back."""
        self.robot.received['latent'].clear()
        self.robot.until(lambda: self.level() == OK, f'{how}: ok', 20.0)
        self.robot.fresh('latent')

    def level(self, name: str = 'fusion') -> bytes | None:
        """Level of an entry of the newest diagnostics."""
        entry = self._entry(name)
        return None if entry is None else entry.level

    def said(self) -> str:
        """What the newest diagnostics say about the node."""
        entry = self._entry('fusion')
        return '' if entry is None else str(entry.message)

    def _entry(self, name: str) -> Any:
        messages = self.robot.received['/diagnostics']
        entries = messages[-1].status if messages else []
        return next((e for e in entries if e.name.endswith(f': {name}')), None)


@pytest.fixture
def stall(tmp_path: Path, robot: Robot, bundle: Bundle) -> Iterator[Callable[..., Stalling]]:
    """Start a node whose ticks can be stopped: ``stall(*parameters)``."""
    started = []

    def begin(*parameters: str) -> Stalling:
        started.append(Stalling(tmp_path, robot, bundle, *parameters))
        return started[-1]

    yield begin
    for each in started:
        each.node.kill()


def test_watchdog_says_and_heals_what_can_be_healed(stall: Callable[..., Stalling]) -> None:
    stalling = stall()
    robot = stalling.robot
    for how in ('hang once', 'end of the thread', 'raise'):
        stalling.stop_ticks(how)
        robot.until(lambda: 'in another thread' in stalling.node.log, 'restart', 4.0)
        if how != 'hang once':
            stalling.file.unlink()
        stalling.until_well(how)
        stalling.file.unlink(missing_ok=True)
    assert 'ZeroDivisionError' in stalling.node.log
    robot.set_parameter('use_sim_time', True)
    stalling.until_error('use_sim_time without /clock', '/clock has no publisher')
    clock = robot.node.create_publisher(Clock, '/clock', 1)
    stalling.until_error('/clock that stands still', 'stood still')
    time_ns = [50 * SECOND_NS]

    def advance() -> bool:
        time_ns[0] += SECOND_NS // 50
        clock.publish(Clock(clock=time_message(time_ns[0])))
        return stalling.level() != ERROR

    robot.until(advance, 'simulated time', 10.0)
    robot.set_parameter('use_sim_time', False)
    stalling.until_well('the clock of the machine again')
    stalling.file.write_text('executor')  # which the ticks do without
    robot.run(1.5)
    stalling.until_well('executor that is blocked')
    assert stalling.node.stop(signal.SIGTERM) == EXIT_STALLED, 'a blocked executor ends no node'


@pytest.mark.parametrize(
    ('how', 'reaction', 'code'),
    [
        ('hang', 'restart', EXIT_STALLED),
        ('lock', 'exit', EXIT_STALLED),
        ('lock of the inputs', 'restart', EXIT_STALLED),
        ('interpreter held', 'exit', 1),
    ],
)
def test_watchdog_ends_a_node_that_cannot_be_healed(
    stall: Callable[..., Stalling], how: str, reaction: str, code: int
) -> None:
    stalling = stall(f'stalled.reaction:={reaction}')
    if how == 'interpreter held':  # nothing in Python runs, not even the watchdog
        stalling.file.write_text(how)
    else:
        stalling.stop_ticks(how)
    assert stalling.node.process.wait(12.0) == code
    assert 'stalling_node.py' in stalling.node.log, 'where the threads were'


def test_watchdog_that_only_reports_lets_a_node_end_in_order(
    stall: Callable[..., Stalling],
) -> None:
    stalling = stall('stalled.reaction:=report')
    stalling.stop_ticks('hang')
    stalling.robot.run(2.0)
    assert stalling.level() == ERROR
    assert stalling.node.stop(signal.SIGINT) == 0, 'a tick that hangs holds up no end'
    assert 'it is left alone' in stalling.node.log


def test_heartbeat_misses_its_deadline_when_the_node_stands_still(
    stall: Callable[..., Stalling],
) -> None:
    stalling = stall()
    robot = stalling.robot
    missed: list[str] = []
    beats: list[Header] = []
    profile = QoSProfile(
        depth=1,
        deadline=Duration(seconds=1),
        liveliness=LivelinessPolicy.MANUAL_BY_TOPIC,
        liveliness_lease_duration=Duration(seconds=2),
    )
    events = SubscriptionEventCallbacks(
        deadline=lambda info: missed.append('deadline'),
        liveliness=lambda info: missed.append('lease') if info.not_alive_count else None,
    )
    robot.node.create_subscription(
        Header, 'cmi/heartbeat', beats.append, profile, event_callbacks=events
    )
    robot.until(lambda: len(beats) > 3, 'heartbeats')
    missed.clear()
    stalling.node.process.send_signal(signal.SIGSTOP)
    robot.until(lambda: {'deadline', 'lease'} <= set(missed), 'missed heartbeats', 4.0)
    robot.run(1.0)
    stalling.node.process.send_signal(signal.SIGCONT)
    beats.clear()
    # A stopped reader may lose a sensor's shared memory (docs/reliability.md); ticks go on.
    robot.until(lambda: len(beats) > 3, 'heartbeats after SIGCONT', 20.0)
    robot.until(lambda: stalling.level() != ERROR, 'no alarm', 20.0)
    assert 'another thread' not in stalling.node.log, 'nothing hung: the process was stopped'


def test_message_that_waited_while_the_node_was_stopped_is_old(
    stall: Callable[..., Stalling],
) -> None:
    stalling = stall('rate_hz:=50')
    robot = stalling.robot
    robot.live = {'image', 'symbol'}
    robot.until_used({'image', 'symbol'})
    stalling.node.process.send_signal(signal.SIGSTOP)
    robot.run(0.5)
    robot.live = set()
    robot.run(2.0)  # the last label, which has no stamp, is by now older than max_age_s
    robot.received['cmi/status'].clear()
    stalling.node.process.send_signal(signal.SIGCONT)
    robot.run(1.0)
    used = [
        value.value
        for message in robot.received['cmi/status']
        for entry in message.status if entry.name == 'symbol'
        for value in entry.values if value.key == 'used'
    ]  # fmt: skip
    assert used and set(used) == {'false'}


@pytest.fixture
def moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file: by how many seconds the wall clock is moved of processes that start from now on."""
    if shutil.which('cc') is None:
        pytest.skip('needs a C compiler for the shim')
    shim, file = tmp_path / 'shim.so', tmp_path / 'moved'
    subprocess.run(
        ['cc', '-shared', '-fPIC', '-o', shim, HELPERS / 'clock_shim.c', '-ldl'], check=True
    )
    monkeypatch.setenv('LD_PRELOAD', str(shim))
    monkeypatch.setenv('CLOCK_SHIM', str(file))
    return file


def test_wall_clock_set_back_stops_no_ticks(moved: Path, stall: Callable[..., Stalling]) -> None:
    stalling = stall('rate_hz:=20')
    robot = stalling.robot
    for seconds in (-20, 20):
        moved.write_text(str(seconds))
        robot.received['cmi/status'].clear()
        robot.run(2.0)
        assert len(robot.received['cmi/status']) > 10, f'ticks, the clock moved by {seconds} s'
    assert 'time ran backwards by' in stalling.node.log


def test_wall_clock_set_back_stops_no_replay(
    moved: Path, robot: Robot, start: Callable[..., NodeProcess]
) -> None:
    recordings = tmp_recordings(moved.parent)
    node = start(
        f'recordings:={recordings}',
        'camera_rate_hz:=20',
        'image_reliability:=reliable',
        module='replay_node',
    )
    robot.watch('image', Image)
    robot.until(lambda: robot.received['image'], 'images', 20.0)
    moved.write_text('-20')
    robot.received['image'].clear()
    robot.run(2.0)
    assert len(robot.received['image']) > 10
    assert 'played from the start' in node.log


def tmp_recordings(folder: Path) -> Path:
    save_recordings(folder / 'recordings', make_recordings())
    return folder / 'recordings'


# What the verdicts come from, without threads


def pulses(**values: Any) -> Pulse:
    return Pulse(**{'finished': 1, 'finished_s': 0.0, 'period_s': 0.1, **values})


def test_watch_counts_no_time_in_which_the_process_stood_still() -> None:
    watch = TickWatch(0.0)
    assert watch.look(0.25, pulses()) is None
    assert watch.look(9.0, pulses()) is None, 'stopped for 9 s: no tick could be finished'
    seen = [watch.look(9.0 + 0.25 * k, pulses()) for k in range(1, 8)]
    assert [alarm is not None for alarm in seen] == [False] * 4 + [True] * 3
    assert all(alarm.curable for alarm in seen[4:] if alarm)


def test_watch_waits_for_slow_rates_and_slow_simulations() -> None:
    watch = TickWatch(0.0)
    steps = [0.25 * k for k in range(1, 25)]
    assert all(watch.look(t, pulses(period_s=2.0)) is None for t in steps)
    watch = TickWatch(0.0)
    for t in steps:  # a hundredth of real time: the next tick is due in 10 s
        alarm = watch.look(t, pulses(ros_time_ns=int(t * 1e7), clock_publishers=1))
        assert alarm is None


def test_delays_find_what_waited_whatever_the_clocks_differ_by() -> None:
    for offset_ns in (0, 3600 * SECOND_NS, -3600 * SECOND_NS):
        delays = Delays()
        now_ns = 10**18
        for k in range(100):
            now_ns += SECOND_NS // 10
            waited_ns = delays.delay_ns(now_ns - 1_000_000 - k % 3 + offset_ns, now_ns)
        assert waited_ns < 1000
        assert abs(delays.delay_ns(now_ns - 6 * SECOND_NS + offset_ns, now_ns) - 6e9) < 2e6
        assert delays.delay_ns(0, now_ns) == 0, 'a middleware that does not say'
    assert Delays().delay_ns(10**18 - 5 * SECOND_NS, 10**18) == 5 * SECOND_NS, 'kept for the late'
