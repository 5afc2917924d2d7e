"""A consumer of the node's topics, and the classifiers that read what it receives."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import String

from mm_perception.bundle import Bundle
from mm_perception.engines.classifiers import load_classifiers
from mm_perception.errors import InvalidInput
from mm_perception.lab.demo.log import Digit, Log, Received, Status
from mm_perception.modalities import Modality
from mm_perception.ros.codecs import input_codec, output_codec
from mm_perception.ros.qos import latched_qos

DEPTH = 20
WAKE_S = 0.5


class Observer:
    """
    Receives in a thread of its own, into a log.

    :param modalities: of the bundle that the node runs.
    :param domain_id: ROS domain of the node.
    """

    def __init__(self, modalities: Mapping[str, Modality[Any]], domain_id: int) -> None:
        self.log = Log()
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self._node = Node('observer', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._subscribe(String, 'replay/truth', self._take_truth, latched_qos())
        self._subscribe(String, 'cmi/model_info', self._take_model_info, latched_qos())
        self._subscribe(PointCloud2, 'latent', self._keep(self.log.latents))
        for name, modality in modalities.items():
            kind = output_codec(modality.spec.kind).message_type
            self._subscribe(kind, f'reconstruction/{name}', self._keep(self.log.generated[name]))
            self._subscribe(kind, f'filled/{name}', self._keep(self.log.filled[name]))
        self._subscribe(DiagnosticArray, 'cmi/status', self._take_status)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._spin, name='observer', daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Leave the graph."""
        # The thread ends before what it waits for: without its context rclpy can only fail.
        self._closing.set()
        self._executor.wake()
        self._thread.join()
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    def _spin(self) -> None:
        while not self._closing.is_set():
            self._executor.spin_once(timeout_sec=WAKE_S)

    def _subscribe(
        self,
        message_type: type,
        topic: str,
        take: Callable[..., None],
        qos: QoSProfile | int = DEPTH,
    ) -> None:
        self._node.create_subscription(message_type, topic, take, qos)

    def _keep(self, entries: list[Received]) -> Callable[[Any, dict[str, int]], None]:
        def keep(message: Any, info: dict[str, int]) -> None:
            header = getattr(message, 'header', None)
            entries.append(Received(_receipt_ns(info), _stamp_ns(header), message))

        return keep

    def _take_status(self, message: DiagnosticArray, info: dict[str, int]) -> None:
        now_ns = _receipt_ns(info)
        entries = {e.name: {v.key: v.value for v in e.values} for e in message.status}
        self.log.statuses.append(
            Status(
                now_ns,
                _stamp_ns(message.header) or now_ns,
                {name: values['state'] for name, values in entries.items()},
                {n: float(v['age_ms']) for n, v in entries.items() if v['age_ms']},
                frozenset(name for name, values in entries.items() if values['used'] == 'true'),
            )
        )

    def _take_truth(self, message: String) -> None:
        truth = json.loads(message.data)
        self.log.schedule_start_ns = truth['schedule_start_ns']
        if not self.log.digits or truth['index'] > self.log.digits[-1].index:
            digit = Digit(truth['index'], truth['label'], truth['start_ns'])
            self.log.digits.append(digit)

    def _take_model_info(self, message: String) -> None:
        self.log.model_info = json.loads(message.data)


def _receipt_ns(info: Mapping[str, int]) -> int:
    """When the middleware took a message; it may wait for this thread then."""
    return info['received_timestamp'] or time.time_ns()


def _stamp_ns(header: Any) -> int | None:
    return None if header is None else header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


def read_output(modality: Modality[Any], message: Any) -> np.ndarray:
    """
    Model array that a message of ``reconstruction/`` or ``filled/`` carries.

    :returns: ``float32[shape]``.
    :raises InvalidInput: if the message holds nothing usable, such as a stroke of no length.
    """
    return _READERS[modality.spec.kind](modality, message)


def _read_raw(modality: Modality[Any], message: Any) -> np.ndarray:
    """The modality's own sensor could have sent it."""
    raw, _ = input_codec(modality.spec.kind).decode(message, 0, modality)
    return modality.to_model(raw)


def _read_mel(modality: Modality[Any], message: Any) -> np.ndarray:
    pixels, _ = input_codec('image').decode(message, 0, modality)
    return np.asarray(pixels, np.float32).reshape(modality.shape)


def _read_numbers(modality: Modality[Any], message: Any) -> np.ndarray:
    return np.asarray(message.data, np.float32).reshape(modality.shape)


_READERS: dict[str, Callable[[Modality[Any], Any], np.ndarray]] = {
    'image': _read_raw,
    'trajectory': _read_raw,
    'sound': _read_mel,
    'vector': _read_numbers,
    'symbol': _read_numbers,
}
UNREADABLE = '-'


class LabelReader:
    """
    Reads messages as labels.

    :param bundle: carries the classifiers.
    :param modalities: of the bundle.
    """

    def __init__(self, bundle: Bundle, modalities: Mapping[str, Modality[Any]]) -> None:
        self._classifiers = load_classifiers(bundle)
        self._labels = bundle.labels
        self._modalities = modalities
        self._done: dict[str, int] = {}

    def read_generated(self, log: Log) -> None:
        """Read everything that was generated and has not been read."""
        for name in self._modalities:
            entries = log.generated[name]
            end = len(entries)
            self.read(name, entries[self._done.get(name, 0) : end])
            self._done[name] = end

    def read(self, name: str, entries: Iterable[Received]) -> None:
        """Read messages of one modality."""
        arrays, readable = [], []
        for entry in entries:
            if not entry.shows:
                try:
                    arrays.append(read_output(self._modalities[name], entry.message))
                    readable.append(entry)
                except InvalidInput:
                    entry.shows = UNREADABLE
        if readable:
            indices = self._classifiers.read(name, np.stack(arrays))
            for entry, index in zip(readable, indices, strict=True):
                entry.shows = self._labels[index]
