"""A robot's sensors and a consumer of what the node publishes, in the test's own process."""

from __future__ import annotations

import os
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from mm_perception.lab.harness import processes
from mm_perception.lab.harness.client import RosClient
from mm_perception.modalities import Motion
from mm_perception.ros.codecs import audio_message, image_message, trajectory_message

ROOT = Path(__file__).parents[2]
RATE_HZ = 8000
CHUNK_S = 0.05
WINDOWS_S = 30.0
REPEAT_S, SETTLE_S = 5.0, 0.4
TOPICS = {'image': Image, 'trajectory': JointTrajectory, 'audio': PointCloud2, 'symbol': String}
SENSORS = {'image': 'image', 'trajectory': 'trajectory', 'sound': 'audio', 'symbol': 'symbol'}


class NodeProcess(processes.NodeProcess):
    """The node in a process of its own; parameters are of the form ``name:=value``."""

    def __init__(
        self,
        log: Path,
        *parameters: str,
        module: str = 'cmi_node',
        namespace: str = '/',
        script: Path | None = None,
    ) -> None:
        arguments = ['-r', f'__ns:={namespace}']
        for parameter in parameters:
            arguments += ['-p', parameter]
        # After ours comes what a sourced ROS 2 has put there.
        path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
        environment = {'PYTHONPATH': path, 'OMP_NUM_THREADS': '1'}
        program = () if script is None else (str(script),)
        super().__init__(
            module, log, arguments=arguments, program=program, environment=environment
        )


class Robot(RosClient):
    """
    Sensors that can be switched off one by one, and everything that came back.

    ``live`` holds the modalities whose sensors work.
    """

    periods_s: ClassVar[dict[str, float]] = {
        'image': 0.033,
        'sound': CHUNK_S,
        'trajectory': 0.2,
        'symbol': 0.2,
    }

    def __init__(self, namespace: str = '') -> None:
        self.live: set[str] = set()
        self._clients: dict[str, Any] = {}
        self.received: dict[str, deque[Any]] = defaultdict(lambda: deque(maxlen=500))
        super().__init__('robot', namespace=namespace)
        self.publishers = {
            topic: self.node.create_publisher(kind, topic, 10) for topic, kind in TOPICS.items()
        }
        self.watch('latent', PointCloud2)
        self.watch('cmi/status', DiagnosticArray)
        pixels = np.full((480, 640, 3), 250, np.uint8)
        pixels[100:400, 300:330] = 20
        self._pixels = pixels
        self._noise = np.random.default_rng(0).integers(0, 2, 2 * pixels.size, np.uint8)
        angle = np.linspace(0.0, 5.0, 40, dtype=np.float32)
        self._motion = Motion(np.stack((np.cos(angle), np.sin(angle)), axis=1), angle)
        self._due = dict.fromkeys(SENSORS, 0.0)
        self._audio_phase = 0

    def watch(self, topic: str, kind: type, depth: int = 50) -> Any:
        """Collect the messages of a topic in ``received``."""
        profile = QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE)

        def take(message: Any) -> None:
            self.received[topic].append(message)

        return self.subscribe(kind, topic, take, profile)

    def now_ns(self) -> int:
        """Time of the robot's clock."""
        return int(self.node.get_clock().now().nanoseconds)

    def step(self) -> None:
        """Publish what is due, take what has arrived."""
        now_s = time.monotonic()
        for name in list(self.live):
            if now_s >= self._due[name]:
                self.send(name)
                period_s = self.periods_s[name]
                self._due[name] = max(self._due[name] + period_s, now_s - period_s)
        super().step()

    def send(self, name: str) -> None:
        """Publish what a sensor sees now."""
        getattr(self, f'_send_{name}')()

    def until(self, condition: Callable[[], Any], what: str, timeout_s: float = 15.0) -> Any:
        """Go on until a condition holds; its value."""
        value = self.wait(condition, timeout_s)
        if value:
            return value
        raise AssertionError(f'{what}: not within {timeout_s} s; status: {self.status()}')

    def until_window(
        self, topic: str, seconds: float, good: Callable[[list[Any]], Any], what: str
    ) -> None:
        """Go on until what came on a topic in some window of a length is as it should be."""

        def window() -> Any:
            self.received[topic].clear()
            self.run(seconds)
            return good(self.received[topic])

        self.until(window, what, WINDOWS_S)

    def fresh(self, topic: str, what: str = '', timeout_s: float = 15.0) -> Any:
        """Next message of a topic."""
        self.received[topic].clear()
        self.until(lambda: self.received[topic], what or f'message on {topic}', timeout_s)
        return self.received[topic][-1]

    def status(self) -> dict[str, dict[str, str]]:
        """Newest ``~/status`` as plain data: modality to keys and values."""
        messages = self.received['cmi/status']
        entries = messages[-1].status if messages else []
        return {entry.name: {v.key: v.value for v in entry.values} for entry in entries}

    def until_state(self, name: str, state: str, timeout_s: float = 15.0) -> dict[str, str]:
        """Go on until a modality has a state; its status."""
        condition = lambda: self.status().get(name, {}).get('state') == state  # noqa: E731
        self.until(condition, f'{name} {state}', timeout_s)
        return self.status()[name]

    def until_used(self, names: set[str], timeout_s: float = 15.0) -> None:
        """Go on until exactly these modalities take part in the fusion."""
        self.until(lambda: self.used() == names, f'used {sorted(names)}', timeout_s)

    def used(self) -> set[str]:
        """Modalities that took part in the latest fusion."""
        return {name for name, values in self.status().items() if values['used'] == 'true'}

    def call(self, kind: type, name: str, request: Any, timeout_s: float = 20.0) -> Any:
        """
        Call a service of the node while the sensors go on.

        A server that does not know the client yet drops its answer (rmw_fastrtps waits for it
        0.1 s): what may be asked twice is asked again.
        """
        client = self._client(kind, name, timeout_s)
        repeat_s = timeout_s if kind in (ChangeState, Trigger) else REPEAT_S
        for left_s in np.arange(timeout_s, 0.0, -repeat_s):
            future = client.call_async(request)
            try:
                self.until(future.done, f'answer of {name}', min(repeat_s, left_s))
                return future.result()
            except AssertionError:
                if left_s <= repeat_s:
                    raise
        raise AssertionError(name)

    def _client(self, kind: type, name: str, timeout_s: float) -> Any:
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, name)
            self.until(self._clients[name].service_is_ready, f'service {name}', timeout_s)
            self.run(SETTLE_S)
        self.until(self._clients[name].service_is_ready, f'service {name}', timeout_s)
        return self._clients[name]

    def change_state(self, transition: int, node: str = 'cmi') -> bool:
        """Ask for a lifecycle transition; whether it succeeded."""
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(self.call(ChangeState, f'{node}/change_state', request).success)

    def set_parameter(self, name: str, value: Any, node: str = 'cmi') -> None:
        """Set a parameter of the node, which must take it."""
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        result = self.call(SetParameters, f'{node}/set_parameters', request).results[0]
        assert result.successful, result.reason

    def state(self, node: str = 'cmi') -> str:
        """Lifecycle state of the node."""
        answer = self.call(GetState, f'{node}/get_state', GetState.Request())
        return str(answer.current_state.label)

    def _send_image(self) -> None:
        self.publishers['image'].publish(image_message(self.picture(), self.now_ns()))

    def picture(self) -> np.ndarray:
        """What the camera sees now: a bar, with noise in the lowest bit as every camera has."""
        start = int(time.monotonic_ns() // 1_000_000 % self._pixels.size)
        noise = self._noise[start : start + self._pixels.size]
        return self._pixels ^ noise.reshape(self._pixels.shape)

    def _send_trajectory(self) -> None:
        self.publishers['trajectory'].publish(trajectory_message(self._motion, self.now_ns()))

    def _send_symbol(self) -> None:
        self.publishers['symbol'].publish(String(data='3'))

    def _send_sound(self) -> None:
        """Send 0.14 s of sound, then 0.26 s of silence, and so on: one utterance in 0.4 s."""
        count = int(RATE_HZ * CHUNK_S)
        index = self._audio_phase * count + np.arange(count)
        self._audio_phase += 1
        loud = index % int(0.4 * RATE_HZ) < int(0.14 * RATE_HZ)
        samples = np.where(loud, 0.5 * np.sin(index * 0.4), 0.0).astype(np.float32)
        stamp_ns = self.now_ns() - int(CHUNK_S * 1e9)
        self.publishers['audio'].publish(audio_message(samples, RATE_HZ, stamp_ns))


def robots(namespace: str = '') -> Iterator[Robot]:
    """Yield a robot and take it off the graph afterwards; for fixtures."""
    robot = Robot(namespace)
    try:
        yield robot
    finally:
        robot.close()


def isolate() -> None:
    """Keep the tests' nodes among themselves, unless the environment says where they are."""
    for name, value in processes.ros_environment(processes.free_domain()).items():
        os.environ.setdefault(name, value)
