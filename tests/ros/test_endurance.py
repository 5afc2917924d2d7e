"""Many lives, many reloads, floods, and killed processes: nothing is lost, nothing grows."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import String
from std_srvs.srv import Trigger

from mm_perception.bundle import Bundle, save_bundle
from tests.helpers.robot import ROOT, SENSORS, NodeProcess, Robot
from tests.helpers.small_bundle import make_bundle

CYCLES = int(os.environ.get('LIFECYCLE_CYCLES', '100'))
RELOADS = 50
SECONDS, WINDOW_S = 40.0, 4.0
BACK_S = 5.0
ALL = set(SENSORS)
ENVIRONMENT = {**os.environ, 'PYTHONPATH': f'{ROOT}:{ROOT / "test"}', 'OMP_NUM_THREADS': '1'}


def growth(values: Any) -> float:
    """Growth from the second third to the end, relative."""
    third = len(values) // 3
    part = max(third // 2, 1)
    return float(np.median(values[-part:]) / np.median(values[third : third + part]) - 1.0)


@pytest.mark.timeout(600)
def test_lifecycle_cycles_leave_nothing_behind(bundle: Bundle) -> None:
    command = [
        sys.executable,
        '-m',
        'tests.helpers.lifecycle_cycles',
        str(bundle.path),
        str(CYCLES),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'Traceback' not in done.stderr
    seen = json.loads(done.stdout)
    assert len(seen) == CYCLES
    first, last = seen[CYCLES // 10], seen[-1]
    for name in set(first) - {'memory_kib', 'threads'}:
        assert last[name] <= first[name], name
    assert last['threads'] <= first['threads'] + 4, 'those of the middleware come and go'
    assert growth([step['memory_kib'] for step in seen]) < 0.02


def times_of_ticks(robot: Robot) -> list[float]:
    """Seconds at which the node published its status, from now on."""
    ticks: list[float] = []

    def tick(_: DiagnosticArray, info: dict[str, int]) -> None:
        ticks.append(info['source_timestamp'] * 1e-9)

    robot.node.create_subscription(DiagnosticArray, 'cmi/status', tick, 50)
    return ticks


def test_reload_of_the_shipped_bundle_loses_no_tick(
    start: Callable[..., NodeProcess], robot: Robot
) -> None:
    made_up = 'health.exclude_inconsistent:=false'  # the robot's sensors show no common digit
    start('bundle:=mhd', 'autostart:=true', 'rate_hz:=20', made_up)
    robot.live = set(ALL)
    robot.until_used(ALL, 40.0)
    ticks = times_of_ticks(robot)
    took_s = []
    for _ in range(16):
        begin_s = time.monotonic()
        answer = robot.call(Trigger, 'cmi/reload_model', Trigger.Request())
        took_s.append(time.monotonic() - begin_s)
        assert answer.success, answer.message
        robot.run(0.3)
    gaps_s = np.diff(ticks)
    late = int((gaps_s > 2.0 / 20.0).sum())
    print(f'16 reloads of mhd of {min(took_s):.2f} s and more, longest gap {gaps_s.max():.3f} s,'
          f' {late} of more than two periods')  # fmt: skip
    assert np.median(gaps_s) < 1.2 / 20.0
    # A load that held up the ticks would make a gap as long as itself, on a slow machine too, each
    # of the 16 times; a machine that others use stands still now and then.
    long = int((gaps_s > max(2.0 / 20.0, 0.5 * min(took_s))).sum())
    assert long <= 5


def test_reload_asked_for_hundreds_of_times_is_done_once_at_a_time(
    bundle: Bundle, start: Callable[..., NodeProcess], robot: Robot
) -> None:
    node = start(f'bundle:={bundle.path}', 'autostart:=true', 'rate_hz:=20')
    robot.live = {'image'}
    robot.until_used({'image'}, 40.0)
    assert robot.call(Trigger, 'cmi/reload_model', Trigger.Request()).success
    patient = QoSProfile(depth=1000)
    client = robot.node.create_client(Trigger, 'cmi/reload_model', qos_profile=patient)
    robot.until(client.service_is_ready, 'service')
    robot.run(0.5)
    before, ticks = node.resident_bytes(), times_of_ticks(robot)
    answers = []
    for _ in range(400):
        answers.append(client.call_async(Trigger.Request()))
        robot.step()
    robot.until(lambda: all(a.done() for a in answers), 'answers', 20.0)
    said = [a.result().message for a in answers]
    loaded = [message for message in said if message == bundle.frame_id]
    assert loaded and all('already loading' in m for m in said if m not in loaded)
    assert len(loaded) < 100
    assert node.resident_bytes() - before < 200 << 20
    assert np.diff(ticks).max() < 1.0 and np.median(np.diff(ticks)) < 1.5 / 20.0
    last = client.call_async(Trigger.Request())
    assert robot.change_state(Transition.TRANSITION_DEACTIVATE)
    assert robot.change_state(Transition.TRANSITION_CLEANUP)
    robot.until(last.done, 'answer of a load during clean-up')
    assert node.stop() == 0 and 'Traceback' not in node.log


@pytest.mark.timeout(300)
def test_reload_again_and_again_under_load(
    bundle: Bundle, start: Callable[..., NodeProcess], robot: Robot, tmp_path: Path
) -> None:
    place = tmp_path / 'robot_model'
    shutil.copytree(bundle.path, place)
    others = [save_bundle(make_bundle(seed=k), tmp_path / f'b{k}', '#\n') for k in range(2)]
    node = start(f'bundle:={place}', 'autostart:=true', 'rate_hz:=20')
    robot.live = set(ALL)
    robot.until_used(ALL, 40.0)
    infos: list[str] = []
    latched = QoSProfile(depth=RELOADS, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    robot.node.create_subscription(
        String, 'cmi/model_info', lambda m: infos.append(m.data), latched
    )
    ticks = times_of_ticks(robot)
    robot.until(lambda: infos and ticks, 'model_info')
    memory, frames, begin_s = [], [], time.monotonic()
    for k in range(RELOADS):
        broken = k % 5 == 4
        source = others[k % 2].path
        for file in source.iterdir():
            shutil.copy(file, place / file.name)
        if broken:
            weights = place / 'model.safetensors'
            weights.write_bytes(weights.read_bytes()[:-4])
        answer = robot.call(Trigger, 'cmi/reload_model', Trigger.Request())
        assert answer.success is not broken, answer.message
        assert broken == ('kept the old model' in answer.message)
        if not broken:
            frames.append(others[k % 2].frame_id)
        robot.run(0.1)
        memory.append(node.resident_bytes() / 2**20)
    robot.run(0.3)
    seconds = time.monotonic() - begin_s
    assert robot.fresh('latent').header.frame_id == frames[-1]
    assert [json.loads(info)['frame_id'] for info in infos][1:] == frames
    robot.until_used(ALL)
    gaps_s = np.diff(ticks)
    print(f'{RELOADS} reloads, longest gap {gaps_s.max():.3f} s, {len(ticks) / seconds:.2f} Hz,'
          f' memory {memory[0]:.0f} to {memory[-1]:.0f} MiB')  # fmt: skip
    assert len(ticks) > 0.85 * 20.0 * seconds, 'ticks were lost'
    assert np.median(gaps_s) < 1.5 / 20.0
    assert growth(memory) < 0.02
    assert node.stop() == 0 and 'Traceback' not in node.log


# Load


TEN_TIMES = {'image': 300, 'sound': 200, 'trajectory': 50, 'symbol': 50}
FLOOD = {'symbol': 1000, 'trajectory': 1000, 'sound': 1000}


@pytest.mark.parametrize('rates_hz', [TEN_TIMES, FLOOD], ids=['ten times', '1 kHz'])
def test_load_changes_neither_rate_nor_memory(
    bundle: Bundle, start: Callable[..., NodeProcess], robot: Robot, rates_hz: dict[str, int]
) -> None:
    node = start(f'bundle:={bundle.path}', 'autostart:=true', 'rate_hz:=10')
    robot.live = {'image'}
    robot.until_used({'image'}, 40.0)
    robot.live = set()
    memory: list[float] = []
    ages_s: list[float] = []
    program = [sys.executable, '-m', 'tests.helpers.flood', '/second', str(SECONDS)]
    with subprocess.Popen(
        [*program, json.dumps(rates_hz)], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as flood:
        robot.until(lambda: robot.used() - {'image'}, 'data of the flood', 20.0)
        taken: list[PointCloud2] = []
        robot.node.create_subscription(PointCloud2, 'latent', taken.append, 50)
        robot.until(lambda: taken, 'latent')

        def rate_hz() -> float:
            """Latents per second of the next seconds, in which ages and memory are noted."""
            taken.clear()
            begin_s = time.monotonic()
            while time.monotonic() - begin_s < WINDOW_S:
                robot.run(0.2)
                memory.append(node.resident_bytes() / 2**20)
                stamp = robot.fresh('latent').header.stamp
                ages_s.append(robot.now_ns() * 1e-9 - stamp.sec - stamp.nanosec * 1e-9)
            return len(taken) / (time.monotonic() - begin_s)

        robot.until(lambda: rate_hz() > 9.0, 'the rate under the flood', SECONDS - 2 * WINDOW_S)
        flood.send_signal(signal.SIGINT)
        sent = json.loads(flood.communicate(timeout=60)[0])
    print(f'sent {sent}; median age {np.median(ages_s):.3f} s; memory {memory[0]:.0f} to'
          f' {memory[-1]:.0f} MiB')  # fmt: skip
    assert np.median(ages_s) < 0.5, 'the newest data wins'
    assert growth(memory) < 0.02
    robot.live = set(ALL)
    robot.until_used(ALL, 20.0)
    assert node.stop() == 0 and 'Traceback' not in node.log


# Killed processes


def test_killed_processes_leave_the_others_at_work(
    bundle: Bundle, start: Callable[..., NodeProcess], robot: Robot
) -> None:
    rng = random.Random(int(time.time()))
    replay = lambda: start('bundle:=mhd', module='replay_node')  # noqa: E731
    node, sensors = start(f'bundle:={bundle.path}', 'autostart:=true'), replay()
    begin_s = time.monotonic()
    robot.fresh('latent', timeout_s=40.0)
    first_s = time.monotonic() - begin_s
    for _ in range(2):
        robot.run(rng.uniform(0.2, 1.0))
        sensors.kill()
        robot.until(lambda: not robot.used(), 'all sensors stale', 15.0)
        assert node.process.poll() is None
        sensors = replay()
        robot.until(lambda: robot.used() == ALL, 'all sensors back', 20.0)
    limit_s = max(2 * BACK_S, 3 * first_s)  # twice what an idle machine takes
    for _ in range(2):
        robot.run(rng.uniform(0.2, 1.0))
        node.kill()
        robot.run(0.3)  # what it sent before is taken
        assert sensors.process.poll() is None
        node = start(f'bundle:={bundle.path}', 'autostart:=true')
        robot.received['latent'].clear()
        begin_s = time.monotonic()
        robot.fresh('latent', timeout_s=40.0)
        back_s = time.monotonic() - begin_s
        print(f'a latent {back_s:.1f} s after the start')
        assert back_s < limit_s
    assert 'Traceback' not in node.log + sensors.log


def test_killed_consumer_leaves_the_node_at_work(
    bundle: Bundle, start: Callable[..., NodeProcess], robot: Robot
) -> None:
    node = start(f'bundle:={bundle.path}', 'autostart:=true', 'rate_hz:=20')
    robot.live = {'image'}
    robot.fresh('latent', timeout_s=40.0)
    rng = random.Random(int(time.time()))
    program = [sys.executable, '-m', 'tests.helpers.flood', '/second', '60', '{"symbol": 5}']
    for _ in range(2):
        consumer = subprocess.Popen(program, env=ENVIRONMENT)
        robot.until(lambda: 'symbol' in robot.used(), 'the consumer', 20.0)
        robot.run(rng.uniform(0.1, 1.0))
        consumer.kill()
        consumer.wait()
        robot.received['latent'].clear()
        # Held up by a reliable reader that is gone, this would take half a minute.
        robot.until(lambda: len(robot.received['latent']) > 30, 'latents at their rate', 6.0)
    robot.until(lambda: robot.used() == {'image'}, 'its sensor is missing')
    assert node.stop() == 0 and 'Traceback' not in node.log


@pytest.mark.parametrize('number', [2, 15], ids=['SIGINT', 'SIGTERM'])
def test_signals_end_the_node_at_any_moment(
    bundle: Bundle, start: Callable[..., NodeProcess], robot: Robot, number: int
) -> None:
    rng = random.Random(number)
    names = robot.node.get_node_names_and_namespaces
    for wait_s in (rng.uniform(0.3, 1.5), rng.uniform(1.5, 4.0)):
        node = start(f'bundle:={bundle.path}', 'autostart:=true', 'rate_hz:=100')
        robot.live = {'image', 'symbol'}
        # Before, Python ends it in its own way.
        robot.until(lambda: ('cmi', '/second') in names(), 'node', 40.0)
        robot.run(wait_s)
        assert node.stop(number) in (0, -number, 128 + number)
        assert 'Traceback' not in node.log
    robot.until(lambda: not robot.node.count_publishers('/second/latent'), 'its end', 40.0)
    robot.run(0.5)  # latents of the one before are still on their way
    node = start(f'bundle:={bundle.path}', 'autostart:=true', 'rate_hz:=100')
    robot.fresh('latent', timeout_s=40.0)
    assert node.stop(number) == 0
    assert 'Traceback' not in node.log
