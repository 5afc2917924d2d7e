"""A consumer of the node's topics."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import String

from mm_perception.lab.demo.log import Log, Received, Showing, Status
from mm_perception.lab.harness.client import RosClient
from mm_perception.modalities import Modality
from mm_perception.ros.codecs import codec_for, filled_type, output_codec, read_output
from mm_perception.ros.qos import latched_qos


class Observer(RosClient):
    """
    Receives in a thread of its own, into a log.

    :param modalities: of the bundle that the node runs.
    :param domain_id: ROS domain of the node.
    """

    def __init__(self, modalities: Mapping[str, Modality[Any]], domain_id: int) -> None:
        super().__init__('observer', domain_id)
        self.log = Log()
        self.subscribe(String, 'replay/truth', self._take_truth, latched_qos())
        self.subscribe(String, 'cmi/model_info', self._take_model_info, latched_qos())
        self.subscribe(PointCloud2, 'latent', self._keep(self.log.latents))
        for name, modality in modalities.items():
            kind = modality.spec.kind
            generated = output_codec(kind).message_type
            keep = self._keep(self.log.generated[name])
            self.subscribe(generated, f'reconstruction/{name}', keep)
            filled = filled_type(kind, codec_for(modality))
            self.subscribe(filled, f'filled/{name}', self._keep(self.log.filled[name]))
        self.subscribe(DiagnosticArray, 'cmi/status', self._take_status)
        self.serve()

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
        if not self.log.showings or truth['index'] > self.log.showings[-1].index:
            showing = Showing(truth['index'], truth['label'], truth['start_ns'])
            self.log.showings.append(showing)

    def _take_model_info(self, message: String) -> None:
        self.log.model_info = json.loads(message.data)


def _receipt_ns(info: Mapping[str, int]) -> int:
    """When the middleware took a message; it may wait for this thread then."""
    return info['received_timestamp'] or time.time_ns()


def _stamp_ns(header: Any) -> int | None:
    return None if header is None else header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


def read_received(modality: Modality[Any], entry: Received) -> np.ndarray:
    """
    Model array of a message of ``reconstruction/`` or ``filled/``: ``float32[shape]``.

    :raises InvalidInput: if the message holds nothing usable.
    """
    return read_output(modality, codec_for(modality), entry.message)
