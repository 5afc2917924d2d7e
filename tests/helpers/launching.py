"""What the launch tests share: whether they can run, and the launch file under test."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
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


def save_small(path: Path) -> None:
    """Write a bundle with the modalities of MHD."""
    save_bundle(make_bundle(), path, '# small\n')


def describe(
    file: str = 'cmi', save: Callable[[Path], object] = save_small, **arguments: str
) -> LaunchDescription:
    """Launch nodes on a small bundle, by the file that users launch."""
    isolate()
    bundle = Path(_FOLDER.name) / file
    save(bundle)
    given = {'bundle': str(bundle), **arguments}
    source = PythonLaunchDescriptionSource(str(ROOT / 'launch' / f'{file}.launch.py'))
    return LaunchDescription(
        [
            IncludeLaunchDescription(source, launch_arguments=list(given.items())),
            launch_testing.actions.ReadyToTest(),
        ]
    )
