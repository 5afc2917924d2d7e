"""``filled/<modality>/camera_info``: the calibration of a camera beside what is filled in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from mm_perception.ros.codecs import InputCodec, restamped
from mm_perception.ros.qos import check_topic, input_qos, overridable

PICTURES = {Image: 1, CompressedImage: 2}
"""Types of cameras, and how many names of their topic ``camera_info`` stands in place of."""


def info_topic(topic: str, message_type: type) -> str:
    """Topic of the calibration that lies beside pictures, as image_transport defines it."""
    kept = topic.split('/')[: -PICTURES[message_type]]
    return '/'.join([*kept, 'camera_info'])


class CameraInfos:
    """
    Hands on the newest calibration of each camera, stamped as the picture that it goes with.

    :param node: that subscribes.
    :param codecs: of the sensors.
    :param topics: of the sensors, by modality.
    :param advertise: makes a publisher of a type and a topic.
    :param undo: takes what destroys the subscriptions.
    :param begin: called with a modality, and what sends its calibration with the header of a
        picture, when the first one has come.
    """

    def __init__(
        self,
        node: Node,
        codecs: Mapping[str, InputCodec],
        topics: Mapping[str, str],
        advertise: Callable[[type, str], Any],
        undo: ExitStack,
        begin: Callable[[str, Callable[[Header], None]], None],
    ) -> None:
        self._begin = begin
        self._newest: dict[str, CameraInfo] = {}
        self._publishers: dict[str, Any] = {}
        for name, codec in codecs.items():
            if codec.message_type not in PICTURES:
                continue
            check_topic(topics[name], f'modalities.{name}.topic')
            self._publishers[name] = advertise(CameraInfo, f'filled/{name}/camera_info')
            subscription = node.create_subscription(
                CameraInfo,
                info_topic(topics[name], codec.message_type),
                partial(self._keep, name),
                input_qos(1),
                qos_overriding_options=overridable(),
            )
            undo.callback(node.destroy_subscription, subscription)

    def _send(self, name: str, header: Header) -> None:
        """Send the calibration of a camera with a picture, if somebody listens."""
        if self._publishers[name].get_subscription_count():
            self._publishers[name].publish(restamped(self._newest[name], header.stamp))

    def _keep(self, name: str, message: CameraInfo) -> None:
        first, self._newest[name] = name not in self._newest, message
        if first:
            self._begin(name, partial(self._send, name))
