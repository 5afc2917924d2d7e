"""The output side: who wants what, and publishing it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import Image, JointState, PointCloud2
from std_msgs.msg import Float32MultiArray, Header

from mm_perception.errors import InvalidInput
from mm_perception.fusion.health import HOLD
from mm_perception.fusion.results import Demand, Fused
from mm_perception.modalities import Modality
from mm_perception.ros.cmi.camera_info import CameraInfos
from mm_perception.ros.cmi.mosaic import mosaic_message
from mm_perception.ros.cmi.parameters import NodeSettings
from mm_perception.ros.codecs import (
    Draft,
    InputCodec,
    OutputCodec,
    filled_type,
    latent_joints_message,
    latent_message,
    latent_vector_message,
    make_header,
    output_codec,
    restamped,
    stamp_of,
    time_message,
)
from mm_perception.ros.codecs.vector import latent_tensor_message, tensor_type
from mm_perception.ros.parameters import Parameters
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
    :param parameters: of the node.
    :param undo: takes what destroys them.
    """

    def __init__(
        self,
        node: LifecycleNode,
        modalities: Mapping[str, Modality[Any]],
        codecs: Mapping[str, InputCodec],
        parameters: Parameters,
        undo: ExitStack,
    ) -> None:
        self._node = node
        self._undo = undo
        self._publishers: list[Any] = []
        self._latent = self.advertise(PointCloud2, 'latent')
        self._vector = self.advertise(Float32MultiArray, 'latent/vector')
        self._stamped = self.advertise(JointState, 'latent/stamped')
        self._tensor = (
            self.advertise(tensor_type(), 'latent/tensor')
            if parameters['publish.tensor']
            else None
        )
        self._mosaic = self.advertise(Image, '~/mosaic')
        self._channels = {name: self._channel(m) for name, m in modalities.items()}
        self.filled = Filled(node, modalities, codecs, self.advertise)
        begin = self.filled.accompany
        topics = {name: parameters[f'modalities.{name}.topic'] for name in codecs}
        self._infos = CameraInfos(node, codecs, topics, self.advertise, undo, begin)

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
            self._vector.publish(latent_vector_message(result.mean, result.std, header))
            if _wanted(self._stamped):
                self._stamped.publish(latent_joints_message(result.mean, result.std, header))
            if self._tensor is not None:
                self._tensor.publish(latent_tensor_message(result.mean, result.std))
            for name, array in result.reconstructions.items():
                if name not in fused.observed or settings.reconstruct_all:
                    self._publish_generated(modalities[name], array, fused, header)
        now_ns = self._node.get_clock().now().nanoseconds
        self.filled.publish(fused, modalities, frame_id, now_ns, settings.rate_hz)
        if _wanted(self._mosaic):
            self._mosaic.publish(mosaic_message(fused, modalities, header))

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


PATIENCE = 3.0
"""Periods of a sensor after which its next message is late."""
EARLY = 0.75
"""Periods of a sensor after which its next message may be made up: ticks have a beat of theirs."""
UNKNOWN_S, SLOW = 1.0, 0.7
SMOOTHING, MOST = 0.2, 4.0


@dataclass
class _Sensor:
    """
    One modality's sensor and the topic that stands in for it.

    ``newest`` is its last message that could be read, ``good`` its last one that was used, which
    what is made up takes after. ``passing`` is whether messages go on as they come. ``made_ns`` is
    the stamp of what was made up last, 0 if the sensor has spoken since; ``lag_ns`` is how much
    later than their stamps messages come.
    """

    codec: InputCodec
    array: OutputCodec
    publisher: Any
    lock: threading.Lock = field(default_factory=threading.Lock)
    newest: Any = None
    good: Any = None
    sent: Any = None
    passing: bool = False
    made_ns: int = 0
    lag_ns: int = 0
    period_s: float | None = None
    heard_s: float = 0.0
    sent_s: float = 0.0
    complained: bool = False
    told: bool = False
    beside: Callable[[Header], None] | None = None

    @property
    def own(self) -> bool:
        """Whether the topic has the type of the sensor."""
        return self.codec.write is not None

    @property
    def wanted(self) -> bool:
        """Whether anybody has subscribed."""
        return bool(self.publisher.get_subscription_count() > 0)

    def hear(self, message: Any) -> None:
        """Take a message, and how long after the last one it came."""
        now_s = time.monotonic()
        if self.newest is not None:
            pause_s = now_s - self.heard_s
            usual_s = pause_s if self.period_s is None else self.period_s
            self.period_s = usual_s + SMOOTHING * (min(pause_s, MOST * usual_s) - usual_s)
        self.newest, self.heard_s = message, now_s

    def due(self, periods: float) -> bool:
        """Whether something has to be made up, so many periods after what was sent last."""
        period_s = UNKNOWN_S if self.period_s is None else self.period_s
        return time.monotonic() - self.sent_s >= periods * period_s

    def hand_on(self) -> None:
        """Send the newest message as it is, unless its stamp lies before what was made up."""
        message = self.newest
        if message is None or message is self.sent:
            return
        header = getattr(message, 'header', None)
        if header is not None and 0 < stamp_of(header, 0) <= self.made_ns:
            return
        self.sent, self.made_ns, self.sent_s = message, 0, time.monotonic()
        if self.wanted:
            self.publisher.publish(message)
        self._accompany(message)

    def make_up(self, message: Any, stamp_ns: int) -> None:
        """Send a message that the sensor has not sent; on average at the sensor's rate."""
        self.publisher.publish(message)
        now_s, period_s = time.monotonic(), self.period_s or 0.0
        meant_s = self.sent_s + period_s  # a tick comes when it comes
        self.made_ns, self.sent_s = stamp_ns, meant_s if now_s - meant_s < period_s else now_s
        self._accompany(message)

    def _accompany(self, message: Any) -> None:
        if self.beside is not None:
            self.beside(message.header)


class Filled:
    """
    The sensors' stand-ins; sensors deliver in one thread, ticks come in another.

    :param node: whose log says what cannot be in the type of its sensor.
    :param codecs: of the sensors.
    :param advertise: makes a publisher of a type and a topic.
    """

    def __init__(
        self,
        node: LifecycleNode,
        modalities: Mapping[str, Modality[Any]],
        codecs: Mapping[str, InputCodec],
        advertise: Callable[[type, str], Any],
    ) -> None:
        self._node = node
        self._sensors: dict[str, _Sensor] = {}
        for name, modality in modalities.items():
            codec, array = codecs[name], output_codec(modality.spec.kind)
            kind = filled_type(modality.spec.kind, codec)
            publisher = advertise(kind, f'filled/{name}')
            self._sensors[name] = _Sensor(codec, array, publisher)
            if codec.write is None:
                node.get_logger().info(
                    f'filled/{name} is an array as in reconstruction/{name}: no {codec.name} can'
                    ' be made of what the model gives'
                )

    @property
    def wanted(self) -> frozenset[str]:
        """Names of the modalities that somebody has subscribed to."""
        return frozenset(name for name, sensor in self._sensors.items() if sensor.wanted)

    @property
    def wanted_std(self) -> frozenset[str]:
        """Those of them whose messages tell variances."""
        return frozenset(n for n in self.wanted if self._sensors[n].codec.takes_std)

    def accompany(self, name: str, send: Callable[[Header], None]) -> None:
        """Send something with each message of a modality from now on, given its header."""
        self._sensors[name].beside = send

    def take(self, name: str, message: Any) -> None:
        """Take a message of a sensor that could be read; hand it on if its sensor is used."""
        sensor = self._sensors[name]
        if not sensor.own:
            return
        with sensor.lock:
            sensor.hear(message)
            now_ns = self._node.get_clock().now().nanoseconds
            header = getattr(message, 'header', None)
            sensor.lag_ns = 0 if header is None else now_ns - stamp_of(header, now_ns)
            if sensor.passing:
                sensor.hand_on()

    def publish(
        self,
        fused: Fused,
        modalities: Mapping[str, Modality[Any]],
        frame_id: str,
        now_ns: int,
        rate_hz: float,
    ) -> None:
        """
        Send what a tick gave for the sensors that are not used, at their own rate if it can.

        :param frame_id: of what is generated for a sensor that never sent anything.
        :param now_ns: stamp of what is generated, but for a latent that is held.
        :param rate_hz: of the ticks.
        """
        generated = fused.result.reconstructions if fused.result else {}
        stamp_ns = fused.stamp_ns if fused.source == HOLD else now_ns
        for name, sensor in self._sensors.items():
            modality = modalities[name]
            observed = fused.observed.get(name)
            array = generated.get(name) if observed is None else observed
            if sensor.own and observed is not None:
                self._go_on(sensor, now_ns)
                continue
            lost, sensor.passing = sensor.passing, False
            if array is None or not sensor.wanted:
                continue
            each, newest = modality.single, modality.newest(array)
            if not sensor.own:
                header = make_header(fused.stamp_ns, frame_id)
                sensor.publisher.publish(sensor.array.encode(each, newest, header))
                continue
            if not (lost or sensor.good is None or sensor.due(EARLY)):
                continue
            std = modality.newest(fused.std[name]) if name in fused.std else None
            draft = Draft(each, newest, make_header(stamp_ns, frame_id), sensor.good, std)
            self._send(name, sensor, draft, stamp_ns)
            if lost and sensor.period_s is not None and sensor.period_s * rate_hz < SLOW:
                self._say_rate(name, sensor, 1.0 / sensor.period_s, rate_hz)

    def _go_on(self, sensor: _Sensor, now_ns: int) -> None:
        """Let messages pass from now on; while the next one is late, the last is sent again."""
        with sensor.lock:
            sensor.good = sensor.newest
            if not sensor.passing:
                sensor.passing = True
                sensor.hand_on()
            elif sensor.wanted and sensor.due(EARLY if sensor.made_ns else PATIENCE):
                stamp_ns = now_ns - sensor.lag_ns
                sensor.make_up(restamped(sensor.good, time_message(stamp_ns)), stamp_ns)

    def _say_rate(self, name: str, sensor: _Sensor, own_hz: float, rate_hz: float) -> None:
        """Say once that ticks come less often than the sensor sent."""
        if not sensor.told:
            self._node.get_logger().info(
                f'filled/{name}: the sensor sent at {own_hz:.3g} Hz, what stands in for it comes'
                f' at {rate_hz:.3g} Hz: raise rate_hz'
            )
        sensor.told = True

    def _send(self, name: str, sensor: _Sensor, draft: Draft, stamp_ns: int) -> None:
        """Send what the sensor would have sent."""
        assert sensor.codec.write is not None
        try:
            message = sensor.codec.write(draft)
        except InvalidInput as error:
            if not sensor.complained:
                self._node.get_logger().warning(f'filled/{name}: cannot be made: {error}')
            sensor.complained = True
            return
        with sensor.lock:
            sensor.make_up(message, stamp_ns)


def _wanted(*publishers: Any) -> bool:
    return any(p is not None and p.get_subscription_count() > 0 for p in publishers)
