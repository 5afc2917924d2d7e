"""ros2 launch mm_perception cmi.launch.py: active, fusing, a sensor lost, ended cleanly."""

from __future__ import annotations

import unittest

import pytest

pytest.importorskip('launch_testing', reason='launch_testing comes with a ROS 2 installation only')

import launch_testing
import launch_testing.asserts
from sensor_msgs.msg import Image

from tests.helpers.launching import describe
from tests.helpers.robot import Robot


@pytest.mark.launch_test
def generate_test_description():
    return describe(namespace='bot')


class TestRunning(unittest.TestCase):
    def setUp(self):
        self.robot = Robot('/bot')
        self.robot.live = {'image', 'trajectory', 'sound', 'symbol'}
        self.robot.until_used(set(self.robot.live), 40.0)

    def tearDown(self):
        self.robot.close()

    def test_node_reaches_active_and_latents_flow(self):
        assert self.robot.state() == 'active'
        self.robot.received['latent'].clear()
        self.robot.run(2.0)
        assert 16 <= len(self.robot.received['latent']) <= 24

    def test_node_reconstructs_a_sensor_that_was_killed_and_takes_it_back(self):
        self.robot.watch('reconstruction/image', Image)
        self.robot.live.discard('image')
        assert self.robot.until_state('image', 'stale')['source'] == 'inferred'
        assert self.robot.fresh('reconstruction/image').encoding == 'mono8'
        self.robot.live.add('image')
        assert self.robot.until_state('image', 'ok')['source'] == 'sensor'


@launch_testing.post_shutdown_test()
class TestShutdown(unittest.TestCase):
    def test_node_ends_cleanly(self, proc_info):
        launch_testing.asserts.assertExitCodes(proc_info, [0])
