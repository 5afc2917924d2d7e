"""A killed node is started again by launch, and is soon back with a latent."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import unittest

import pytest

pytest.importorskip('launch_testing', reason='launch_testing comes with a ROS 2 installation only')

from tests.helpers.launching import EXECUTABLES, describe
from tests.helpers.robot import Robot

BACK_S = 5.0


@pytest.mark.launch_test
def generate_test_description():
    return describe(namespace='phoenix', use_respawn='true')


class TestRespawn(unittest.TestCase):
    def test_killed_node_is_back_with_a_latent(self):
        robot = Robot('/phoenix')
        robot.live = {'image'}
        robot.fresh('latent', timeout_s=40.0)
        pattern = f'{EXECUTABLES}/cmi_node.*__ns:=/phoenix'
        process = int(subprocess.check_output(['pgrep', '-f', pattern]).split()[0])
        os.kill(process, signal.SIGKILL)
        killed_s = time.monotonic()
        robot.run(0.5)
        robot.fresh('latent', timeout_s=30.0)
        assert time.monotonic() - killed_s < BACK_S
        robot.close()
