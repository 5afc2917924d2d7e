"""A model that is slower than its sensors: the newest data wins, no backlog builds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import PointCloud2

from mm_perception.bundle import Bundle
from tests.helpers.robot import NodeProcess, Robot
from tests.helpers.slow_node import FUSION_S

SLOW = Path(__file__).parents[1] / 'helpers' / 'slow_node.py'
SECONDS = 6.0
TICKS = SECONDS / FUSION_S


@pytest.mark.parametrize('trigger', ['any', 'timer'])
def test_slow_engine_builds_no_backlog(
    bundle: Bundle, robot: Robot, tmp_path: Path, trigger: str
) -> None:
    robot.watch('/diagnostics', DiagnosticArray)
    parameters = (f'bundle:={bundle.path}', 'autostart:=true', 'rate_hz:=30.0')
    node = NodeProcess(
        tmp_path / 'log', *parameters, f'trigger:={trigger}', namespace='/second', script=SLOW
    )
    try:
        robot.live = {'image', 'symbol'}
        robot.until_used(set(robot.live), 40.0)
        arrivals: list[tuple[int, int]] = []

        def note(message: PointCloud2) -> None:
            stamp = message.header.stamp
            arrivals.append((robot.now_ns(), stamp.sec * 10**9 + stamp.nanosec))

        robot.node.create_subscription(PointCloud2, 'latent', note, 50)
        robot.run(SECONDS)
        received_ns, stamps_ns = np.array(arrivals).T
        ages_s = (received_ns - stamps_ns) * 1e-9
        # A queue of six seconds of images would be almost as old as that by now. A latent is
        # as old as its fusion took, and one image period; the median ignores a busy machine.
        assert 0.2 * TICKS < len(arrivals) <= 1.2 * TICKS
        # (With trigger any, a tick of the timer that waited may find nothing newer.)
        assert (np.diff(stamps_ns) >= 0).all() and np.median(np.diff(stamps_ns)) > 0.1e9
        assert np.median(ages_s[-5:]) < 3 * FUSION_S
        replaced = [
            int(value.value)
            for entry in robot.received['/diagnostics'][-1].status
            for value in entry.values
            if value.key == 'ticks_dropped'
        ]
        assert replaced[0] > len(arrivals), 'what could not be fused in time was replaced'
        assert node.stop() == 0
    finally:
        node.kill()
