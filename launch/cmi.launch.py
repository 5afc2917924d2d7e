"""Start the node cmi: ros2 launch mm_perception cmi.launch.py --show-args."""

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode

from mm_perception.resources import parameter_file, transport_environment
from mm_perception.spec import DEVICES, ENGINES, PRECISIONS

RESPAWN_DELAY_S = 0.5
_OVERRIDES = ('bundle', 'device', 'engine', 'precision')
ARGUMENTS = (
    ('namespace', '', 'Namespace of the node and of its relative topics.', None),
    ('bundle', '', 'Trained bundle: a name or a folder; empty: as in params_file.', None),
    ('params_file', '', "Parameter file; empty: the package's config/cmi.yaml.", None),
    ('device', '', 'Where inference runs; empty: as in params_file.', ['', *DEVICES]),
    ('engine', '', 'What runs the model; empty: as in params_file.', ['', *ENGINES]),
    ('precision', '', 'What it computes in; empty: as in params_file.', ['', *PRECISIONS]),
    ('use_sim_time', 'false', 'Take the time from /clock.', ['true', 'false']),
    ('autostart', 'true', 'Configure and activate the node.', ['true', 'false']),
    ('use_respawn', 'false', 'Start the node again if its process dies.', ['true', 'false']),
    ('log_level', 'info', 'Log level: debug, info, warn, error or fatal.', None),
    (
        'transport_profile',
        'shm',
        'Fast DDS profile: shm (large shared memory, for camera images), none, or an XML file.',
        None,
    ),
)


def generate_launch_description() -> LaunchDescription:
    """Describe the arguments, then the node that they make."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text, choices=choices)
        for name, default, text, choices in ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_node)])


def _node(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    chosen = {name: LaunchConfiguration(name).perform(context) for name, _, _, _ in ARGUMENTS}
    overrides = {name: chosen[name] for name in _OVERRIDES if chosen[name]}
    # The node starts itself, also after a respawn: transitions that launch asks for can get lost,
    # as the services of a killed process are still announced for a while.
    flags = {name: chosen[name] == 'true' for name in ('use_sim_time', 'autostart')}
    environment = transport_environment(chosen['transport_profile'])
    node = LifecycleNode(
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
    variables = [SetEnvironmentVariable(name, value) for name, value in environment.items()]
    return [*variables, node]
