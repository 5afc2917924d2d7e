"""Strange but ordinary sensors at one node over DDS: shared topics, names, stamps, noise."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PointStamped
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from mm_perception.bundle import save_bundle
from mm_perception.ros.codecs import audio_message, image_message, make_header, read_table
from mm_perception.spec import ModalitySpec, ModelSpec
from tests.helpers.robot import NodeProcess, Robot, robots
from tests.helpers.small_bundle import LABELS, make_bundle

NAMESPACE = '/strange'
SMALL = {'type': 'dense', 'hidden': (8,)}
JOINTS = ('shoulder', 'elbow', 'finger')


def spec() -> ModelSpec:
    """Joints of an arm and its gripper, a planned path, a pen, a camera, a microphone, a label."""
    vector = {'low': (-2.0,) * 3, 'high': (2.0,) * 3, 'names': JOINTS}
    path = {'names': ('q1', 'q2'), 'points': 8, 'low': (-1.0, -1.0), 'high': (9.0, 9.0)}
    modalities = (
        ModalitySpec(
            'joints',
            'vector',
            2,
            vector,
            SMALL,
            topic='joint_states',
            message='sensor_msgs/msg/JointState',
        ),
        ModalitySpec('path', 'trajectory', 2, path, SMALL),
        ModalitySpec('pen', 'trajectory', 2, {'points': 8}, SMALL,
                     message='geometry_msgs/msg/PointStamped'),
        ModalitySpec('image', 'image', 2, {'height': 8, 'width': 8}, SMALL),
        ModalitySpec('sound', 'sound', 2, {'frames': 16, 'mels': 16}, SMALL, topic='audio'),
        ModalitySpec('symbol', 'symbol', 2, {'labels': LABELS}, SMALL, likelihood='categorical'),
    )  # fmt: skip
    return ModelSpec(
        modalities, joint_latent_dim=4, message_dim=8, joint_hidden=(8,), decoder_hidden=(8,)
    )


@pytest.fixture(scope='module')
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    folder = tmp_path_factory.mktemp('strange')
    bundle = save_bundle(make_bundle('strange', spec=spec()), folder / 'strange', '# strange\n')
    parameters = ('autostart:=true', 'rate_hzz:=20.0', 'modalities.imagee.topic:=camera')
    process = NodeProcess(
        folder / 'log', f'bundle:={bundle.path}', *parameters, namespace=NAMESPACE
    )
    yield process
    assert process.stop() == 0
    assert 'Traceback' not in process.log


@pytest.fixture(scope='module')
def robot(node: NodeProcess) -> Iterator[Robot]:
    for each in robots(NAMESPACE):
        each.watch('filled/joints', JointState)
        each.watch('filled/path', JointTrajectory)
        each.watch('/diagnostics', DiagnosticArray)
        each.until(lambda each=each: each.status(), 'the node', 60.0)
        yield each


class Others:
    """Further nodes, each with a publisher, in the context of the robot."""

    def __init__(self, robot: Robot) -> None:
        self._robot, self._nodes = robot, list[Node]()

    def publisher(self, name: str, kind: type, topic: str) -> Any:
        node = Node(name, context=self._robot.node.context, namespace=NAMESPACE)
        self._nodes.append(node)
        return node.create_publisher(kind, topic, 10)

    def close(self) -> None:
        for node in self._nodes:
            node.destroy_node()


@pytest.fixture
def others(robot: Robot) -> Iterator[Others]:
    made = Others(robot)
    yield made
    made.close()


def publish_until(robot: Robot, publish: Any, condition: Any, what: str, every_s: float = 0.05):
    """Call ``publish`` at a rate until a condition holds."""
    due_s = 0.0

    def step() -> Any:
        nonlocal due_s
        if time.monotonic() >= due_s:
            due_s = time.monotonic() + every_s
            publish()
        return condition()

    return robot.until(step, what, 25.0)


def test_mistyped_parameters_are_a_line_each(node: NodeProcess, robot: Robot):
    assert 'parameter rate_hzz does not exist: did you mean rate_hz?' in node.log
    meant = 'did you mean modalities.image.topic?'
    assert f'parameter modalities.imagee.topic does not exist: {meant}' in node.log
    assert 'parameter bundle' not in node.log


def test_diagnostics_never_say_ok_for_waiting(robot: Robot):
    robot.until(lambda: robot.received['/diagnostics'], 'diagnostics')
    for message in robot.received['/diagnostics']:
        for entry in message.status:
            values = {value.key: value.value for value in entry.values}
            if values.get('state') == 'waiting':
                assert entry.message != 'ok' and entry.level != DiagnosticStatus.OK


def test_arm_and_gripper_share_joint_states(robot: Robot, node: NodeProcess, others: Others):
    arm = others.publisher('arm', JointState, 'joint_states')
    gripper = others.publisher('gripper', JointState, 'joint_states')
    wheels = others.publisher('wheels', JointState, 'joint_states')

    def publish() -> None:
        header = make_header(robot.now_ns())
        gripper.publish(JointState(header=header, name=['finger'], position=[-1.5]))
        wheels.publish(JointState(header=header, name=['left', 'right'], position=[7.0, 8.0]))
        names = ['elbow', 'extra', 'shoulder']
        arm.publish(JointState(header=header, name=names, position=[1.25, float('nan'), 0.5]))

    def filled() -> dict[str, float]:
        used = robot.status()['joints']['used'] == 'true'
        messages = list(robot.received['filled/joints']) if used else []
        return {name: m.position[k] for m in messages for k, name in enumerate(m.name)}

    wanted = {'shoulder': 0.5, 'elbow': 1.25, 'finger': -1.5, 'left': 7.0}
    publish_until(robot, publish, lambda: wanted.items() <= filled().items(), 'joints')
    robot.received['cmi/status'].clear()
    end_s = time.monotonic() + 1.0
    publish_until(robot, publish, lambda: time.monotonic() > end_s, 'a second')
    for message in robot.received['cmi/status']:
        (entry,) = [e for e in message.status if e.name == 'joints']
        assert entry.message == 'ok'
    assert 'joint_states (arm' not in node.log, 'they may share it'


@pytest.mark.parametrize('order', [('q1', 'q2', 'other'), ('other', 'q2', 'q1')])
def test_columns_of_a_path_go_by_name(robot: Robot, others: Others, order: tuple[str, ...]):
    columns = {'q1': np.linspace(0, 8, 9), 'q2': np.zeros(9), 'other': np.full(9, 5.0)}
    rows = np.stack([columns[name] for name in order], axis=1)
    points = [JointTrajectoryPoint(positions=row.tolist()) for row in rows]
    planner = others.publisher('planner', JointTrajectory, 'path')

    def publish() -> None:
        planner.publish(
            JointTrajectory(
                header=make_header(robot.now_ns()), joint_names=list(order), points=points
            )
        )

    def passed() -> list[JointTrajectory]:
        return [m for m in robot.received['filled/path'] if m.joint_names == list(order)]

    publish_until(robot, publish, passed, 'filled path', 0.1)
    assert passed()[-1].points == points, 'untouched'


def test_everything_received_and_not_used_has_a_line(
    robot: Robot, node: NodeProcess, others: Others
):
    """A pen that never pauses, a camera that stamps by uptime, a microphone in loud noise."""
    pen = others.publisher('pen', PointStamped, 'pen')
    rng = np.random.default_rng(0)
    sent = 0

    def publish() -> None:
        nonlocal sent
        sent += 1
        point = PointStamped(header=make_header(robot.now_ns()))
        point.point.x, point.point.y = np.cos(0.1 * sent), np.sin(0.1 * sent)
        pen.publish(point)
        noise = rng.normal(0.0, 0.005, 400).astype(np.float32)
        robot.publishers['audio'].publish(audio_message(noise, 8000, robot.now_ns()))
        uptime_ns = 3_600_000_000_000 + sent * 50_000_000
        robot.publishers['image'].publish(image_message(robot.picture()[::8, ::8], uptime_ns))
        robot.publishers['symbol'].publish(String(data=' 3 '))

    lines = {
        'pen': 'pen: waiting: /strange/pen (geometry_msgs/msg/PointStamped): newest message',
        'stroke': 's without a pause of 0.15 s (pause_s)',
        'uptime': 'its stamps count from a start, not from 1970',
        'noisy': 'noisy: its background is at -4',
    }
    publish_until(
        robot, publish, lambda: all(line in node.log for line in lines.values()), 'all lines'
    )
    robot.run(0.3)
    status = robot.status()
    assert status['sound']['fault'] == 'noisy'
    assert status['sound']['state'] in ('waiting', 'stale'), 'the first noise may pass for a word'
    assert status['image']['state'] == 'stale'
    assert status['symbol']['state'] == 'ok', 'the label is trimmed'
    assert {'mean', 'std'} <= set(read_table(robot.fresh('latent')))


def test_two_cameras_on_one_topic_are_said(robot: Robot, node: NodeProcess, others: Others):
    others.publisher('left_camera', Image, 'image')
    line = '2 publishers on /strange/image (left_camera, robot) are taken for one sensor'
    robot.until(lambda: line in node.log, 'two cameras', 25.0)

    def entry() -> Any:
        messages = robot.received['/diagnostics']
        return next(e for e in messages[-1].status if e.name == 'cmi: image')

    robot.until(lambda: entry().level != DiagnosticStatus.OK, 'a warning')
