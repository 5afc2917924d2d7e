"""Start a pendulum, the fusion of its sensors, which fail in turn, and a policy on the latent."""

import json

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from mm_perception.resources import parameter_file, transport_environment

# An episode lasts 10 s; in each one sensor, or two, are out for the rest of it.
EPISODE_S, LOST_S = 10.0, 1.0
LOST = ('', 'camera', 'microphones', 'joints', 'camera,microphones', 'camera,joints')
SCHEDULE = [
    {
        'sensors': names.split(','),
        'start_s': k * EPISODE_S + LOST_S,
        'duration_s': EPISODE_S - LOST_S,
    }
    for k, names in enumerate(LOST)
    if names
]
# Values of one step belong together by their stamp.
STAMPED = 'sensor_msgs/msg/JointState'
NUMBERS = ('joints', 'microphones')
LOCKSTEP_WAIT_S = 1.0
ARGUMENTS = (
    ('namespace', '', 'Namespace of all nodes.', None),
    ('bundle', 'pendulum', 'Trained bundle with a policy: a name or a folder.', None),
    ('device', 'auto', 'Where the fusion runs: auto, cpu or cuda.', None),
    (
        'mode',
        'real_time',
        'real_time: 20 steps per second; lockstep: as fast as the nodes are, and repeatable.',
        ['real_time', 'lockstep'],
    ),
    ('seed', '0', 'Of the starts of the episodes.', None),
    (
        'schedule',
        json.dumps(SCHEDULE),
        'Failures of the sensors as JSON, see the parameter schedule of gym; empty: none.',
        None,
    ),
    (
        'schedule_period_s',
        str(EPISODE_S * len(LOST)),
        'After how long the schedule begins again; 0: never.',
        None,
    ),
    ('log_level', 'info', 'Log level: debug, info, warn, error or fatal.', None),
    ('transport_profile', 'shm', 'Fast DDS profile: shm, none, or an XML file.', None),
    ('view', 'true', 'Serve a page at http://127.0.0.1:8080 that shows the fusion.', None),
)


def generate_launch_description() -> LaunchDescription:
    """Describe the arguments, then the nodes that they make."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text, choices=choices)
        for name, default, text, choices in ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_nodes)])


def _nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    chosen = {name: LaunchConfiguration(name).perform(context) for name, _, _, _ in ARGUMENTS}
    environment = transport_environment(chosen['transport_profile'])
    variables = [SetEnvironmentVariable(name, value) for name, value in environment.items()]
    lockstep = chosen['mode'] == 'lockstep'
    managed = {'autostart': True, 'use_sim_time': lockstep}
    waits = {'stamp.wait_s': LOCKSTEP_WAIT_S} if lockstep else {}
    fusion = {
        **{name: chosen[name] for name in ('bundle', 'device')},
        **{f'modalities.{name}.message': STAMPED for name in NUMBERS},
        'trigger': 'stamp',
    }
    environment_parameters = {
        **{name: chosen[name] for name in ('bundle', 'mode', 'schedule')},
        **{f'sensors.{name}.message': STAMPED for name in NUMBERS},
        'seed': int(chosen['seed']),
        'schedule_period_s': float(chosen['schedule_period_s']),
    }
    acting = {'policy': chosen['bundle'], 'message': STAMPED}
    nodes = [
        _node(chosen, LifecycleNode, 'cmi', [str(parameter_file('')), fusion, waits, managed]),
        _node(chosen, LifecycleNode, 'policy', [acting, managed]),
        _node(chosen, Node, 'gym', [environment_parameters]),
    ]
    if chosen['view'] == 'true':
        nodes.append(_node(chosen, Node, 'view', []))
    return [*variables, *nodes]


def _node(
    chosen: dict[str, str], kind: type, name: str, parameters: list[object]
) -> LaunchDescriptionEntity:
    return kind(
        package='mm_perception',
        executable=f'{name}_node',
        name=name,
        namespace=chosen['namespace'],
        parameters=parameters,
        ros_arguments=['--log-level', chosen['log_level']],
        output='screen',
    )
