"""colcon test on a robot: what needs a library of the extras is skipped, and says which."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ABSENT = 'import sys; sys.modules["torch"] = None\n'
HOOKS = 'from tests.conftest import pytest_runtest_makereport  # noqa: F401\n'
# What the plugin of launch_testing does, which comes with every ROS 2 installation.
EARLY = """
import pytest
from _pytest.pathlib import import_path

@pytest.hookimpl
def pytest_pycollect_makemodule(module_path, parent):
    import_path(module_path, root=parent.config.rootpath, consider_namespace_packages=False)
"""
SOME = ('tests/ros', 'tests/model', 'tests/evaluation', 'tests/modalities/test_quality.py')


def run_pytest(folder: Path, *arguments: str, plugin: str = '') -> tuple[int, str]:
    """Run pytest where importing torch fails as if it were not there."""
    (folder / 'without_torch.py').write_text(ABSENT + plugin)
    # After ours comes what a sourced ROS 2 has put there.
    path = os.pathsep.join([str(folder), str(ROOT), os.environ.get('PYTHONPATH', '')])
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'without_torch', *arguments],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, 'PYTHONPATH': path},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_files_that_import_what_is_absent_are_skipped(tmp_path: Path):
    code, output = run_pytest(tmp_path, '--collect-only', *SOME)
    assert code == 0, output
    assert 'test_experts.py:1: torch is not installed' in output
    assert 'test_quality.py::' in output and 'ERROR' not in output


def test_a_plugin_that_imports_early_ends_no_folder(tmp_path: Path):
    some = ('tests/model/test_experts.py', 'tests/modalities/test_quality.py')
    code, output = run_pytest(tmp_path, '--collect-only', *some, plugin=EARLY)
    assert code == 0, output
    assert 'test_experts.py:1: torch is not installed' in output
    assert 'test_quality.py::' in output and 'ERROR' not in output


def test_tests_that_import_what_is_absent_are_skipped_and_others_are_not(tmp_path: Path):
    """Only libraries of the extras: a module of ours that is missing is an error still."""
    own = tmp_path / 'test_own.py'
    own.write_text(
        'def test_late():\n    import torch\n\n'
        'def test_mistake():\n    import mm_perception.absent\n\n'
        'def test_fine():\n    pass\n'
    )
    (tmp_path / 'conftest.py').write_text(HOOKS)
    code, output = run_pytest(tmp_path, '-ra', f'--rootdir={tmp_path}', str(own))
    assert code == 1, output
    assert '1 failed, 1 passed, 1 skipped' in output
    assert 'test_own.py:1: torch is not installed' in output
