"""Messages that ask for much more than they bring: refused, without the memory."""

from __future__ import annotations

import struct
import time
import tracemalloc
import zlib
from array import array
from collections.abc import Callable
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image, JointState, PointCloud2, PointField
from std_msgs.msg import (
    Float32MultiArray,
    Header,
    MultiArrayDimension,
    MultiArrayLayout,
    String,
)
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from mm_perception.errors import InvalidInput
from mm_perception.modalities import Modality, build_modality
from mm_perception.ros.codecs import input_codec, message_name
from mm_perception.ros.codecs.parts import plan_of, read_message
from mm_perception.spec import ModalitySpec
from tests.helpers.small_bundle import small_spec

MAX_MEMORY_BYTES = 8 << 20
MODALITIES: dict[str, Modality[Any]] = {
    m.name: build_modality(m)
    for m in (
        *small_spec().modalities,
        ModalitySpec('joints', 'vector', 2, preprocessing={'low': [0, 0], 'high': [1, 1]}),
    )
}


def png(width: int, height: int) -> CompressedImage:
    """A PNG of 100 bytes that promises a picture of any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack('>I', zlib.crc32(kind + data))
        return struct.pack('>I', len(data)) + kind + data + check

    head = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))
    body = chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b'')
    return CompressedImage(format='png', data=array('B', b'\x89PNG\r\n\x1a\n' + head + body))


def jpeg(width: int, height: int) -> CompressedImage:
    frame = struct.pack('>HBHHB', 11, 8, height, width, 1) + b'\x01\x11\x00'
    data = b'\xff\xd8\xff\xc0' + frame + b'\xff\xd9'
    return CompressedImage(format='jpeg', data=array('B', data))


def table(fields: int, width: int, step: int, size: int) -> PointCloud2:
    """Fields that all lie over each other, so that they cost the sender nothing."""
    names = ['t', *(f'ch{k}' for k in range(fields - 1))]
    listed = [PointField(name=n, offset=0, datatype=PointField.FLOAT32, count=1) for n in names]
    return PointCloud2(
        height=1, width=width, fields=listed, point_step=step, data=array('B', bytes(size))
    )


def trajectory(points: int, dimensions: int) -> JointTrajectory:
    point = JointTrajectoryPoint(positions=array('d', bytes(8 * dimensions)))
    return JointTrajectory(points=[point] * points)


CASES: dict[str, tuple[str, Callable[[], Any], str]] = {
    'PNG of 1 TB': ('image', lambda: png(600_000, 600_000), 'larger than 8K'),
    'PNG of the largest size': ('image', lambda: png(2**31 - 1, 2**31 - 1), 'larger than 8K'),
    'JPEG of 13 GB': ('image', lambda: jpeg(65535, 65535), 'larger than 8K'),
    'image whose bytes overflow': (
        'image',
        lambda: Image(encoding='rgb8', width=2**31, height=2**31, step=0),
        'is less than a row',
    ),
    'image without its data': (
        'image',
        lambda: Image(encoding='mono8', width=2**31, height=2**31, step=2**31),
        'data has 0 bytes',
    ),
    'encoding of a megabyte': (
        'image',
        lambda: Image(encoding='x' * 1_000_000, width=1, height=1),
        'is not one of',
    ),
    'table of fields over each other': (
        'sound',
        lambda: table(5_000, 10_000, 4, 40_000),
        'at most 64',
    ),
    'table without bytes': ('sound', lambda: table(2, 2**32 - 1, 0, 0), 'at most 400000'),
    'table of the largest width': ('sound', lambda: table(2, 2**30, 4, 64), 'at most 400000'),
    'trajectory of many points': ('trajectory', lambda: trajectory(20_000, 2), '20000 points'),
    'trajectory of many joints': ('trajectory', lambda: trajectory(2, 1_000), 'expected'),
    'label of a megabyte': ('symbol', lambda: String(data='9' * 1_000_000), 'characters'),
    'array that begins beyond its end': (
        'joints',
        lambda: Float32MultiArray(layout=MultiArrayLayout(data_offset=2**32 - 1)),
        'vector is empty',
    ),
}


@pytest.mark.parametrize('case', CASES)
def test_message_limits_hold_before_memory_is_taken(case: str) -> None:
    name, make, reason = CASES[case]
    message, modality = make(), MODALITIES[name]
    codec = input_codec(modality.spec.kind, message_name(type(message)))
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput) as error:
            modality.to_model(codec.decode(message, 1, modality)[0])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reason in str(error.value) and len(str(error.value)) < 400
    assert peak < MAX_MEMORY_BYTES


WHOLE: tuple[Any, ...] = (
    trajectory(40, 2),
    table(2, 4, 8, 32),
    JointTrajectory(joint_names=['a', 'bcdef']),
    JointState(name=['a', 'bcd'], position=array('d', [1.0, 2.0])),
    Float32MultiArray(layout=MultiArrayLayout(dim=[MultiArrayDimension(label='ab', size=2)])),
    Path(poses=[PoseStamped(header=Header(frame_id='odd'))] * 3),
    DiagnosticArray(status=[DiagnosticStatus(level=b'\1', values=[KeyValue(key='abc')] * 3)] * 2),
)
"""Of types that hold any number of others, on several levels."""


@pytest.mark.parametrize('message', WHOLE, ids=lambda each: type(each).__name__)
def test_message_within_the_limit_is_read_whole(message: Any) -> None:
    if hasattr(message, 'header'):
        message.header.frame_id = 'a frame'
    data, kind = serialize_message(message), type(message)
    assert plan_of(kind) and read_message(data, kind) == message
    for length in (3, 5, len(data) // 3):  # dropped, as the middleware does with other types
        assert read_message(data[:length], kind) is None


MANY: tuple[Callable[[], Any], ...] = (
    lambda: trajectory(200_000, 0),
    lambda: table(100_000, 1, 4, 4),
    lambda: JointState(name=[''] * 500_000),
    lambda: Float32MultiArray(layout=MultiArrayLayout(dim=[MultiArrayDimension()] * 100_000)),
    lambda: Path(poses=[PoseStamped()] * 30_000),
    lambda: DiagnosticArray(status=[DiagnosticStatus(values=[KeyValue()] * 1000)] * 200),
)


@pytest.mark.parametrize('make', MANY)
def test_message_of_a_million_parts_is_refused_unread(make: Callable[[], Any]) -> None:
    """Read into Python objects, each of these would hold all threads for up to seconds."""
    message = make()
    data = serialize_message(message)
    begin_s = time.thread_time()
    answer = read_message(data, type(message))
    assert time.thread_time() - begin_s < 0.05
    assert isinstance(answer, InvalidInput) and 'at most' in str(answer)
