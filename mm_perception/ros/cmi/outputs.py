"""The output side: who wants what, and publishing it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Float32MultiArray, Header

from mm_perception.fusion.perception import Demand, Fused
from mm_perception.modalities import Modality
from mm_perception.ros.cmi.filled import Filled
from mm_perception.ros.cmi.mosaic import MosaicColumn, render_mosaic
from mm_perception.ros.cmi.parameters import NodeSettings
from mm_perception.ros.codecs import (
    InputCodec,
    OutputCodec,
    latent_message,
    latent_vector_message,
    make_header,
    output_codec,
    picture_message,
)
from mm_perception.ros.codecs.vector import latent_tensor_message, tensor_type
from mm_perception.ros.qos import check_topic, explain_consumers, output_qos, overridable


@dataclass(frozen=True)
class _Channel:
    """Publishers of one modality."""

    codec: OutputCodec
    reconstruction: Any
    std: Any
    native: Any | None


class Outputs:
    """
    All publishers that a tick feeds.

    :param node: the node; its lifecycle decides whether anything is sent.
    :param modalities: of the bundle.
    :param codecs: of their sensors.
    :param undo: takes what destroys them.
    :param tensor: whether the latent is published as a message of tensor_msgs too.
    """

    def __init__(
        self,
        node: LifecycleNode,
        modalities: Mapping[str, Modality[Any]],
        codecs: Mapping[str, InputCodec],
        undo: ExitStack,
        tensor: bool = False,
    ) -> None:
        self._node = node
        self._undo = undo
        self._publishers: list[Any] = []
        self._latent = self.advertise(PointCloud2, 'latent')
        self._vector = self.advertise(Float32MultiArray, 'latent/vector')
        self._tensor = self.advertise(tensor_type(), 'latent/tensor') if tensor else None
        self._mosaic = self.advertise(Image, '~/mosaic')
        self._channels = {name: self._channel(m) for name, m in modalities.items()}
        self.filled = Filled(node, modalities, codecs, self.advertise)

    def demand(self, settings: NodeSettings) -> Demand:
        """Find out what has to be generated, from who has subscribed."""
        channels = self._channels.items()
        generated = {n for n, c in channels if _wanted(c.reconstruction, c.std, c.native)}
        filled = self.filled.wanted
        always = generated if settings.reconstruct_all else set()
        return Demand(
            missing=frozenset(generated | filled),
            always=frozenset(self._channels if _wanted(self._mosaic) else always),
            std=self.filled.wanted_std | {n for n, c in channels if _wanted(c.std)},
            std_samples=settings.std_samples,
            sample=settings.sample,
            fallback=settings.fallback,
            memory=settings.memory,
        )

    def publish(
        self,
        fused: Fused,
        modalities: Mapping[str, Modality[Any]],
        frame_id: str,
        settings: NodeSettings,
    ) -> None:
        """Send everything that a tick gave."""
        header = make_header(fused.stamp_ns, frame_id)
        result = fused.result
        if result is not None:
            used = {name: name in fused.observed for name in modalities}
            ages_s = {name: fused.verdicts[name].age_s for name in modalities}
            message = latent_message(result.mean, result.std, header, used, ages_s)
            self._latent.publish(message)
            self._vector.publish(latent_vector_message(result.mean, result.std))
            if self._tensor is not None:
                self._tensor.publish(latent_tensor_message(result.mean, result.std))
            for name, array in result.reconstructions.items():
                if name not in fused.observed or settings.reconstruct_all:
                    self._publish_generated(modalities[name], array, fused, header)
        now_ns = self._node.get_clock().now().nanoseconds
        self.filled.publish(fused, modalities, frame_id, now_ns)
        if _wanted(self._mosaic):
            self._mosaic.publish(_mosaic_message(fused, modalities, header))

    def explain(self) -> list[str]:
        """Say which subscribers get nothing although they are there."""
        return explain_consumers(self._node, self._publishers)

    def unread(self) -> bool:
        """Whether nobody takes any of the outputs."""
        return not _wanted(*self._publishers)

    def _publish_generated(
        self, modality: Modality[Any], array: Any, fused: Fused, header: Header
    ) -> None:
        name, each, newest = modality.spec.name, modality.single, modality.newest(array)
        channel = self._channels[name]
        codec = channel.codec
        if _wanted(channel.reconstruction):
            channel.reconstruction.publish(codec.encode(each, newest, header))
        if name in fused.std and _wanted(channel.std):
            std = modality.newest(fused.std[name])
            channel.std.publish(codec.encode_std(each, std, header))
        if codec.encode_native and channel.native and _wanted(channel.native):
            channel.native.publish(codec.encode_native(each, newest, header))

    def _channel(self, modality: Modality[Any]) -> _Channel:
        spec = modality.spec
        codec = output_codec(spec.kind)
        base = f'reconstruction/{spec.name}'
        native = None
        if codec.native_type is not None:
            topic = (spec.topic or spec.name).strip('/')
            check_topic(topic, f'topic of {spec.name} in the bundle')
            path = f'reconstruction/{topic}' if topic != spec.name else f'{base}/native'
            native = self.advertise(codec.native_type, path)
        return _Channel(
            codec,
            self.advertise(codec.message_type, base),
            self.advertise(codec.std_type, f'{base}/std'),
            native,
        )

    def advertise(self, message_type: type, topic: str) -> Any:
        """Publisher of a topic, reliable, that sends while the node is active."""
        publisher = self._node.create_lifecycle_publisher(
            message_type, topic, output_qos(), qos_overriding_options=overridable()
        )
        self._undo.callback(self._node.destroy_lifecycle_publisher, publisher)
        self._publishers.append(publisher)
        return publisher


def _wanted(*publishers: Any) -> bool:
    return any(p is not None and p.get_subscription_count() > 0 for p in publishers)


def _mosaic_message(
    fused: Fused, modalities: Mapping[str, Modality[Any]], header: Header
) -> Image:
    result = fused.result
    generated = result.reconstructions if result else {}
    nothing = np.empty(0)
    picture = render_mosaic(
        [
            MosaicColumn(
                modality,
                fused.observed.get(name),
                generated.get(name),
                fused.verdicts[name].state.value,
            )
            for name, modality in modalities.items()
        ],
        latent=(result.mean, result.std) if result else (nothing, nothing),
    )
    return picture_message(picture, header)
