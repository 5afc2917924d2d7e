"""Point clouds as range images: what lies how far, by row and column of the sensor."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField

from mm_perception.errors import InvalidInput
from mm_perception.modalities import Modality
from mm_perception.ros.codecs.base import (
    MAX_FIELDS,
    Draft,
    as_bytes,
    register_input,
    register_write,
    restamped,
    stamp_of,
)
from mm_perception.ros.codecs.image import MAX_PIXELS

RINGS = ('ring', 'channel', 'line')
"""Fields that number the beams of a lidar."""
MOST_RINGS = 1024
DTYPES = {
    PointField.INT8: 'i1',
    PointField.UINT8: 'u1',
    PointField.INT16: 'i2',
    PointField.UINT16: 'u2',
    PointField.INT32: 'i4',
    PointField.UINT32: 'u4',
    PointField.FLOAT32: 'f4',
    PointField.FLOAT64: 'f8',
}


@register_input('image', PointCloud2)
def decode_cloud(
    message: PointCloud2, receipt_ns: int, modality: Modality[Any]
) -> tuple[NDArray[Any], int]:
    """
    Read how far the points of a cloud are: ``float32[H, W]`` in metres, NaN for no return.

    A cloud with rows (height above 1) keeps them. Of one without, the beam of a lidar is the row,
    and the angle about z the column; of several points in a pixel the nearest counts.
    """
    points = _points(message)
    ranges = _ranges(points)
    if message.height > 1:
        return ranges, stamp_of(message.header, receipt_ns)
    rows, columns, size = _places(points)
    image = np.full(size, np.inf, np.float32)
    seen = np.isfinite(ranges)
    np.minimum.at(image, (rows[seen], columns[seen]), ranges[seen])
    image[np.isinf(image)] = np.nan
    return image, stamp_of(message.header, receipt_ns)


@register_write('image', PointCloud2)
def _write_cloud(draft: Draft) -> PointCloud2:
    """Each point of the last cloud, as far along its ray as the range image says."""
    like, modality = draft.like, draft.modality
    if like is None:
        raise InvalidInput('no cloud has ever come: where its rays point is not known')
    frame, _ = decode_cloud(like, 1, modality)
    image = modality.paint(np.where(np.isfinite(frame), frame, np.float32(0.0)), draft.array)
    message = restamped(like, draft.header.stamp)
    data = np.array(np.frombuffer(like.data, np.uint8))
    points = _points(message, data)
    if like.height == 1:
        rows, columns, _ = _places(points)
        image = image[rows, columns]
    before = _ranges(points)
    with np.errstate(invalid='ignore', divide='ignore'):
        factor = np.where(before > 0, image / before, 1.0)
        for axis in 'xyz':
            points[axis] *= factor.astype(points[axis].dtype)
    message.data = as_bytes(data)
    return message


def is_cloud(message: PointCloud2) -> bool:
    """Whether a message holds points in space, rather than samples of a sound or an array."""
    return {'x', 'y', 'z'} <= {field.name for field in message.fields}


def _points(message: PointCloud2, data: Any = None) -> NDArray[Any]:
    """
    View the points with their fields, ``[H, W]``, or ``[W]`` of a cloud of one row.

    :param data: bytes in the place of those of the message.
    """
    height, width, step, row = message.height, message.width, message.point_step, message.row_step
    if not is_cloud(message) or len(message.fields) > MAX_FIELDS:
        names = ', '.join(field.name[:16] for field in message.fields[:8])
        raise InvalidInput(f'fields are [{names}]; expected x, y, z, at most {MAX_FIELDS} in all')
    if not 0 < height * width <= MAX_PIXELS:
        raise InvalidInput(f'cloud has {width}x{height} points; expected 1 to {MAX_PIXELS}')
    if row < width * step or len(message.data) != row * height:
        raise InvalidInput(
            f'data has {len(message.data)} bytes, row_step {row}; {width}x{height} points of'
            f' {step} bytes do not fit'
        )
    order = '>' if message.is_bigendian else '<'
    named = {field.name: field for field in message.fields}
    wanted = [named[name] for name in ('x', 'y', 'z', *RINGS) if name in named]
    for each in wanted:
        size = np.dtype(DTYPES.get(each.datatype, 'V0')).itemsize
        real = each.datatype in (PointField.FLOAT32, PointField.FLOAT64)
        if not size or each.offset + size > step or (each.name in 'xyz' and not real):
            raise InvalidInput(f'field {each.name} is no number within {step} bytes')
    layout = np.dtype(
        {
            'names': [each.name for each in wanted],
            'formats': [order + DTYPES[each.datatype] for each in wanted],
            'offsets': [each.offset for each in wanted],
            'itemsize': step,
        }
    )
    source = memoryview(message.data) if data is None else data.data
    points: NDArray[Any] = np.ndarray((height, width), layout, source, 0, (row, step))
    return points[0] if height == 1 else points


def _ranges(points: NDArray[Any]) -> NDArray[Any]:
    """How far points are, ``float32``; NaN for those at infinity, nowhere or in the origin."""
    x, y, z = (points[axis].astype(np.float32) for axis in 'xyz')
    with np.errstate(over='ignore', invalid='ignore'):
        ranges = np.sqrt(x * x + y * y + z * z)
    ranges[~(np.isfinite(ranges) & (ranges > 0))] = np.nan
    return np.asarray(ranges)


def _places(points: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], tuple[int, int]]:
    """Row and column of each point of a cloud without rows, and the size of their image."""
    ring = next((name for name in RINGS if name in (points.dtype.names or ())), '')
    if not ring:
        raise InvalidInput(
            'a cloud of one row needs a field ring, channel or line, which tells the beams'
        )
    with np.errstate(invalid='ignore'):
        rows = points[ring].astype(np.int64)
    height = int(rows.max()) + 1
    if not (rows.min() >= 0 and height <= MOST_RINGS):
        raise InvalidInput(f'{ring} goes from {rows.min()} to {height - 1}; at most {MOST_RINGS}')
    # A power of two below the points of a beam: it stays the same when some points are lacking.
    width = 1 << max(len(points) // height, 1).bit_length() - 1
    with np.errstate(invalid='ignore'):
        angle = np.arctan2(points['y'], points['x']).astype(np.float64)
    turn = np.nan_to_num((np.pi - angle) / (2 * np.pi))
    return rows, np.minimum((turn * width).astype(np.int64), width - 1), (height, width)
