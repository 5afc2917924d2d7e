"""What the launch tests share: whether they can run, and the launch file under test."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

pytest.importorskip('launch_testing', reason='launch_testing comes with a ROS 2 installation only')

import launch_testing.actions
from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

from mm_perception.bundle import save_bundle
from tests.helpers.robot import ROOT, isolate
from tests.helpers.small_bundle import make_bundle

try:
    EXECUTABLES = Path(get_package_prefix('mm_perception')) / 'lib' / 'mm_perception'
except PackageNotFoundError:
    EXECUTABLES = Path('absent')
if not (EXECUTABLES / 'cmi_node').exists():
    pytest.skip(
        'ros2 launch does not find mm_perception; colcon build and source install/setup.bash',
        allow_module_level=True,
    )

_FOLDER = tempfile.TemporaryDirectory()


def describe(**arguments: str) -> LaunchDescription:
    """Launch the node on a small bundle, by the file that users launch."""
    isolate()
    bundle = save_bundle(make_bundle(), Path(_FOLDER.name) / 'small', '# small\n')
    given = {'bundle': str(bundle.path), **arguments}
    source = PythonLaunchDescriptionSource(str(ROOT / 'launch' / 'cmi.launch.py'))
    return LaunchDescription(
        [
            IncludeLaunchDescription(source, launch_arguments=list(given.items())),
            launch_testing.actions.ReadyToTest(),
        ]
    )
