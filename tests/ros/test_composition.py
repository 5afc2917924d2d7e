"""Nodes of ours and of a user's in one process, as the page on robots shows it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import yaml

from mm_perception.bundle import Bundle
from tests.helpers.robot import ROOT, Robot
from tests.ros.test_microphone_node import microphone, speech

__all__ = ['microphone', 'speech']  # fixtures


def test_nodes_run_in_one_process_with_a_users_own(
    bundle: Bundle, robot: Robot, microphone: tuple[str, ...], tmp_path: Path
) -> None:
    page = (ROOT / 'docs' / 'robot.md').read_text(encoding='utf-8')
    program = tmp_path / 'robot.py'
    program.write_text(page.split('```python\n')[1].split('```')[0], encoding='utf-8')
    device = dict(each.split(':=') for each in microphone)
    given = {
        '/**/cmi': {'ros__parameters': {'bundle': str(bundle.path)}},
        '/**/microphone': {
            'ros__parameters': {name: yaml.safe_load(value) for name, value in device.items()}
        },
    }
    file = tmp_path / 'parameters.yaml'
    file.write_text(yaml.safe_dump(given))
    arguments = ['--ros-args', '-r', '__ns:=/second', '--params-file', str(file)]
    log = tmp_path / 'log'
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    with log.open('w') as out:
        process = subprocess.Popen(
            [sys.executable, str(program), *arguments], stderr=out, stdout=out, env=environment
        )
    try:
        robot.live = {'image'}
        robot.until(lambda: 'image' in robot.used(), 'the image is fused', 40.0)
        robot.until_used({'image', 'sound'}, 30.0)  # the word of the microphone's file
        robot.until(lambda: '8 means' in log.read_text(), "the user's node", 20.0)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert 'Traceback' not in log.read_text()
    finally:
        process.kill()
        process.wait()
