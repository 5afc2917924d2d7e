"""Start the node cmi and sensors replayed from recordings."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from mm_perception.resources import share_directory

ARGUMENTS = (
    ('namespace', '', 'Namespace of both nodes.'),
    ('bundle', 'mhd', 'Trained bundle: a name or a folder.'),
    ('device', 'auto', 'Where inference runs: auto, cpu or cuda.'),
    ('recordings', '', 'Folder of recordings; empty: those of the bundle.'),
    ('schedule', '', 'Failures of the sensors as JSON, see the parameter schedule of replay.'),
    ('log_level', 'info', 'Log level: debug, info, warn, error or fatal.'),
    ('transport_profile', 'shm', 'Fast DDS profile: shm, none, or an XML file.'),
)
SHARED = ('namespace', 'bundle', 'device', 'log_level', 'transport_profile')


def generate_launch_description() -> LaunchDescription:
    """Include the robot's launch file, which also sets the transport, and add the replay."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, default, text in ARGUMENTS
    ]
    robot = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share_directory() / 'launch' / 'cmi.launch.py')),
        launch_arguments=[(name, LaunchConfiguration(name)) for name in SHARED],
    )
    replay = Node(
        package='mm_perception',
        executable='replay_node',
        name='replay',
        namespace=LaunchConfiguration('namespace'),
        parameters=[
            {
                name: ParameterValue(LaunchConfiguration(name), value_type=str)
                for name in ('bundle', 'recordings', 'schedule')
            }
        ],
        ros_arguments=['--log-level', LaunchConfiguration('log_level')],
        output='screen',
    )
    return LaunchDescription([*arguments, robot, replay])
