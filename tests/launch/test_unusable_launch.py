"""A configuration that cannot work is not started over and over."""

from __future__ import annotations

import time
import unittest

import pytest

pytest.importorskip('launch_testing', reason='launch_testing comes with a ROS 2 installation only')

import launch_testing
import launch_testing.asserts
from launch.actions import ExecuteProcess

from mm_perception.errors import UNUSABLE
from tests.helpers.launching import describe

RESPAWNS_S = 3.0
NODE = 'cmi_node'


@pytest.mark.launch_test
def generate_test_description():
    description = describe(bundle='mistyped', use_respawn='true', namespace='hopeless')
    # The test goes on while a process does.
    description.add_action(ExecuteProcess(cmd=['sleep', '60']))
    return description


class TestUnusable(unittest.TestCase):
    def test_it_is_started_once_and_says_why(self, proc_info, proc_output):
        proc_output.assertWaitFor('no bundle "mistyped"', timeout=40.0)
        proc_output.assertWaitFor('cannot configure', timeout=1.0)
        (process,) = (
            each for each in proc_info.processes() if NODE in each.process_details['name']
        )
        proc_info.assertWaitForShutdown(process=process, timeout=20.0)
        time.sleep(RESPAWNS_S)
        said = ''.join(each.text.decode() for each in proc_output[process])
        assert said.count('cannot configure') == 1


@launch_testing.post_shutdown_test()
class TestShutdown(unittest.TestCase):
    def test_its_exit_code_says_that_another_start_would_not_help(self, proc_info):
        launch_testing.asserts.assertExitCodes(proc_info, [UNUSABLE], process=NODE)
