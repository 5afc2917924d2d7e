"""The launch file of the pendulum: three nodes play episodes, and the policy acts in them."""

from __future__ import annotations

import json
import unittest

import pytest

pytest.importorskip('launch_testing', reason='launch_testing comes with a ROS 2 installation only')

from std_msgs.msg import String

from tests.helpers.acting_pendulum import save_pendulum
from tests.helpers.launching import describe
from tests.helpers.robot import Robot


@pytest.mark.launch_test
def generate_test_description():
    return describe('pendulum', save_pendulum, namespace='swing', mode='lockstep', view='false')


class TestPendulum(unittest.TestCase):
    def test_pendulum_plays_episodes(self):
        robot = Robot('/swing')
        robot.watch('gym/truth', String)
        told = lambda: [json.loads(m.data) for m in robot.received['gym/truth']]  # noqa: E731
        robot.until(lambda: any(truth['returns'] for truth in told()), 'a return', 60.0)
        assert any(truth['action'] for truth in told())
        robot.until(lambda: any('camera' in truth['faults'] for truth in told()), 'a loss', 30.0)
        robot.close()
