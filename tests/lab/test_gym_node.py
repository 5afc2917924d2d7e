"""Environments of gymnasium over topics: messages, faults, actions, and runs that repeat."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

pytest.importorskip('rclpy', reason='rclpy is not installed')

from sensor_msgs.msg import JointState, PointCloud2
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import Trigger

import mm_perception
from mm_perception.errors import ConfigError
from mm_perception.lab.gym.environment import (
    Actuator,
    GymSensor,
    make_environment,
    sensor_specs,
)
from mm_perception.lab.replay.playlist import active_faults, parse_schedule
from mm_perception.modalities import build_modality
from mm_perception.rl.pendulum import ID
from mm_perception.rl.policy import load_policy
from mm_perception.ros.codecs import input_codec
from mm_perception.spec import ModalitySpec
from tests.helpers.acting_pendulum import STAMPED, save_pendulum
from tests.helpers.robot import NodeProcess, Robot, isolate

isolate()
SPACE = '/gymnasium'
STEP_NS, PAUSE_NS, STEPS, EPISODES = 50_000_000, 400_000_000, 50, 2
SCHEDULE = [
    {'sensors': ['camera'], 'start_s': 0.5, 'duration_s': 0.6},
    {'sensors': ['joints', 'microphones'], 'start_s': 1.2, 'duration_s': 0.5},
    {'sensors': ['joints'], 'start_s': 3.0, 'duration_s': 1.0, 'fault': 'frozen'},
]
STILL = ModalitySpec('camera', 'image', 4, {'height': 4, 'width': 5, 'channels': 3})
TOUCH = ModalitySpec('touch', 'vector', 2, {'low': (-9.0,) * 6, 'high': (9.0,) * 6})


# Sensors and actions


@pytest.mark.parametrize('message', ['sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'])
def test_gym_sensor_sends_what_the_camera_sees(message: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    sensor = GymSensor(replace(STILL, topic='eye', message=message), 0.05, 0)
    sent = sensor.send(pixels, 7, None)
    raw, stamp_ns = input_codec('image', message).decode(sent, 0, build_modality(STILL))
    np.testing.assert_array_equal(raw, pixels)
    assert (sensor.topic, stamp_ns) == ('eye', 7)


@pytest.mark.parametrize(
    'name', ['JointState', 'PointCloud2', 'WrenchStamped', 'std_msgs/msg/Float32MultiArray']
)
def test_gym_sensor_sends_numbers(name: str) -> None:
    package = 'geometry_msgs' if name == 'WrenchStamped' else 'sensor_msgs'
    message = name if '/' in name else f'{package}/msg/{name}'
    values = np.arange(6, dtype=np.float64)
    sent = GymSensor(replace(TOUCH, message=message), 0.05, 0).send(values, 7, None)
    raw, stamp_ns = input_codec('vector', message).decode(sent, 3, build_modality(TOUCH))
    np.testing.assert_array_equal(raw, values)
    assert stamp_ns == (3 if '/' in name else 7)


def test_gym_sensor_sends_sound_as_long_as_a_step() -> None:
    spec = ModalitySpec('ear', 'sound', 4)
    sent = GymSensor(spec, 0.05, 0).send(np.zeros(400), 10**9, None)
    raw, stamp_ns = input_codec('sound').decode(sent, 0, build_modality(spec))
    assert (raw.rate_hz, stamp_ns) == (8000, 10**9 - STEP_NS)


def test_gym_sensor_fails_as_the_schedule_says() -> None:
    sensor = GymSensor(replace(TOUCH, message=STAMPED['joints']), 0.05, 0)
    first, second = np.ones(6), np.full(6, 2.0)
    sent = lambda value, fault: list(sensor.send(value, 1, fault).position)  # noqa: E731
    assert sent(first, None) == [1.0] * 6
    assert sensor.send(second, 1, 'silent') is None
    assert sent(second, 'frozen') == [1.0] * 6, 'what it gave before'
    assert sent(second, 'black') == [0.0] * 6
    assert np.isnan(sent(second, 'nan')).all()
    assert np.ptp(sent(second, 'noise')) > 0.0
    assert sent(second, None) == [2.0] * 6


def test_gym_sensors_come_from_the_space_or_from_the_bundle() -> None:
    eye, numbers = spaces.Box(0, 255, (8, 8, 3), np.uint8), spaces.Box(-1.0, 1.0, (2,))
    space = spaces.Dict({'eye': eye, 'joint': numbers, 'word': spaces.Discrete(3)})
    kinds = {spec.name: spec.kind for spec in sensor_specs(space, {})}
    assert kinds == {'eye': 'image', 'joint': 'vector', 'word': 'symbol'}
    assert [spec.name for spec in sensor_specs(numbers, {})] == ['observation']
    assert sensor_specs(spaces.Dict({'touch': numbers, 'eye': eye}), {'touch': TOUCH}) == [TOUCH]
    with pytest.raises(ConfigError, match='has touch, which the environment does not observe'):
        sensor_specs(space, {'touch': TOUCH})
    with pytest.raises(ConfigError, match='cannot send observation'):
        sensor_specs(spaces.MultiBinary(3), {})


def test_actuator_gives_what_the_environment_takes() -> None:
    torque = Actuator(spaces.Box(-2.0, 2.0, (1,)))
    np.testing.assert_array_equal(torque.apply(np.array([5.0])), [2.0])
    np.testing.assert_array_equal(torque.apply(None), [0.0])
    push = Actuator(spaces.Discrete(2))
    assert [push.apply(np.array([value])) for value in (-1.0, 0.4, 0.9, 7.0)] == [0, 0, 1, 1]
    with pytest.raises(ConfigError, match='names: 2 given; the environment takes 1'):
        Actuator(spaces.Discrete(2), ('a', 'b'))
    with pytest.raises(ConfigError, match='known: Box and Discrete'):
        Actuator(spaces.MultiBinary(3))


@pytest.mark.parametrize(
    ('name', 'options', 'reason'),
    [
        ('Nowhere-v0', '', 'Nowhere-v0 cannot be made'),
        ('CartPole-v1', '{', 'options: not JSON'),
        ('CartPole-v1', '[]', 'options: expected a JSON object'),
    ],
)
def test_environment_that_cannot_be_made_says_why(name: str, options: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        make_environment(name, options)
    assert '\n' not in str(caught.value)


# Over topics


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Any]:
    """Start nodes that end with the test: ``start(module, *parameters)``."""
    started: list[NodeProcess] = []

    def start(module: str, *parameters: str) -> NodeProcess:
        log = tmp_path / f'{len(started)}.log'
        started.append(NodeProcess(log, *parameters, module=module, namespace=SPACE))
        return started[-1]

    yield start
    codes = [node.stop() for node in started]
    assert not any(codes), [node.log for node in started]
    assert not any('Traceback' in node.log for node in started)


@pytest.fixture
def watcher() -> Iterator[Robot]:
    """Who watches the truth."""
    robot = Robot(SPACE)
    robot.watch('gym/truth', String)
    yield robot
    robot.close()


def truths(robot: Robot) -> list[dict[str, Any]]:
    """What the node told."""
    return [json.loads(message.data) for message in robot.received['gym/truth']]


def play(folder: Path) -> list[float]:
    """Returns of the same episodes without ROS, by the front door."""
    policy, perception = load_policy(folder), mm_perception.load(str(folder))
    layout = policy.spec.observation
    env = gymnasium.make(ID, max_episode_steps=STEPS)
    schedule = parse_schedule(json.dumps(SCHEDULE), perception.names)
    returns, now_ns, step = [], 10**18, 0
    frozen: dict[str, Any] = {}
    for episode in range(EPISODES):
        observation, _ = env.reset(seed=episode)
        returns.append(0.0)
        now_ns += PAUSE_NS
        cut = False
        while not cut:
            faults = active_faults(schedule, (step + 0.5) * STEP_NS * 1e-9)
            for name in perception.names:
                if faults.get(name) != 'frozen':
                    frozen[name] = observation[name]
                if faults.get(name) != 'silent':
                    perception.update(name, frozen[name], now_ns)
            result = perception.infer((), now_ns=now_ns)
            action = policy.act(layout.build(result.latent, result.std, result.mask))
            observation, reward, _, cut, _ = env.step(action)
            returns[-1] += float(reward)
            now_ns, step = now_ns + STEP_NS, step + 1
    return returns


def test_gym_in_lockstep_gives_what_the_same_episodes_give_offline(
    processes: Any, watcher: Robot, tmp_path: Path
) -> None:
    folder = tmp_path / 'pendulum'
    save_pendulum(folder)
    shared = f'bundle:={folder}', 'use_sim_time:=true', 'autostart:=true'
    processes('cmi_node', *shared, 'trigger:=stamp', 'stamp.wait_s:=1.0')
    policy = f'policy:={folder}', *shared[1:], f'message:={STAMPED["joints"]}'
    processes('policy_node', *policy)
    processes(
        'gym_node',
        f'bundle:={folder}',
        'mode:=lockstep',
        f'episodes:={EPISODES}',
        f'options:=\'{{"max_episode_steps": {STEPS}}}\'',
        f"schedule:='{json.dumps(SCHEDULE)}'",
    )
    latents: list[int] = []
    watcher.subscribe(
        PointCloud2,
        'latent',
        lambda m: latents.append(m.header.stamp.sec * 10**9 + m.header.stamp.nanosec),
        300,
    )
    last = watcher.until(
        lambda: next((t for t in truths(watcher) if t['done']), None), 'all episodes', 60.0
    )
    assert last['late'] == 0
    np.testing.assert_allclose(last['returns'], play(folder), rtol=1e-3)
    begun = {t['stamp_ns'] for t in truths(watcher) if t['begun'] and t['action'] is not None}
    fused = [stamp for stamp in latents if stamp in begun]
    assert len(fused) > 0.9 * (STEPS - 1) * EPISODES
    assert len(fused) == len(set(fused)), 'one fusion per step'


def test_gym_in_real_time_takes_actions_and_begins_again(processes: Any, watcher: Robot) -> None:
    processes(
        'gym_node',
        'environment:=CartPole-v1',
        'wait_for_policy:=false',
        'message:=std_msgs/msg/Float64MultiArray',
        'rate_hz:=50',
        'sensors.observation.topic:=cart',
    )
    watcher.watch('cart', JointState)
    actions = watcher.node.create_publisher(Float64MultiArray, 'action', 1)
    watcher.until(lambda: len(truths(watcher)) > 5, 'steps', 30.0)
    assert len(watcher.fresh('cart').position) == 4
    actions.publish(Float64MultiArray(data=[1.0]))
    watcher.until(lambda: truths(watcher)[-1]['action'] == [1.0], 'action')
    watcher.until(lambda: truths(watcher)[-1]['episode'] > 0, 'next episode', 30.0)
    first = truths(watcher)[-1]
    assert first['returns'][0] >= 5.0, 'a point per step until it fell'
    answer = watcher.call(Trigger, 'gym/reset', Trigger.Request())
    assert answer.success
    watcher.until(lambda: not truths(watcher)[-1]['returns'], 'first episode')
