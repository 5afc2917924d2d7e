"""Start the node cmi, sensors replayed from recordings that fail in turn, and a viewer."""

import json
import os

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from mm_perception.resources import is_installed, share_directory

OUT_S, BETWEEN_S = 4.0, 2.0
# What fails after each other, each for OUT_S, over and over.
FAILURES = (
    ('image', 'silent'),
    ('sound', 'silent'),
    ('trajectory', 'silent'),
    ('symbol', 'silent'),
    ('image', 'black'),
    ('image,sound', 'silent'),
)
PITCH_S = OUT_S + BETWEEN_S
SCHEDULE = [
    {
        'sensors': names.split(','),
        'start_s': BETWEEN_S + k * PITCH_S,
        'duration_s': OUT_S,
        'fault': fault,
    }
    for k, (names, fault) in enumerate(FAILURES)
]
ARGUMENTS = (
    ('namespace', '', 'Namespace of both nodes.', None),
    ('bundle', 'mhd', 'Trained bundle: a name or a folder.', None),
    ('device', 'auto', 'Where inference runs: auto, cpu or cuda.', None),
    ('recordings', '', 'Folder of recordings; empty: those of the bundle.', None),
    (
        'schedule',
        json.dumps(SCHEDULE),
        'Failures of the sensors as JSON, see the parameter schedule of replay; empty: none.',
        None,
    ),
    (
        'schedule_period_s',
        str(PITCH_S * len(FAILURES)),
        'After how long the schedule begins again; 0: never.',
        None,
    ),
    ('log_level', 'info', 'Log level: debug, info, warn, error or fatal.', None),
    ('transport_profile', 'shm', 'Fast DDS profile: shm, none, or an XML file.', None),
    (
        'viewer',
        'auto',
        'What opens: rviz, rqt (rqt_image_view), none, or auto: what is installed.',
        ['auto', 'rviz', 'rqt', 'none'],
    ),
    ('view', 'true', 'Serve a page at http://127.0.0.1:8080 that shows it all.', None),
    ('foxglove', 'false', 'Serve Foxglove; its layout is config/foxglove.json.', None),
    ('foxglove_address', '127.0.0.1', 'Where Foxglove connects; 0.0.0.0: from any host.', None),
)
SHARED = (
    *('namespace', 'bundle', 'device', 'log_level', 'transport_profile'),
    *('view', 'foxglove', 'foxglove_address'),
)


def generate_launch_description() -> LaunchDescription:
    """Describe the arguments, then what they make."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text, choices=choices)
        for name, default, text, choices in ARGUMENTS
    ]
    replay = Node(
        package='mm_perception',
        executable='replay_node',
        name='replay',
        namespace=LaunchConfiguration('namespace'),
        parameters=[
            {
                **{
                    name: ParameterValue(LaunchConfiguration(name), value_type=str)
                    for name in ('bundle', 'recordings', 'schedule')
                },
                'schedule_period_s': ParameterValue(
                    LaunchConfiguration('schedule_period_s'), value_type=float
                ),
            }
        ],
        ros_arguments=['--log-level', LaunchConfiguration('log_level')],
        output='screen',
    )
    return LaunchDescription([*arguments, OpaqueFunction(function=_robot_and_viewer), replay])


def _robot_and_viewer(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Include the robot's launch file, which also sets the transport and opens RViz."""
    viewer = _choose(LaunchConfiguration('viewer').perform(context))
    robot = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share_directory() / 'launch' / 'cmi.launch.py')),
        launch_arguments=[
            *((name, LaunchConfiguration(name)) for name in SHARED),
            ('rviz', str(viewer == 'rviz').lower()),
        ],
    )
    space = LaunchConfiguration('namespace').perform(context).strip('/')
    mosaic = f'/{space}/cmi/mosaic' if space else '/cmi/mosaic'
    shown = LogInfo(msg=f'what is observed and what is generated: image topic {mosaic}')
    if viewer != 'rqt':
        return [robot, shown]
    rqt = Node(package='rqt_image_view', executable='rqt_image_view', arguments=[mosaic])
    return [robot, shown, rqt]


def _choose(viewer: str) -> str:
    """What to open: on a screen, what is installed."""
    if viewer != 'auto':
        return viewer
    if not (os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')):
        return 'none'
    installed = {'rviz': is_installed('rviz2'), 'rqt': is_installed('rqt_image_view')}
    return next((name for name, found in installed.items() if found), 'none')
