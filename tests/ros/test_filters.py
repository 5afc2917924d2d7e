"""Filters of a user's own before a sensor, by parameter and by subclass, and complete sets."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from std_msgs.msg import Float32MultiArray, String

from mm_perception.bundle import Bundle
from mm_perception.errors import ConfigError, InvalidInput, MissingDependency
from mm_perception.ros.cmi.filters import put_in_front
from mm_perception.ros.cmi_node import CmiNode
from mm_perception.ros.codecs import image_message
from mm_perception.ros.codecs.vector import tensor_type
from tests.helpers.robot import SENSORS, Robot

ROOT = Path(__file__).parents[2]
FILTERS = 'tests.helpers.filters'


def chain(received: list[Any], *names: str) -> Any:
    return put_in_front(names, received.append, 'modalities.symbol.filters')


def test_filters_run_in_order_and_change_what_is_received() -> None:
    received: list[Any] = []
    take = chain(received, f'{FILTERS}.EverySecond', f'{FILTERS}.Corrected')
    for word in ('one', 'nothing', 'three'):
        take(String(data=word), {'source_timestamp': 1})
    assert [message.data for message in received] == ['1', '3']


def test_filters_that_fail_refuse_the_message_and_not_the_next() -> None:
    received: list[Any] = []
    take = chain(received, f'{FILTERS}.Corrected')
    unread = InvalidInput('70 fields; at most 64 are read')
    for message in (String(data='broken'), unread, String(data='two')):
        take(message)
    refused, same, good = received
    assert isinstance(refused, InvalidInput) and 'no such word' in str(refused)
    assert same is unread and good.data == '2'


@pytest.mark.parametrize(
    ('name', 'says'),
    [
        ('nowhere.Filter', 'nowhere.Filter cannot be made'),
        (f'{FILTERS}.Absent', 'no attribute'),
        ('Denoise', 'package.module.Class'),
        (f'{FILTERS}.NoFilter', 'no registerCallback'),
    ],
)
def test_filters_that_are_none_are_refused_in_one_line(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=r'modalities\.symbol\.filters') as caught:
        chain([], name)
    assert says in str(caught.value) and '\n' not in str(caught.value)


def test_filters_of_message_filters_go_in_front() -> None:
    message_filters = pytest.importorskip('message_filters', reason='comes with ROS 2')
    received: list[Any] = []
    take = chain(received, f'{__name__}.headerless_cache')
    take(String(data='7'))
    assert isinstance(received[0], String)
    page = (ROOT / 'docs' / 'reference' / 'node.md').read_text(encoding='utf-8')
    scope: dict[str, Any] = {}
    exec(page.split('```python\n')[1].split('```')[0], scope)  # noqa: S102 - code of ours
    shown = scope['Denoise'](message_filters.SimpleFilter())
    shown.registerCallback(received.append)
    noisy = np.zeros((5, 5), np.uint8)
    noisy[2, 2] = 255
    shown.take(image_message(noisy, 7))
    assert not np.frombuffer(received[1].data, np.uint8).any()
    assert received[1].header.stamp.nanosec == 7


def headerless_cache(source: Any) -> Any:
    """Make a Cache of the real package."""
    from message_filters import Cache

    return Cache(source, 3, allow_headerless=True)


class Shouting(CmiNode):
    """A subclass that puts something before every String."""

    def subscribe_input(
        self, message_type: type, topic: str, callback: Any, **options: Any
    ) -> Any:
        """Subscribe; three is said for 3."""

        def take(message: Any, info: Any = None) -> None:
            if message_type is String:
                message = String(data=message.data.replace('three', '3'))
            callback(message, info)

        return super().subscribe_input(message_type, topic, take, **options)


@pytest.fixture
def robot(bundle: Bundle) -> Iterator[Robot]:
    """A robot that says its labels in words."""
    robot = Robot('/words')
    robot.word = 'three'
    robot._send_symbol = lambda: robot.publishers['symbol'].publish(String(data=robot.word))
    yield robot
    robot.close()


@pytest.fixture
def run(bundle: Bundle, robot: Robot) -> Iterator[Any]:
    """Run a node of some class with some parameters in the robot's process."""
    made: list[Any] = []

    def begin(kind: type[CmiNode], **parameters: Any) -> CmiNode:
        given = {'bundle': str(bundle.path), **parameters}
        overrides = [rclpy.parameter.Parameter(k, value=v) for k, v in given.items()]
        node = kind(namespace='/words', parameter_overrides=overrides, context=robot.context)
        robot._executor.add_node(node)
        made.append(node)
        node.trigger_configure()
        node.trigger_activate()
        return node

    yield begin
    for node in made:
        node.release()
        robot._executor.remove_node(node)
        node.destroy_node()


def test_node_reads_what_filters_named_by_a_parameter_give(run: Any, robot: Robot) -> None:
    node = run(CmiNode, **{'modalities.symbol.filters': [f'{FILTERS}.Corrected']})
    node.trigger_deactivate()
    node.trigger_cleanup()
    other = rclpy.parameter.Parameter('modalities.symbol.filters', value=['os.system'])
    (result,) = node.set_parameters([other])
    assert not result.successful and 'given at start only' in result.reason
    node.trigger_configure()
    node.trigger_activate()
    robot.live = {'symbol', 'image'}
    robot.until_used({'symbol', 'image'})
    robot.word = 'broken'
    assert 'no such word' in robot.until_state('symbol', 'rejected')['reason']
    assert robot.used() == {'image'}
    robot.word = 'two'
    robot.until_used({'symbol', 'image'})


def test_node_reads_what_a_subclass_puts_in_front(run: Any, robot: Robot) -> None:
    run(Shouting)
    robot.live = {'symbol'}
    robot.until_used({'symbol'})


def test_node_publishes_the_latent_as_a_tensor_where_there_is_the_message(
    run: Any, robot: Robot
) -> None:
    messages = pytest.importorskip('tensor_msgs.msg', reason='tensor_msgs comes with Lyrical')
    run(CmiNode, **{'publish.tensor': True})
    robot.word = '3'
    robot.live = {'symbol'}
    robot.watch('latent/tensor', messages.ExperimentalTensor)
    robot.watch('latent/vector', Float32MultiArray)
    tensor = robot.fresh('latent/tensor')
    assert (tensor.dtype_code, tensor.dtype_bits, tensor.dtype_lanes) == (2, 32, 1)
    assert list(tensor.shape) == [2, 8] and not tensor.strides and tensor.byte_offset == 0
    values = np.frombuffer(tensor.data, '<f4')
    np.testing.assert_array_equal(values, robot.fresh('latent/vector').data)


def test_node_that_wants_complete_sets_fuses_nothing_else(run: Any, robot: Robot) -> None:
    node = run(CmiNode, sync='complete', sync_slop_s=0.3)
    robot.word = '3'
    robot.live = set(SENSORS) - {'trajectory'}
    robot.until_state('sound', 'ok')
    lacking = 'no complete set: no value within 0.3 s of the newest of trajectory'
    for _ in range(100):  # on a busy machine sound may lack for a moment, too
        entry = robot.status()['image']
        if entry['reason'] == lacking:
            break
    assert (entry['state'], entry['used'], entry['reason']) == ('ok', 'false', lacking)
    assert not robot.received['latent']
    robot.live.add('trajectory')
    robot.until_used(set(SENSORS))
    robot.fresh('latent')
    robot.live.remove('symbol')
    robot.until_used(set())
    robot.received['latent'].clear()
    robot.run(0.5)
    assert not robot.received['latent']
    node.set_parameters([rclpy.parameter.Parameter('modalities.symbol.enabled', value=False)])
    robot.until_used(set(SENSORS) - {'symbol'})


def test_latent_as_a_tensor_without_tensor_msgs_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, 'tensor_msgs.msg', None)
    with pytest.raises(MissingDependency, match=r'needs tensor_msgs: .*-tensor-msgs$'):
        tensor_type()
