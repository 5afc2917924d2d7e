"""Point clouds of one row as self-describing tables of float32 columns."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from mm_perception.errors import InvalidInput
from mm_perception.ros.codecs.base import as_bytes

# A column costs memory when it is used, but a field that lies over another costs the sender none.
MAX_FIELDS = 64


def table_message(columns: dict[str, np.ndarray], header: Header) -> PointCloud2:
    """
    Build a point cloud of height 1 with one FLOAT32 field per column.

    :param columns: name to ``float32[n]``, all of one length.
    """
    table = np.stack([np.asarray(column, '<f4') for column in columns.values()], axis=1)
    fields = [
        PointField(name=name, offset=4 * k, datatype=PointField.FLOAT32, count=1)
        for k, name in enumerate(columns)
    ]
    step = 4 * len(columns)
    return PointCloud2(
        header=header,
        height=1,
        width=len(table),
        fields=fields,
        is_bigendian=False,
        point_step=step,
        row_step=step * len(table),
        data=as_bytes(table),
        is_dense=True,
    )


def read_table(message: PointCloud2) -> dict[str, np.ndarray]:
    """
    View the FLOAT32 columns of a point cloud of height 1, without a copy.

    :returns: field name to ``float32[width]``.
    :raises InvalidInput: if the layout contradicts itself.
    """
    width, step = message.width, message.point_step
    if message.height != 1:
        raise InvalidInput(f'height is {message.height}; expected 1 (one row of samples)')
    if width == 0:
        raise InvalidInput('no points in the message')
    if len(message.fields) > MAX_FIELDS:
        raise InvalidInput(f'{len(message.fields)} fields; at most {MAX_FIELDS} are read')
    if len(message.data) != width * step:
        raise InvalidInput(
            f'data has {len(message.data)} bytes; width {width} x point_step {step}'
            f' = {width * step}'
        )
    dtype = '>f4' if message.is_bigendian else '<f4'
    columns: dict[str, np.ndarray] = {}
    for field in message.fields:
        if field.datatype != PointField.FLOAT32 or field.count != 1:
            raise InvalidInput(f'field {field.name[:32]!r} is not one FLOAT32')
        if field.offset + 4 > step:
            raise InvalidInput(f'field {field.name[:32]!r} lies outside point_step {step}')
        columns[field.name] = np.ndarray(
            (width,), dtype, memoryview(message.data), field.offset, (step,)
        )
    return columns
