"""``filled/<modality>``: what a sensor sends while it is used, else what it would have sent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rclpy.lifecycle import LifecycleNode

from mm_perception.errors import InvalidInput
from mm_perception.fusion.health import HOLD, State
from mm_perception.fusion.perception import Fused
from mm_perception.modalities import Modality
from mm_perception.ros.codecs import (
    Draft,
    InputCodec,
    OutputCodec,
    filled_type,
    make_header,
    output_codec,
    restamped,
    stamp_of,
    time_message,
)

Advertise = Callable[[type, str], Any]


@dataclass
class _Sensor:
    """
    One modality's sensor and the topic that stands in for it.

    ``newest`` is its last message that could be read, ``good`` its last one that was used, which
    what is generated takes after. ``passing`` is whether messages go on as they come.
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
    complained: bool = False

    @property
    def own(self) -> bool:
        """Whether the topic has the type of the sensor."""
        return self.codec.write is not None

    @property
    def wanted(self) -> bool:
        """Whether anybody has subscribed."""
        return bool(self.publisher.get_subscription_count() > 0)

    def hand_on(self) -> None:
        """Send the newest message as it is, unless its stamp lies before what was generated."""
        message = self.newest
        header = getattr(message, 'header', None)
        if message is None or message is self.sent:
            return
        if (
            self.made_ns
            and header is not None
            and stamp_of(header, self.made_ns + 1) <= self.made_ns
        ):
            return
        self.sent, self.made_ns = message, 0
        if self.wanted:
            self.publisher.publish(message)


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
        advertise: Advertise,
    ) -> None:
        self._node = node
        self._sensors: dict[str, _Sensor] = {}
        for name, modality in modalities.items():
            codec, array = codecs[name], output_codec(modality.spec.kind)
            kind = filled_type(modality.spec.kind, codec)
            self._sensors[name] = _Sensor(codec, array, advertise(kind, f'filled/{name}'))
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

    def take(self, name: str, message: Any) -> None:
        """Take a message of a sensor that could be read; hand it on if its sensor is used."""
        sensor = self._sensors[name]
        if not sensor.own:
            return
        with sensor.lock:
            sensor.newest = message
            if sensor.passing:
                sensor.hand_on()

    def publish(
        self,
        fused: Fused,
        modalities: Mapping[str, Modality[Any]],
        frame_id: str,
        now_ns: int,
    ) -> None:
        """
        Send what a tick gave for the sensors that are not used.

        :param frame_id: of what is generated for a sensor that never sent anything.
        :param now_ns: stamp of what is generated, but for a latent that is held.
        """
        generated = fused.result.reconstructions if fused.result else {}
        stamp_ns = fused.stamp_ns if fused.source == HOLD else now_ns
        for name, sensor in self._sensors.items():
            modality = modalities[name]
            observed = fused.observed.get(name)
            array = generated.get(name) if observed is None else observed
            if sensor.own and observed is not None:
                self._go_on(sensor, fused.verdicts[name].state is State.STALE, now_ns)
                continue
            sensor.passing = False
            if array is None or not sensor.wanted:
                continue
            if not sensor.own:
                header = make_header(fused.stamp_ns, frame_id)
                sensor.publisher.publish(
                    sensor.array.encode(modality.single, modality.newest(array), header)
                )
                continue
            header = make_header(stamp_ns, frame_id)
            std = fused.std.get(name)
            std = None if std is None else modality.newest(std)
            newest = modality.newest(array)
            draft = Draft(modality.single, newest, header, sensor.good, std)
            self._send(name, sensor, draft, stamp_ns)

    def _go_on(self, sensor: _Sensor, held: bool, now_ns: int) -> None:
        """Let messages pass from now on; one that is used beyond its age is sent again."""
        with sensor.lock:
            sensor.good = sensor.newest
            if not sensor.passing:
                sensor.passing = True
                sensor.hand_on()
            elif held and sensor.wanted and sensor.good is not None:
                sensor.publisher.publish(restamped(sensor.good, time_message(now_ns)))
                sensor.made_ns = now_ns

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
            sensor.publisher.publish(message)
            sensor.made_ns = stamp_ns
