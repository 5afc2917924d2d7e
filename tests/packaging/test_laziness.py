"""Help, and what a launch file says of itself, load nothing heavy."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mm_perception.cli.main import COMMANDS
from mm_perception.engines import build, engine
from mm_perception.spec import DEVICES, ENGINES, PRECISIONS

ROOT = Path(__file__).parents[2]
HEAVY = ('numpy', 'cv2', 'yaml', 'safetensors', 'onnxruntime', 'onnx', 'torch', 'scipy', 'tqdm')
HEAVY += ('matplotlib', 'rich', 'psutil', 'rclpy', 'rosbags')
WITHOUT = f'import sys; sys.modules |= dict.fromkeys({HEAVY}); '
HELP_S = 0.5
"""Of the processor, which other processes do not lengthen much."""


def run_without(code: str) -> str:
    """Run code where nothing heavy can be imported; gives what it prints."""
    # As in a new shell: other tests of this process may have chosen a transport.
    kept = {
        name: v for name, v in os.environ.items() if not name.startswith(('FASTDDS', 'FASTRTPS'))
    }
    done = subprocess.run(
        [sys.executable, '-c', WITHOUT + code],
        capture_output=True, text=True, timeout=60, cwd=ROOT, env=kept,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize('command', ['', *COMMANDS])
def test_help_needs_no_library_and_no_time(command: str) -> None:
    words = [command, '--help'] if command else ['--help']
    code = f'from mm_perception.cli.main import main; main({words})'
    used = []
    for _ in range(3):
        begun = children_s()
        assert 'usage: mm-perception' in run_without(code)
        used.append(children_s() - begun)
    assert min(used) < HELP_S


def children_s() -> float:
    """Processor time of the processes that ended so far."""
    times = os.times()
    return times.children_user + times.children_system


@pytest.mark.parametrize('name', ['cmi', 'demo'])
def test_launch_files_import_nothing_heavy_of_ours(name: str) -> None:
    tree = ast.parse((ROOT / 'launch' / f'{name}.launch.py').read_text())
    ours = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith('mm_perception')
    ]
    assert ours
    run_without('; '.join(ours))


def test_launch_transport_is_found_without_a_library() -> None:
    code = 'from mm_perception.resources import transport_environment; '
    assert 'fastdds_shm.xml' in run_without(code + 'print(transport_environment())')


def test_choices_are_those_of_the_engines() -> None:
    assert set(PRECISIONS) == set(engine.BOUNDS)
    assert {device for _, device in build._OFFERED} == set(DEVICES) - {build.AUTO}
    assert {kind for kind, _ in build._OFFERED} == set(ENGINES) - {build.AUTO}
