"""Launch files and parameter file against the code."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

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


@pytest.mark.parametrize('name', ['cmi', 'demo'])
def test_launch_file_describes_every_argument(name: str):
    pytest.importorskip('launch_ros', reason='launch_ros comes with a ROS 2 installation only')
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    source = PythonLaunchDescriptionSource(str(ROOT / 'launch' / f'{name}.launch.py'))
    description = source.try_get_launch_description_without_context()
    arguments = {a.name: a for a in description.get_launch_arguments()}
    assert all(len(argument.description) > 10 for argument in arguments.values())
    if name == 'cmi':
        assert set(arguments) == EXPECTED
