"""The tutorial from a recording to a node that fills in: every command of its first section."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

pytest.importorskip('rclpy', reason='rclpy is not installed')
pytest.importorskip('rosbags', reason='rosbags is not installed')
pytest.importorskip('torch', reason='torch is not installed')

from mm_perception.cli.main import main
from mm_perception.ros.bag_files import installed_type
from tests.helpers.driving_bag import JOINTS, write_driving_bag
from tests.helpers.robot import ROOT, Robot, robots

PAGE = (ROOT / 'docs' / 'tutorial.md').read_text()
SHORT = PAGE.split('## In short')[1].split('\n## ')[0]
COMMANDS = [
    line
    for block in re.findall(r'```bash\n(.*?)```', SHORT, re.DOTALL)
    for line in block.splitlines()
]
ONCE = {'epochs': 1}


@pytest.fixture
def robot() -> Iterator[Robot]:
    """Who listens, in no namespace, as the tutorial's node is."""
    yield from robots()


def quicken(file: Path) -> None:
    """Let a configuration train for as short as can be; nothing else in it changes."""
    plain = yaml.safe_load(file.read_text())
    names = [modality['name'] for modality in plain['model']['modalities']]
    plain |= {'top': ONCE, 'calibration': ONCE, 'unimodal': dict.fromkeys(names, ONCE)}
    file.write_text(yaml.safe_dump(plain))


def begin(command: str, log: Path) -> subprocess.Popen[bytes]:
    """Start a command of the tutorial in a process of its own."""
    program, *words = command.split()
    module = [] if program == 'python' else ['-m', 'mm_perception.cli.main']
    environment = os.environ | {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    return subprocess.Popen(
        [sys.executable, *module, *words],
        stdout=log.open('wb'),
        stderr=subprocess.STDOUT,
        env=environment,
    )


def test_tutorial_leads_from_a_recording_to_a_sensor_that_is_filled_in(
    robot: Robot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    topics = ('/joint_states', '/imu/data')
    write_driving_bag(tmp_path / 'bags' / 'drive', 12.0, topics=topics, joints=JOINTS[:2])
    *offline, node, player = COMMANDS
    assert [command.split()[1] for command in offline] == [
        *('init', 'import-bag', 'train', 'evaluate')
    ]
    for command in offline:
        assert main(command.split()[1:]) == 0, command
        if 'init' in command:
            quicken(Path('my_robot.yaml'))
    processes = [begin(node, Path('node.log')), begin(player, Path('player.log'))]
    try:
        robot.until(lambda: '/filled/imu' in dict(robot.node.get_topic_names_and_types()), 'node')
        types = dict(robot.node.get_topic_names_and_types())
        robot.watch('filled/imu', installed_type(types['/filled/imu'][0]))
        robot.until_used({'joint_states'}, 30.0)
        assert robot.status()['imu']['state'] == 'waiting'
        robot.received['filled/imu'].clear()
        robot.until(lambda: len(robot.received['filled/imu']) > 10, 'filled/imu goes on')
        assert robot.status()['imu']['used'] == 'false'
    except AssertionError as error:
        raise AssertionError(f'{Path("node.log").read_text()[-2000:]}') from error
    finally:
        for process in processes:
            process.kill()
            process.wait()
