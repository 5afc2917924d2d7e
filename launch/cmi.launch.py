"""Start the node cmi, and a viewer: ros2 launch mm_perception cmi.launch.py --show-args."""

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.event_handlers import OnProcessExit
from launch.events import matches_action
from launch.events.process import ProcessExited, ShutdownProcess
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from mm_perception.errors import UNUSABLE
from mm_perception.resources import (
    OFF,
    REPAIR,
    is_installed,
    parameter_file,
    share_directory,
    transport_environment,
)
from mm_perception.spec import DEVICES, ENGINES, PRECISIONS

RESPAWN_DELAY_S = 0.5
FOXGLOVE_PORT = 8765
# The topics that config/cmi.rviz shows.
SHOWN = ('cmi/mosaic', 'image', 'filled/image', 'reconstruction/image')
_OVERRIDES = ('bundle', 'device', 'engine', 'precision')
_YES_NO = ['true', 'false']
ARGUMENTS = (
    ('namespace', '', 'Namespace of the node and of its relative topics.', None),
    ('bundle', '', 'Trained bundle: a name or a folder; empty: as in params_file.', None),
    ('params_file', '', "Parameter file; empty: the package's config/cmi.yaml.", None),
    ('device', '', 'Where inference runs; empty: as in params_file.', ['', *DEVICES]),
    ('engine', '', 'What runs the model; empty: as in params_file.', ['', *ENGINES]),
    ('precision', '', 'What it computes in; empty: as in params_file.', ['', *PRECISIONS]),
    ('use_sim_time', 'false', 'Take the time from /clock.', _YES_NO),
    ('autostart', 'true', 'Configure and activate the node.', _YES_NO),
    (
        'use_respawn',
        'false',
        'Start the node again if its process dies, except of a configuration that cannot work.',
        _YES_NO,
    ),
    ('log_level', 'info', 'Log level: debug, info, warn, error or fatal.', None),
    (
        'transport_profile',
        'shm',
        'Fast DDS profile: shm (large shared memory, for camera images), none, or an XML file.',
        None,
    ),
    (
        'repair_shared_memory',
        'true',
        'Put right at the start what killed processes left in the shared memory of Fast DDS.',
        _YES_NO,
    ),
    ('view', 'false', 'Serve a page at http://127.0.0.1:8080 that shows the node.', _YES_NO),
    ('rviz', 'false', 'Open RViz with config/cmi.rviz.', _YES_NO),
    ('foxglove', 'false', 'Serve Foxglove; its layout is config/foxglove.json.', _YES_NO),
    ('foxglove_address', '127.0.0.1', 'Where Foxglove connects; 0.0.0.0: from any host.', None),
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
    if chosen['repair_shared_memory'] == 'false':
        environment[REPAIR] = OFF
    variables = [SetEnvironmentVariable(name, value) for name, value in environment.items()]
    node = _node(chosen)
    stop = RegisterEventHandler(OnProcessExit(target_action=node, on_exit=_give_up))
    return [*variables, node, stop, *_view(chosen), *_rviz(chosen), *_foxglove(chosen)]


def _node(chosen: dict[str, str]) -> LifecycleNode:
    overrides = {name: chosen[name] for name in _OVERRIDES if chosen[name]}
    # The node starts itself, also after a respawn: transitions that launch asks for can get lost,
    # as the services of a killed process are still announced for a while.
    flags = {name: chosen[name] == 'true' for name in ('use_sim_time', 'autostart')}
    return LifecycleNode(
        package='mm_perception',
        executable='cmi_node',
        name='cmi',
        namespace=chosen['namespace'],
        parameters=[
            str(parameter_file(chosen['params_file'])),
            {**overrides, **flags},
        ],
        ros_arguments=['--log-level', chosen['log_level']],
        respawn=chosen['use_respawn'] == 'true',
        respawn_delay=RESPAWN_DELAY_S,
        output='screen',
    )


def _give_up(event: ProcessExited, context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """End the respawning of a node that would only fail again."""
    if event.returncode != UNUSABLE:
        return []
    return [
        LogInfo(msg='cmi cannot work as it is set (see its message above): not started again'),
        EmitEvent(event=ShutdownProcess(process_matcher=matches_action(event.action))),
    ]


def _view(chosen: dict[str, str]) -> list[LaunchDescriptionEntity]:
    if chosen['view'] != 'true':
        return []
    return [
        Node(
            package='mm_perception',
            executable='view_node',
            name='view',
            namespace=chosen['namespace'],
            ros_arguments=['--log-level', chosen['log_level']],
            output='screen',
        )
    ]


def _rviz(chosen: dict[str, str]) -> list[LaunchDescriptionEntity]:
    if chosen['rviz'] != 'true':
        return []
    if not is_installed('rviz2'):
        return [_missing('rviz', 'rviz2')]
    prefix = '/' + chosen['namespace'].strip('/')
    remappings = [(f'/{topic}', f'{prefix}/{topic}') for topic in SHOWN if prefix != '/']
    return [
        Node(
            package='rviz2',
            executable='rviz2',
            name='rviz',
            arguments=['-d', str(share_directory() / 'config' / 'cmi.rviz')],
            remappings=remappings,
            parameters=[{'use_sim_time': chosen['use_sim_time'] == 'true'}],
        )
    ]


def _foxglove(chosen: dict[str, str]) -> list[LaunchDescriptionEntity]:
    if chosen['foxglove'] != 'true':
        return []
    if not is_installed('foxglove_bridge'):
        return [_missing('foxglove', 'foxglove_bridge')]
    layout = share_directory() / 'config' / 'foxglove.json'
    return [
        LogInfo(msg=f'Foxglove: open ws://localhost:{FOXGLOVE_PORT}, import the layout {layout}'),
        Node(
            package='foxglove_bridge',
            executable='foxglove_bridge',
            parameters=[
                {
                    'address': chosen['foxglove_address'],
                    'port': FOXGLOVE_PORT,
                    'use_sim_time': chosen['use_sim_time'] == 'true',
                }
            ],
        ),
    ]


def _missing(argument: str, package: str) -> LogInfo:
    name = package.replace('_', '-')
    return LogInfo(
        msg=f'{argument}:=true needs {package}, which is not installed:'
        f' sudo apt-get install ros-$ROS_DISTRO-{name}'
    )
