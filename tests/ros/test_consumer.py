"""A policy's loader that subscribes to stand-ins: it cannot tell when a sensor dies."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed')
pytest.importorskip('torch', reason='torch is not installed')

from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from mm_perception.bundle import save_bundle
from mm_perception.ros.cmi import outputs
from mm_perception.ros.codecs import image_message, make_header, stamp_of
from mm_perception.spec import ModalitySpec, ModelSpec
from tests.helpers.robot import NodeProcess, Robot
from tests.helpers.small_bundle import make_bundle

NAMES = ('elbow', 'wrist')
SPEC = ModelSpec(
    (
        ModalitySpec(
            'camera', 'image', 4, {'height': 12, 'width': 16, 'channels': 3, 'square': False},
            {'type': 'linear'}, frozen_s=600.0,
        ),
        ModalitySpec(
            'joint_states', 'vector', 2, {'names': NAMES, 'low': (-2.0,) * 2, 'high': (2.0,) * 2},
            {'type': 'linear'}, message='sensor_msgs/msg/JointState',
        ),
        ModalitySpec(
            'word', 'symbol', 2, {'labels': ('go', 'stop')}, {'type': 'dense', 'hidden': (8,)},
            likelihood='categorical',
        ),
    ),
    joint_latent_dim=4,
    message_dim=8,
    joint_hidden=(8,),
    decoder_hidden=(8,),
)  # fmt: skip
PERIODS_S = {'camera': 1 / 15, 'joint_states': 1 / 20, 'word': 1 / 5}
TYPES = {'camera': Image, 'joint_states': JointState, 'word': String}
WINDOW_S = 3.0


def frame(robot: Robot, k: int) -> Image:
    """A picture of 640x480 with noise."""
    pixels = np.full((480, 640, 3), 90, np.uint8)
    pixels[:, 20 * (k % 30) :] += 80
    pixels[::7, ::5] += np.uint8(k % 9)
    return image_message(pixels, robot.now_ns(), 'camera_optical')


def joints(robot: Robot, k: int) -> JointState:
    """Joints in another order than the bundle's, one more among them."""
    position = [np.sin(k / 9), 0.25, np.cos(k / 9)]
    header = make_header(robot.now_ns(), 'base')
    return JointState(
        header=header, name=['wrist', 'other', 'elbow'], position=position, velocity=[0.0] * 3
    )


class Consumer:
    """Publishes three sensors, and takes their stand-ins as a loader of observations does."""

    def __init__(self, robot: Robot) -> None:
        self.robot, self.live, self.count = robot, set(TYPES), 0
        self._due_s = dict.fromkeys(TYPES, 0.0)
        self._to = {n: robot.node.create_publisher(kind, n, 10) for n, kind in TYPES.items()}
        for name in ('camera', 'joint_states'):
            robot.watch(f'filled/{name}', TYPES[name], 200)

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Go on until a condition holds."""

        def step() -> object:
            now_s = self.robot.now_ns() * 1e-9
            for name in self.live:
                if now_s >= self._due_s[name]:
                    self._due_s[name] = max(self._due_s[name], now_s - 0.2) + PERIODS_S[name]
                    self.count += 1
                    make = {'camera': frame, 'joint_states': joints}.get(name)
                    message = make(self.robot, self.count) if make else String(data='go')
                    self._to[name].publish(message)
            return condition()

        self.robot.until(step, what, 60.0)

    def window(self, name: str) -> list[Image | JointState]:
        """What comes in some seconds."""
        came = self.robot.received[f'filled/{name}']
        came.clear()
        begin_ns = self.robot.now_ns()
        self.until(lambda: self.robot.now_ns() - begin_ns > WINDOW_S * 1e9, 'time')
        return list(came)


def looks(message: Image | JointState) -> tuple[object, ...]:
    """All that a loader goes by."""
    if isinstance(message, Image):
        size = message.height, message.width, message.step, len(message.data)
        return message.header.frame_id, message.encoding, message.is_bigendian, *size
    sizes = len(message.position), len(message.velocity), len(message.effort)
    return message.header.frame_id, tuple(message.name), *sizes


@pytest.mark.parametrize(
    ('sensor_hz', 'ticks_hz', 'expected_hz'),
    [(20, 30, 20), (15, 30, 15), (29, 30, 29), (50, 30, 30)],
)
def test_stand_in_keeps_the_rate_on_average(
    sensor_hz: float, ticks_hz: float, expected_hz: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 100.0
    monkeypatch.setattr(outputs.time, 'monotonic', lambda: now_s)
    sent: list[float] = []
    publisher = SimpleNamespace(
        publish=lambda message: sent.append(now_s), get_subscription_count=lambda: 1
    )
    sensor = outputs._Sensor(None, None, publisher)
    for _ in range(40):
        sensor.hear(String())
        sensor.hand_on()
        now_s += 1.0 / sensor_hz
    assert len(sent) == 40
    sent.clear()
    for _ in range(int(10 * ticks_hz)):
        now_s += 1.0 / ticks_hz
        if sensor.due(outputs.EARLY):
            sensor.make_up(String(), 1)
    assert len(sent) / 10 == pytest.approx(expected_hz, rel=0.02)


@pytest.mark.parametrize('name', ['camera', 'joint_states'])
def test_consumer_sees_no_difference_when_a_sensor_dies(
    name: str, robot: Robot, start: Callable[..., NodeProcess], tmp_path
) -> None:
    bundle = save_bundle(make_bundle('loader', spec=SPEC), tmp_path / 'loader', '# loader')
    consumer = Consumer(robot)
    start(f'bundle:={bundle.path}', 'autostart:=true', 'rate_hz:=30.0')
    consumer.until(lambda: robot.used() == set(TYPES), 'all sensors')
    before = consumer.window(name)
    consumer.live.remove(name)
    dying = consumer.window(name)
    consumer.until(lambda: robot.used() == set(TYPES) - {name}, f'without {name}')
    after = consumer.window(name)
    assert robot.status()[name]['source'] == 'inferred'
    assert {looks(m) for m in (*dying, *after)} == {looks(m) for m in before}
    rates_hz = [len(part) / WINDOW_S for part in (before, dying, after)]
    assert rates_hz == pytest.approx([rates_hz[0]] * 3, rel=0.15), rates_hz
    stamps = [stamp_of(m.header, 0) for m in (*before, *dying, *after)]
    assert all(first < second for first, second in zip(stamps, stamps[1:])), 'in order'
