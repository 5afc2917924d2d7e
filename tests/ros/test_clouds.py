"""Point clouds as range images, and the clouds that stand in for them."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed')

from sensor_msgs.msg import PointCloud2, PointField

from mm_perception.errors import InvalidInput
from mm_perception.fusion.assessment import Assessor
from mm_perception.fusion.health import Checks, Limits
from mm_perception.fusion.streams import Stream
from mm_perception.modalities import build_modality
from mm_perception.ros.codecs import Draft, codec_for, make_header
from mm_perception.ros.codecs.base import as_bytes
from mm_perception.spec import ModalitySpec

ROWS, COLUMNS = 16, 64
OPTIONS = {'height': 8, 'width': 32, 'square': False, 'full_scale': 10.0}
SPEC = ModalitySpec(
    'lidar', 'image', 4, OPTIONS, message='sensor_msgs/msg/PointCloud2', max_age_s=1.0
)
MODALITY = build_modality(SPEC)
CODEC = codec_for(MODALITY)
LAYOUT = np.dtype(
    {
        'names': ['x', 'y', 'z', 'intensity', 'ring'],
        'formats': ['f4', 'f4', 'f4', 'f4', 'u2'],
        'offsets': [0, 4, 8, 16, 20],
        'itemsize': 32,
    }
)


def room(distance):
    """How far the walls are by row and column, ``float32[16, 64]``."""
    rows, columns = np.mgrid[:ROWS, :COLUMNS]
    return (distance + 2 * np.sin(columns / 10) + 0.1 * rows).astype(np.float32)


def cloud(ranges, organised=True, order=None, big=False):
    """
    A cloud of a lidar with 16 beams.

    :param order: of the points, of a cloud of one row; those left out did not return.
    """
    rows, columns = np.mgrid[:ROWS, :COLUMNS]
    azimuth = math.pi - (columns + 0.5) / COLUMNS * 2 * math.pi
    up = np.linspace(-0.3, 0.3, ROWS)[:, None]
    dtype = LAYOUT.newbyteorder('>') if big else LAYOUT
    points = np.zeros((ROWS, COLUMNS), dtype)
    points['x'] = ranges * np.cos(up) * np.cos(azimuth)
    points['y'] = ranges * np.cos(up) * np.sin(azimuth)
    points['z'] = ranges * np.sin(up)
    points['intensity'], points['ring'] = 7.0, rows
    if not organised:
        points = points.reshape(-1)[order][None]
    kinds = {'u2': PointField.UINT16}
    fields = [
        PointField(name=n, offset=LAYOUT.fields[n][1], count=1, datatype=kinds.get(
            LAYOUT.fields[n][0].str[1:], PointField.FLOAT32))
        for n in LAYOUT.names
    ]  # fmt: skip
    return PointCloud2(
        header=make_header(5, 'velodyne'),
        height=points.shape[0],
        width=points.shape[1],
        fields=fields,
        is_bigendian=big,
        point_step=32,
        row_step=32 * points.shape[1],
        data=as_bytes(points),
    )


def lengths(message):
    points = np.frombuffer(message.data, LAYOUT)
    return np.sqrt(sum(points[axis].astype(float) ** 2 for axis in 'xyz'))


@pytest.mark.parametrize('big', [False, True])
def test_cloud_with_rows_is_a_range_image(big):
    raw, stamp_ns = CODEC.decode(cloud(room(5.0), big=big), 1, MODALITY)
    assert stamp_ns == 5 and raw.dtype == np.float32
    np.testing.assert_allclose(raw, room(5.0), rtol=1e-6)


def test_cloud_of_one_row_goes_by_beam_and_angle():
    order = np.random.default_rng(0).permutation(ROWS * COLUMNS)
    raw, _ = CODEC.decode(cloud(room(5.0), False, order), 1, MODALITY)
    np.testing.assert_allclose(raw, room(5.0), rtol=1e-6)
    fewer = np.random.default_rng(1).permutation(order)[: ROWS * COLUMNS * 3 // 4]
    raw, _ = CODEC.decode(cloud(room(5.0), False, fewer), 1, MODALITY)
    assert raw.shape == (ROWS, COLUMNS // 2), 'half the columns: a pixel has one point or more'
    apart = np.abs(MODALITY.to_model(raw) - MODALITY.to_model(room(5.0)))
    assert apart.max() < 0.03 and np.isnan(raw).mean() < 0.1


def test_points_that_did_not_return_stay_out_of_the_mean():
    ranges = room(5.0)
    hidden = np.random.default_rng(0).random(ranges.shape) < 0.3
    holed = np.where(hidden, np.where(np.arange(COLUMNS) % 2, np.nan, 0.0), ranges)
    holed[0, 0] = np.inf
    raw, _ = CODEC.decode(cloud(holed.astype(np.float32)), 1, MODALITY)
    assert np.isnan(raw).sum() == hidden.sum() + (not hidden[0, 0])
    apart = np.abs(MODALITY.to_model(raw) - MODALITY.to_model(ranges))
    assert apart.max() < 0.06


@pytest.mark.parametrize('organised', [True, False])
def test_what_stands_in_is_a_cloud_of_the_same_rays(organised):
    order = np.random.default_rng(0).permutation(ROWS * COLUMNS)
    holed = room(6.0)
    holed[2:4, 10:20] = np.nan
    like = cloud(holed, organised, order)
    kept = bytes(like.data)
    made = CODEC.write(Draft(MODALITY, MODALITY.to_model(room(4.0)), make_header(9), like))
    assert bytes(like.data) == kept
    for same in ('height', 'width', 'fields', 'point_step', 'row_step', 'is_bigendian'):
        assert getattr(made, same) == getattr(like, same), same
    assert (made.header.frame_id, made.header.stamp.nanosec) == ('velodyne', 9)
    before, after = (np.frombuffer(m.data, LAYOUT) for m in (like, made))
    assert (after['intensity'] == 7.0).all() and (after['ring'] == before['ring']).all()
    wanted = room(4.0).reshape(-1)[order] if not organised else room(4.0).reshape(-1)
    seen = np.isfinite(lengths(like))
    assert (np.isfinite(lengths(made)) == seen).all(), 'nothing new comes back'
    assert np.abs(lengths(made) - wanted)[seen].max() < 0.35, 'the model sees 8 x 32'
    turned = [
        np.stack([p[a] for a in 'xyz'])[:, seen] / lengths(m)[seen]
        for p, m in ((before, like), (after, made))
    ]
    np.testing.assert_allclose(*turned, atol=1e-5)


def test_nothing_can_stand_in_for_a_cloud_that_never_came():
    with pytest.raises(InvalidInput, match='where its rays point is not known'):
        CODEC.write(Draft(MODALITY, MODALITY.to_model(room(4.0)), make_header(9)))


def broken(**changes):
    message = cloud(room(5.0), False, np.arange(ROWS * COLUMNS))
    for name, value in changes.items():
        setattr(message, name, value)
    return message


FIELDS = broken().fields


@pytest.mark.parametrize(
    ('message', 'line'),
    [
        (broken(fields=FIELDS[1:]), 'expected x, y, z'),
        (broken(fields=FIELDS[:4]), 'needs a field ring, channel or line'),
        (broken(width=0), 'cloud has 0x1 points'),
        (broken(width=9999999), 'do not fit'),
        (broken(data=bytes(31)), 'data has 31 bytes'),
        (broken(point_step=6, row_step=32 * ROWS * COLUMNS), 'field y is no number within 6'),
        (
            broken(fields=[*FIELDS[:4], PointField(name='ring', offset=0, datatype=7)]),
            'ring goes from',
        ),
    ],
)
def test_broken_cloud_is_one_line(message, line):
    with pytest.raises(InvalidInput, match=line):
        CODEC.decode(message, 1, MODALITY)


def test_cloud_of_holes_is_a_fault():
    ranges = room(5.0)
    ranges[:, ::2] = ranges[::2] = np.nan
    stream, limits = Stream(MODALITY), Limits()
    raw, _ = CODEC.decode(cloud(ranges), 1, MODALITY)
    stream.take(raw, 10**18, 10**18, limits)
    readings = {'lidar': stream.snapshot()}
    found = Assessor({'lidar': MODALITY}, {}).assess(readings, {'lidar': limits}, Checks(), 10**18)
    assert found.verdicts['lidar'].fault == 'holes'
