"""Launch files and parameter file against the code."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import yaml

from mm_perception.errors import ConfigError
from mm_perception.lab.replay.playlist import parse_schedule
from mm_perception.resources import parameter_file
from mm_perception.ros.cmi.parameters import NODE_SPECS, OLD_FALLBACK

ROOT = Path(__file__).parents[2]
EXPECTED = {
    'namespace',
    'bundle',
    'params_file',
    'device',
    'engine',
    'precision',
    'use_sim_time',
    'autostart',
    'use_respawn',
    'log_level',
    'transport_profile',
    'repair_shared_memory',
    'rviz',
    'view',
    'foxglove',
    'foxglove_address',
}


def flat(tree: dict, prefix: str = '') -> dict:
    """Nested keys as dotted names."""
    values = {}
    for key, value in tree.items():
        name = f'{prefix}.{key}' if prefix else key
        values |= flat(value, name) if isinstance(value, dict) else {name: value}
    return values


def test_parameter_file_holds_the_defaults_of_every_parameter():
    tree = yaml.safe_load((ROOT / 'config' / 'cmi.yaml').read_text())
    values = flat(tree['/**']['ros__parameters'])
    # autostart is for running without a lifecycle manager; the launch file is one.
    unlisted = {'autostart', OLD_FALLBACK}
    assert values == {row.name: row.default for row in NODE_SPECS if row.name not in unlisted}


def test_parameter_file_that_is_missing_is_refused(tmp_path: Path):
    assert parameter_file() == ROOT / 'config' / 'cmi.yaml'
    own = tmp_path / 'own.yaml'
    with pytest.raises(ConfigError, match=f'params_file: no file "{own}"'):
        parameter_file(str(own))
    own.touch()
    assert parameter_file(str(own)) == own


def test_launch_ends_without_its_parameter_file(capfd: pytest.CaptureFixture[str]):
    pytest.importorskip('launch_ros', reason='launch_ros comes with a ROS 2 installation only')
    from launch import LaunchDescription, LaunchService
    from launch.actions import IncludeLaunchDescription
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    source = PythonLaunchDescriptionSource(str(ROOT / 'launch' / 'cmi.launch.py'))
    include = IncludeLaunchDescription(
        source, launch_arguments=[('params_file', '/absent/own.yaml')]
    )
    service = LaunchService(noninteractive=True)
    service.include_launch_description(LaunchDescription([include]))
    assert service.run() == 1
    said = capfd.readouterr()  # versions of launch differ in where errors go
    assert 'params_file: no file "/absent/own.yaml"' in said.out + said.err


@pytest.mark.parametrize('name', ['cmi', 'demo', 'pendulum'])
def test_launch_file_describes_every_argument(name: str):
    pytest.importorskip('launch_ros', reason='launch_ros comes with a ROS 2 installation only')
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    source = PythonLaunchDescriptionSource(str(ROOT / 'launch' / f'{name}.launch.py'))
    description = source.try_get_launch_description_without_context()
    arguments = {a.name: a for a in description.get_launch_arguments()}
    assert all(len(argument.description) > 10 for argument in arguments.values())
    if name == 'cmi':
        assert set(arguments) == EXPECTED


def test_demo_lets_every_sensor_fail_in_turn_and_again():
    pytest.importorskip('launch_ros', reason='launch_ros comes with a ROS 2 installation only')
    demo = runpy.run_path(str(ROOT / 'launch' / 'demo.launch.py'))
    defaults = {name: default for name, default, *_ in demo['ARGUMENTS']}
    sensors = ('image', 'trajectory', 'sound', 'symbol')
    outages = parse_schedule(defaults['schedule'], sensors)
    assert {name for outage in outages for name in outage.sensors} == set(sensors)
    assert outages[0].start_s <= 3.0
    ends_s = [outage.start_s + outage.duration_s for outage in outages]
    assert all(end_s < later.start_s for end_s, later in zip(ends_s, outages[1:], strict=False))
    assert ends_s[-1] <= float(defaults['schedule_period_s'])


@pytest.mark.parametrize(
    ('screen', 'installed', 'viewer', 'expected'),
    [
        (':0', ['rviz2', 'rqt_image_view'], 'auto', 'rviz'),
        (':0', ['rqt_image_view'], 'auto', 'rqt'),
        (':0', [], 'auto', 'none'),
        ('', ['rviz2'], 'auto', 'none'),
        ('', ['rviz2'], 'rviz', 'rviz'),
    ],
)
def test_demo_opens_what_is_installed(
    monkeypatch, tmp_path: Path, screen: str, installed: list[str], viewer: str, expected: str
):
    pytest.importorskip('launch_ros', reason='launch_ros comes with a ROS 2 installation only')
    monkeypatch.setenv('DISPLAY', screen)
    monkeypatch.delenv('WAYLAND_DISPLAY', raising=False)
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path))
    for package in installed:
        marker = tmp_path / 'share' / 'ament_index' / 'resource_index' / 'packages' / package
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    demo = runpy.run_path(str(ROOT / 'launch' / 'demo.launch.py'))
    assert demo['_choose'](viewer) == expected
