"""The node ``view``: shows the node ``cmi`` in a browser, and takes sensors away there."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import Float32MultiArray

from mm_perception.errors import MissingDependency
from mm_perception.ros.codecs.parts import read_message
from mm_perception.ros.lifecycle import run_node
from mm_perception.ros.parameters import Parameters, ParameterSpec
from mm_perception.ros.qos import output_qos

LOOK_S = 0.1
QUALITY = 80
SHOWN = ('state', 'fault', 'age_ms', 'source', 'error')
ROWS = (
    ParameterSpec(
        'address',
        '127.0.0.1',
        'Where the page is served; any other than the own machine only with a token.',
        True,
    ),
    ParameterSpec('port', 8080, 'Port of the page; 0: a free one.', True, span=(0, 65535)),
    ParameterSpec(
        'token', '', 'What the address has to end with: /?token=TOKEN; empty: none.', True
    ),
    ParameterSpec('target', 'cmi', 'Node that is shown, in the same namespace.', True),
    ParameterSpec('rate_hz', 20.0, 'Pictures per second, at most.', True, span=(0.1, 60.0)),
)


class ViewNode(Node):
    """Subscribes to what ``cmi`` says of itself while somebody looks, and hands it to the page."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('view', **kwargs)
        self.parameters = Parameters(self)
        self.parameters.declare(ROWS)
        get, self._target = self.parameters, self.parameters['target']
        self._names: frozenset[str] = frozenset()
        self._wishes: dict[str, bool] = {}
        self._subscriptions_of_page: list[Any] = []
        self._picture_s = 0.0
        self._setter = self.create_client(SetParameters, f'{self._target}/set_parameters')
        self._server = load_server()(get['address'], get['port'], get['token'], self._take_wish)
        self.create_timer(LOOK_S, self._look)
        query = f'/?token={get["token"]}' if get['token'] else ''
        self.get_logger().info(f'open http://{get["address"]}:{self._server.port}{query}')

    def release(self) -> None:
        """End the server."""
        self._server.stop()

    def _look(self) -> None:
        """Subscribe while somebody looks, and pass their wishes on."""
        if self._server.watched != bool(self._subscriptions_of_page):
            self._watch(self._server.watched)
        wishes, self._wishes = self._wishes, {}
        for name, on in wishes.items():
            self._enable(name, on)

    def _take_wish(self, name: str, on: bool) -> None:
        """Keep the last wish about each modality that there is; any thread may call."""
        if name in self._names:
            self._wishes[name] = on

    def _watch(self, begin: bool) -> None:
        for subscription in self._subscriptions_of_page:
            self.destroy_subscription(subscription)
        self._subscriptions_of_page = [
            self.create_subscription(kind, topic, reader(kind, take), output_qos(), raw=True)
            for kind, topic, take in (
                (Image, f'{self._target}/mosaic', self._take_picture),
                (DiagnosticArray, f'{self._target}/status', self._take_status),
                (DiagnosticArray, '/diagnostics', self._take_rates),
                (Float32MultiArray, 'latent/vector', self._take_latent),
            )
            if begin
        ]

    def _enable(self, name: str, on: bool) -> None:
        if not self._setter.service_is_ready():
            self.get_logger().warning(f'{self._setter.srv_name} is not there')
            return
        parameter = Parameter(f'modalities.{name}.enabled', value=on)
        request = SetParameters.Request(parameters=[parameter.to_parameter_msg()])
        self._setter.call_async(request)

    def _take_picture(self, message: Image) -> None:
        now_s = time.monotonic()
        if now_s - self._picture_s < 1.0 / self.parameters['rate_hz']:
            return
        size = message.height * message.width * 3
        if size == 0 or size != len(message.data):
            return  # no picture of cmi's
        self._picture_s = now_s
        pixels = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
        _, encoded = cv2.imencode('.jpg', pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        self._server.send('picture', encoded.tobytes())

    def _take_status(self, message: DiagnosticArray) -> None:
        sensors = []
        for entry in message.status:
            values = {pair.key: pair.value for pair in entry.values}
            sensors.append({'name': entry.name, **{key: values.get(key, '') for key in SHOWN}})
        self._names = frozenset(sensor['name'] for sensor in sensors)
        self._server.send('status', json.dumps({'sensors': sensors}))

    def _take_rates(self, message: DiagnosticArray) -> None:
        own = f'{self._target}: '
        rates = {
            entry.name.removeprefix(own): pair.value
            for entry in message.status
            for pair in entry.values
            if entry.name.startswith(own) and pair.key == 'rate_hz'
        }
        if rates:
            self._server.send('rates', json.dumps({'rates': rates}))

    def _take_latent(self, message: Float32MultiArray) -> None:
        values = np.asarray(message.data, np.float32)
        std = float(values[len(values) // 2 :].mean()) if len(values) else math.nan
        if math.isfinite(std):
            self._server.send('latent', json.dumps({'std': std}))


def reader(kind: type, take: Callable[[Any], None]) -> Callable[[bytes], None]:
    """
    Callback for serialized messages.

    :param take: called with those that can be read.
    """

    def read(data: bytes) -> None:
        message = read_message(data, kind)
        if isinstance(message, kind):
            take(message)

    return read


def load_server() -> Any:
    """
    Import the server.

    :raises MissingDependency: if the library that it needs is not installed.
    """
    try:
        from mm_perception.ros.view.server import Server
    except ModuleNotFoundError as error:
        raise MissingDependency(
            'view_node needs aiohttp: sudo apt-get install python3-aiohttp, or pip install aiohttp'
        ) from error
    return Server


def main(args: list[str] | None = None) -> int:
    """Run the node in a process of its own."""
    return run_node(ViewNode, args=args)


if __name__ == '__main__':
    sys.exit(main())
