"""The route of a camera message to ``latent`` and ``filled``: few files, each call downwards."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed')

import rclpy
from rclpy.context import Context
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import String

from mm_perception.ros.cmi.diagnostics import Reporter
from mm_perception.ros.cmi.worker import Worker
from mm_perception.ros.cmi_node import CmiNode
from mm_perception.ros.codecs import image_message

PACKAGE = Path(__file__).parents[2] / 'mm_perception'
ROUTE = (
    'ros/cmi_node.py',
    'ros/cmi/inputs.py',
    'ros/cmi/outputs.py',
    'ros/codecs/image.py',
    'ros/codecs/vector.py',
    'ros/codecs/base.py',
    'fusion/perception.py',
    'fusion/assessment.py',
    'fusion/streams.py',
    'fusion/session.py',
    'fusion/confidence.py',
    'fusion/consistency.py',
    'engines/onnx_engine.py',
    'modalities/image.py',
    'modalities/ink.py',
    'modalities/base.py',
)
"""From the top down, as docs/architecture.md draws it; a file may call those behind it."""
OPTIONAL = {'fusion/confidence.py', 'modalities/ink.py'}
"""What the bundle ``mhd`` asks for beside: a confidence, and drawings normalised."""


@pytest.fixture
def node() -> Iterator[CmiNode]:
    """The node with the shipped bundle, active, whose outputs somebody has subscribed to."""
    context = Context()
    rclpy.init(context=context)
    node = CmiNode(context=context, namespace='/route')
    listener = rclpy.create_node('listener', context=context, namespace='/route')
    for topic, kind in (('latent', PointCloud2), ('filled/image', Image)):
        listener.create_subscription(kind, topic, print, 1)
    node.trigger_configure()
    node.trigger_activate()
    yield node
    node.release()
    node.destroy_node()
    listener.destroy_node()
    rclpy.shutdown(context=context)


@contextmanager
def traced() -> Iterator[set[tuple[str, str]]]:
    """Calls between files of the package: (caller, callee), a file's own helpers left out."""
    calls: set[tuple[str, str]] = set()

    def place(frame: FrameType | None) -> str:
        file = Path(frame.f_code.co_filename) if frame else Path()
        return file.relative_to(PACKAGE).as_posix() if PACKAGE in file.parents else ''

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if event == 'call' and place(frame):
            caller = frame.f_back
            while caller is not None and not place(caller):
                caller = caller.f_back
            if place(caller) != place(frame):
                calls.add((place(caller), place(frame)))

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield calls
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]


def test_route_of_a_camera_message(node: CmiNode, monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()
    # What the node says about itself is no part of the route.
    monkeypatch.setattr(Reporter, 'add', lambda *args: done.set())
    pixels = np.full((480, 640, 3), 250, np.uint8)
    pixels[100:400, 300:330] = 20  # so that it is not rejected as black
    assert node._worker is not None
    node._worker.stop(5.0)
    worker = Worker(print, print, None)
    node._receive('symbol', String(data='3'))  # a second sensor to agree with
    node._receive('image', image_message(pixels, time.time_ns()))
    node._tick(worker)
    with traced() as calls:
        node._receive('image', image_message(pixels ^ 1, time.time_ns()))
        node._tick(worker)
    worker.stop(5.0)
    assert done.is_set()
    files = {file for call in calls for file in call if file}
    assert files - {'spec.py'} == set(ROUTE), 'specs are plain data'
    assert len(set(ROUTE) - OPTIONAL) <= 14
    order = {file: place for place, file in enumerate(ROUTE)}
    upwards = {(a, b) for a, b in calls if a in order and b in order and order[a] > order[b]}
    assert not upwards
