"""Codecs: every message type in and out, and everything that can be wrong with a message."""

from __future__ import annotations

from array import array
from importlib.util import find_spec
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from geometry_msgs.msg import PointStamped, WrenchStamped
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sensor_msgs.msg import CompressedImage, Image, Imu, JointState, PointCloud2, PointField
from std_msgs.msg import Float32MultiArray, String, UInt8MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from mm_perception.errors import ConfigError, InvalidInput
from mm_perception.fusion.gathering import complete
from mm_perception.modalities import Motion, Stack, build_modality, kinds
from mm_perception.modalities.sound import RAW_FORMATS
from mm_perception.ros.codecs import (
    Draft,
    array_header,
    audio_message,
    codec_for,
    compressed_message,
    image_message,
    input_codec,
    latent_joints_message,
    latent_message,
    latent_vector_message,
    make_header,
    output_codec,
    read_latent,
    read_table,
    table_message,
    trajectory_message,
)
from mm_perception.ros.codecs.action import ACTIONS, QUANTITIES, Action, read_action
from mm_perception.ros.codecs.sound import decode_audio_stamped, decode_stamped_bytes
from mm_perception.spec import ModalitySpec
from tests.helpers.small_bundle import LABELS

RECEIPT_NS = 77
IMAGE = build_modality(ModalitySpec('image', 'image', 4, {'invert': True}))
COLOUR = build_modality(ModalitySpec('colour', 'image', 4, {'channels': 3}))
SOUND = build_modality(ModalitySpec('sound', 'sound', 4))
PEN = build_modality(ModalitySpec('pen', 'trajectory', 4))
SYMBOL = build_modality(ModalitySpec('symbol', 'symbol', 4, {'labels': LABELS}))
JOINTS = build_modality(
    ModalitySpec(
        'joints', 'vector', 4, {'low': (-1, -1), 'high': (1, 1), 'names': ('elbow', 'wrist')}
    )
)
FORCE = build_modality(ModalitySpec('force', 'vector', 4, {'low': (-9,) * 6, 'high': (9,) * 6}))
MODALITIES = (IMAGE, COLOUR, SOUND, PEN, SYMBOL, JOINTS)


def decode(message, modality):
    """Decode a message with the codec of its type."""
    package, sub_package = type(message).__module__.split('.')[:2]
    name = f'{package}/{sub_package}/{type(message).__name__}'
    raw, stamp_ns = input_codec(modality.spec.kind, name).decode(message, RECEIPT_NS, modality)
    return complete(raw), stamp_ns


def refuse(message, modality):
    """Why a message is refused."""
    with pytest.raises(InvalidInput) as caught:
        decode(message, modality)
    assert '\n' not in str(caught.value)
    return str(caught.value)


# Images


@pytest.mark.parametrize(
    ('encoding', 'dtype', 'channels', 'to_rgb'),
    [
        ('mono8', 'u1', 1, None),
        ('rgb8', 'u1', 3, [0, 1, 2]),
        ('bgr8', 'u1', 3, [2, 1, 0]),
        ('rgba8', 'u1', 4, [0, 1, 2]),
        ('bgra8', 'u1', 4, [2, 1, 0]),
        ('16UC1', 'u2', 1, None),
        ('32FC1', 'f4', 1, None),
    ],
)
@pytest.mark.parametrize('big_endian', [False, True])
@pytest.mark.parametrize('padding', [0, 5])
def test_image_codec_reads_every_layout(encoding, dtype, channels, to_rgb, big_endian, padding):
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 250, (6, 7, channels)).astype(dtype)
    stored = pixels.astype(f'{">" if big_endian else "<"}{dtype}')
    rows = [row.tobytes() + b'\xff' * padding for row in stored]
    message = Image(
        header=make_header(5),
        height=6,
        width=7,
        encoding=encoding,
        is_bigendian=int(big_endian),
        step=len(rows[0]),
        data=b''.join(rows),
    )
    image, stamp_ns = decode(message, IMAGE)
    expected = pixels[:, :, 0] if to_rgb is None else pixels[:, :, to_rgb]
    np.testing.assert_array_equal(image, expected)
    assert stamp_ns == 5
    assert image.dtype.isnative
    assert IMAGE.to_model(image).shape == IMAGE.shape
    assert COLOUR.to_model(image).shape == COLOUR.shape


def test_image_codec_does_not_copy():
    message = image_message(np.zeros((4, 4, 3), np.uint8), 1)
    image, _ = decode(message, IMAGE)
    message.data[0] = 9
    assert image[0, 0, 0] == 9


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_image_codec_reads_compressed_colour_as_rgb(suffix):
    rgb = np.zeros((16, 16, 3), np.uint8)
    rgb[..., 0] = 200
    data = cv2.imencode(suffix, rgb[..., ::-1])[1].tobytes()
    image, stamp_ns = decode(CompressedImage(header=make_header(6), data=data), IMAGE)
    assert abs(int(image[8, 8, 0]) - 200) < 4
    assert image[8, 8, 2] < 4
    assert stamp_ns == 6


def test_image_codec_reads_compressed_grey_and_alpha():
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    data = cv2.imencode('.png', grey)[1].tobytes()
    np.testing.assert_array_equal(decode(CompressedImage(data=data), IMAGE)[0], grey)
    alpha = np.dstack([grey, grey, grey, grey])
    data = cv2.imencode('.png', alpha)[1].tobytes()
    assert decode(CompressedImage(data=data), IMAGE)[0].shape == (8, 8, 3)


def test_image_codec_refuses_bad_messages_with_the_reason():
    good = {'height': 2, 'width': 2, 'encoding': 'mono8', 'step': 2, 'data': bytes(4)}
    assert "encoding 'yuv9'" in refuse(Image(**{**good, 'encoding': 'yuv9'}), IMAGE)
    assert 'empty' in refuse(Image(**{**good, 'height': 0, 'data': b''}), IMAGE)
    assert 'step 1 is less' in refuse(Image(**{**good, 'step': 1}), IMAGE)
    assert 'data has 3 bytes' in refuse(Image(**{**good, 'data': bytes(3)}), IMAGE)
    assert 'empty' in refuse(CompressedImage(), IMAGE)
    assert 'neither' in refuse(CompressedImage(data=b'not an image'), IMAGE)


@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16, np.float32]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
        elements=st.integers(0, 200),
    )
)
@settings(max_examples=50, deadline=None)
def test_image_codec_round_trip(pixels):
    image, _ = decode(image_message(pixels, 1), IMAGE)
    np.testing.assert_array_equal(image, pixels)
    assert image.dtype == pixels.dtype


# Sound


@given(
    rate_hz=st.sampled_from([8000, 11025, 16000, 22050, 44100, 48000]),
    samples=hnp.arrays(
        np.float32, st.integers(2, 4000), elements=st.floats(-1, 1, width=32), fill=st.just(0.0)
    ),
    channels=st.integers(1, 3),
)
@settings(max_examples=50, deadline=None)
def test_sound_codec_round_trip(rate_hz, samples, channels):
    message = audio_message(np.stack([samples] * channels, axis=1), rate_hz, 9)
    waveform, stamp_ns = decode(message, SOUND)
    assert waveform.rate_hz == rate_hz
    np.testing.assert_allclose(waveform.samples, samples, atol=1e-6)
    assert stamp_ns == 9


def test_sound_codec_mixes_channels_and_adds_the_first_time():
    message = audio_message(np.array([[0.5, -0.5], [1.0, 0.0]]), 8000, 1000)
    table = np.frombuffer(message.data, '<f4').reshape(-1, 3).copy()
    table[:, 0] += 0.5
    message.data = table.tobytes()
    waveform, stamp_ns = decode(message, SOUND)
    np.testing.assert_allclose(waveform.samples, [0.0, 0.5])
    assert stamp_ns == 500_001_000


def test_sound_codec_reads_big_endian_and_other_field_orders():
    table = np.array([[0.1, 7.0, 0.0], [0.2, 7.0, 0.001]], '>f4')
    names = ('ch0', 'intensity', 't')
    fields = [
        PointField(name=name, offset=4 * k, datatype=PointField.FLOAT32, count=1)
        for k, name in enumerate(names)
    ]
    message = PointCloud2(
        height=1,
        width=2,
        fields=fields,
        is_bigendian=True,
        point_step=12,
        row_step=24,
        data=table.tobytes(),
    )
    waveform, stamp_ns = decode(message, SOUND)
    assert waveform.rate_hz == 1000
    np.testing.assert_allclose(waveform.samples, [0.1, 0.2], rtol=1e-6)
    assert stamp_ns == RECEIPT_NS


def broken_sound(**changes):
    """A good sound message with some of its parts replaced."""
    message = audio_message(np.zeros(8, np.float32), 8000, 1)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def test_sound_codec_refuses_bad_messages_with_the_reason():
    nothing = np.zeros(0, np.float32)
    samples = np.zeros(8, np.float32)
    assert 'height is 2' in refuse(broken_sound(height=2), SOUND)
    assert 'no points' in refuse(audio_message(nothing, 8000, 1), SOUND)
    assert 'data has 60' in refuse(broken_sound(data=bytes(60)), SOUND)
    assert 'expected t and ch0' in refuse(broken_sound(fields=[]), SOUND)
    integer = PointField(name='t', datatype=PointField.INT16, count=1)
    assert 'not one FLOAT32' in refuse(broken_sound(fields=[integer]), SOUND)
    outside = PointField(name='t', offset=6, datatype=PointField.FLOAT32, count=1)
    assert 'outside point_step' in refuse(broken_sound(fields=[outside]), SOUND)
    assert 'NaN' in refuse(audio_message(samples * np.nan, 8000, 1), SOUND)
    assert 'expected -1..1' in refuse(audio_message(samples + 9000, 8000, 1), SOUND)
    assert 'one sample' in refuse(audio_message(samples[:1], 8000, 1), SOUND)
    assert 'sample rate 100' in refuse(audio_message(samples, 100, 1), SOUND)
    still = broken_sound(data=bytes(64))
    assert 'does not increase' in refuse(still, SOUND)
    table = np.frombuffer(audio_message(samples, 8000, 1).data, '<f4').reshape(-1, 2).copy()
    table[3, 0] = table[5, 0]
    assert 'equally spaced' in refuse(broken_sound(data=table.tobytes()), SOUND)


# Trajectories


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(2, 40), st.integers(1, 4)),
        elements=st.floats(-1e3, 1e3, width=32),
    )
)
@settings(max_examples=50, deadline=None)
def test_trajectory_codec_round_trip(points):
    times_s = np.linspace(0.0, 2.5, len(points), dtype=np.float32)
    modality = build_modality(
        ModalitySpec('pen', 'trajectory', 4, {'dimensions': points.shape[1]})
    )
    motion, stamp_ns = decode(trajectory_message(Motion(points, times_s), 4), modality)
    np.testing.assert_array_equal(motion.points, points)
    np.testing.assert_allclose(motion.times_s, times_s, atol=1e-6)
    assert stamp_ns == 4


def test_trajectory_codec_reads_streams_point_by_point():
    point = PointStamped(header=make_header(3))
    point.point.x, point.point.y, point.point.z = 1.0, 2.0, 3.0
    motion, stamp_ns = decode(point, PEN)
    np.testing.assert_array_equal(motion.points, [[1.0, 2.0]])
    assert stamp_ns == 3
    joints = JointState(header=make_header(4), position=[0.5, 0.25])
    np.testing.assert_array_equal(decode(joints, PEN)[0].points, [[0.5, 0.25]])


def positions(*rows, **changes):
    """A trajectory message with these positions."""
    points = [JointTrajectoryPoint(positions=list(row)) for row in rows]
    return JointTrajectory(points=points, **changes)


def test_trajectory_codec_refuses_bad_messages_with_the_reason():
    assert 'has 0 points' in refuse(JointTrajectory(), PEN)
    assert 'has 1 points' in refuse(positions((1.0, 2.0)), PEN)
    assert 'same number' in refuse(positions((1.0, 2.0), (1.0,)), PEN)
    assert 'no positions' in refuse(positions((), ()), PEN)
    assert 'NaN' in refuse(positions((1.0, 2.0), (1.0, float('nan'))), PEN)
    assert 'NaN' in refuse(positions((1.0, 2.0), (1.0, 1e300)), PEN)
    assert '1 joint_names' in refuse(positions((1.0, 2.0), (1.0, 2.0), joint_names=['x']), PEN)
    backwards = positions((1.0, 2.0), (1.0, 3.0))
    backwards.points[0].time_from_start.sec = 1
    assert 'backwards' in refuse(backwards, PEN)
    assert '3 joint positions' in refuse(JointState(position=[1.0, 2.0, 3.0]), PEN)
    point = PointStamped()
    point.point.x = float('inf')
    assert 'NaN' in refuse(point, PEN)


# Symbols and vectors


def test_symbol_codec_trims_labels():
    assert decode(String(data=' 3\n'), SYMBOL) == ('3', RECEIPT_NS)
    assert 'characters' in refuse(String(data=' \t '), SYMBOL)


def test_symbol_codec_stamps_on_receipt():
    assert decode(String(data='7'), SYMBOL) == ('7', RECEIPT_NS)
    assert '0 characters' in refuse(String(), SYMBOL)
    assert '999 characters' in refuse(String(data='x' * 999), SYMBOL)


def test_vector_codec_picks_joints_by_name():
    message = JointState(name=['base', 'wrist', 'elbow'], position=[9.0, 0.5, -0.5])
    np.testing.assert_array_equal(decode(message, JOINTS)[0], [-0.5, 0.5])
    message.name = ['base', 'wrist', 'hand']
    assert 'no position of joint elbow' in refuse(message, JOINTS)


def test_vector_codec_reads_arrays_wrenches_and_imus():
    array = Float32MultiArray(data=[9.0, 1.0, 2.0])
    array.layout.data_offset = 1
    values, stamp_ns = decode(array, FORCE)
    np.testing.assert_array_equal(values, [1.0, 2.0])
    assert stamp_ns == RECEIPT_NS
    wrench = WrenchStamped(header=make_header(8))
    wrench.wrench.force.z, wrench.wrench.torque.x = 3.0, 4.0
    np.testing.assert_array_equal(decode(wrench, FORCE)[0], [0, 0, 3, 4, 0, 0])
    imu = Imu(header=make_header(8))
    imu.angular_velocity.y, imu.linear_acceleration.z = 1.0, 9.8
    np.testing.assert_allclose(decode(imu, FORCE)[0], [0, 1, 0, 0, 0, 9.8], rtol=1e-6)
    assert 'empty' in refuse(Float32MultiArray(), FORCE)
    assert 'NaN' in refuse(Float32MultiArray(data=[float('nan')]), FORCE)


# What leaves the node


@pytest.mark.parametrize('modality', MODALITIES, ids=lambda m: m.spec.name)
def test_output_codec_encodes_every_kind(modality):
    array = np.random.default_rng(0).random(modality.shape, dtype=np.float32)
    codec = output_codec(modality.spec.kind)
    header = make_header(12, 'latent/x@1')
    for encode, kind in (
        (codec.encode, codec.message_type),
        (codec.encode_std, codec.std_type),
        (codec.encode_native, codec.native_type),
    ):
        if encode is not None:
            message = encode(modality, array, header)
            assert type(message) is kind
            assert not hasattr(message, 'header') or message.header == header


@pytest.mark.parametrize('modality', MODALITIES, ids=lambda m: m.spec.name)
def test_output_codec_decodes_what_it_encodes(modality):
    array = np.random.default_rng(0).random(modality.shape, dtype=np.float32)
    codec = output_codec(modality.spec.kind)
    message = codec.encode(modality, array, make_header(12))
    sent = modality.to_model(modality.from_model(array)) if modality.spec.kind in (
        'image', 'trajectory') else array  # fmt: skip
    np.testing.assert_allclose(codec.decode(modality, message), sent, atol=2e-3)


def test_output_codec_exists_for_every_kind_and_reads_back_its_own():
    for kind in kinds():
        output_codec(kind)
        input_codec(kind)
    array = np.random.default_rng(0).random(PEN.shape, dtype=np.float32)
    message = output_codec('trajectory').encode(PEN, array, make_header(1))
    np.testing.assert_allclose(decode(message, PEN)[0].points.reshape(-1), array, rtol=1e-6)
    pixels = output_codec('image').encode(IMAGE, np.ones(IMAGE.shape, np.float32), make_header(1))
    assert pixels.encoding == 'mono8'
    assert not np.any(pixels.data), 'ink of an inverted image is dark again'


def test_output_codec_keeps_the_mel_as_it_is():
    array = np.random.default_rng(0).random(SOUND.shape, dtype=np.float32)
    message = output_codec('sound').encode(SOUND, array, make_header(1))
    assert (message.height, message.width, message.encoding) == (128, 32, '32FC1')
    np.testing.assert_array_equal(decode(message, IMAGE)[0], array)


def test_output_codec_names_the_labels():
    array = np.linspace(0, 1, 10, dtype=np.float32)
    message = output_codec('symbol').encode(SYMBOL, array, make_header(1))
    assert message.layout.dim[0].label.split(',') == list(LABELS)
    np.testing.assert_array_equal(message.data, array)


def test_latent_message_holds_mean_and_std():
    mean, std = np.arange(3, dtype=np.float32), np.ones(3, np.float32)
    message = latent_message(mean, std, make_header(1, 'latent/x@1'))
    assert (message.height, message.width, message.point_step) == (1, 3, 8)
    table = read_table(message)
    np.testing.assert_array_equal(table['mean'], mean)
    np.testing.assert_array_equal(table['std'], std)
    header = make_header(1_700_000_000_000_000_077, 'latent/x@1')
    vector = latent_vector_message(mean, std, header)
    assert [(d.label, d.size, d.stride) for d in vector.layout.dim] == [
        ('statistic', 2, 6),
        ('latent', 3, 3),
        ('stamp 1700000000.000000077 latent/x@1', 1, 1),
    ]
    assert array_header(vector) == header
    joints = latent_joints_message(mean, std, header)
    assert joints.header == header and list(joints.position) == list(vector.data)
    assert joints.name == ['mean_0', 'mean_1', 'mean_2', 'std_0', 'std_1', 'std_2']
    with pytest.raises(InvalidInput, match='expected stamp and a time'):
        array_header(Float32MultiArray())
    np.testing.assert_array_equal(vector.data, [0, 1, 2, 1, 1, 1])


def test_latent_message_says_what_took_part_and_how_old_it_is():
    mean, std = np.arange(3, dtype=np.float32), np.ones(3, np.float32)
    used, ages_s = {'image': True, 'sound': False}, {'image': 0.25, 'sound': None}
    message = latent_message(mean, std, make_header(7, 'latent/x@1'), used, ages_s)
    fields = [(field.name, field.offset) for field in message.fields]
    assert fields[:2] == [('mean', 0), ('std', 4)], 'where they were before'
    added = ['used_image', 'used_sound', 'age_image', 'age_sound']
    assert [name for name, _ in fields[2:]] == added
    latent = read_latent(message)
    assert (latent.stamp_ns, latent.frame_id) == (7, 'latent/x@1')
    assert latent.used == used
    assert latent.ages_s == {'image': 0.25, 'sound': -1.0}
    np.testing.assert_array_equal(latent.mean, mean)
    np.testing.assert_array_equal(latent.std, std)


def test_latent_that_is_none_is_refused():
    nothing = table_message({'x': np.ones(2)}, make_header(1))
    with pytest.raises(InvalidInput, match='expected mean and std'):
        read_latent(nothing)
    broken = latent_message(np.full(2, np.nan), np.ones(2), make_header(1))
    with pytest.raises(InvalidInput, match='NaN'):
        read_latent(broken)


def test_stamped_array_is_read_as_a_vector():
    values = np.arange(3, dtype=np.float32)
    vector = build_modality(
        ModalitySpec('range', 'vector', 1, {'low': (0.0,) * 3, 'high': (9.0,) * 3})
    )
    codec = input_codec('vector', 'sensor_msgs/msg/PointCloud2')
    raw, stamp_ns = codec.decode(table_message({'value': values}, make_header(6)), 9, vector)
    np.testing.assert_array_equal(raw, values)
    assert stamp_ns == 6


def test_compressed_message_is_read_as_it_was_made():
    colours = np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8)
    np.testing.assert_array_equal(decode(compressed_message(colours, 5), IMAGE)[0], colours)
    grey = colours[..., 0]
    np.testing.assert_array_equal(decode(compressed_message(grey, 5), IMAGE)[0], grey)


@pytest.mark.parametrize('name', ACTIONS)
@pytest.mark.parametrize('quantity', QUANTITIES)
def test_action_is_read_as_it_was_sent(name, quantity):
    codec = ACTIONS[name]
    names = ('linear.x', 'angular.z')
    action = Action(np.array([0.5, -2.0]), names, quantity, 1_000_000_007, 0.05)
    message = codec.encode(action)
    values, stamp_ns = read_action(codec, message, names)
    np.testing.assert_array_equal(values, action.values)
    assert stamp_ns == (action.stamp_ns if name == 'sensor_msgs/msg/JointState' else 0)
    if name == 'sensor_msgs/msg/JointState':
        assert list(getattr(message, quantity)) == [0.5, -2.0]
        values, _ = read_action(codec, message, names[::-1])
        np.testing.assert_array_equal(values, [-2.0, 0.5])


def test_action_of_another_size_is_refused():
    codec = ACTIONS['std_msgs/msg/Float64MultiArray']
    message = codec.encode(Action(np.ones(3), ('a', 'b', 'c')))
    with pytest.raises(InvalidInput, match='3 numbers; expected 2'):
        read_action(codec, message, ('a', 'b'))
    with pytest.raises(InvalidInput, match='NaN'):
        read_action(codec, codec.encode(Action(np.array([np.nan]), ('a',))), ('a',))


def test_codec_tables_say_what_is_known():
    with pytest.raises(ConfigError, match=r'known for image: sensor_msgs/msg/Image, sensor_msgs'):
        input_codec('image', 'std_msgs/msg/String')
    with pytest.raises(ConfigError, match='no output codec for kind "smell"'):
        output_codec('smell')


# Nothing that a message holds makes a codec fail in any other way

TEXT = st.text(max_size=8)
UNSIGNED = st.integers(0, 2**32 - 1) | st.integers(0, 16)
NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


def survives(message, modality):
    """Decode and transform: both succeed or say why not."""
    try:
        raw, stamp_ns = decode(message, modality)
        assert isinstance(stamp_ns, int)
        window = modality.new_window()
        window.push(raw, stamp_ns)
        if window.latest is not None:
            modality.to_model(window.latest.raw)
    except InvalidInput as error:
        assert '\n' not in str(error)


@given(
    encoding=st.sampled_from(['mono8', 'bgr8', 'rgba8', '16UC1', '32FC1']) | TEXT,
    height=UNSIGNED,
    width=UNSIGNED,
    step=UNSIGNED,
    big=st.integers(0, 255),
    data=st.binary(max_size=600),
)
@settings(max_examples=200, deadline=None)
def test_image_codec_survives_anything(encoding, height, width, step, big, data):
    message = Image(
        encoding=encoding, height=height, width=width, step=step, is_bigendian=big, data=data
    )
    survives(message, IMAGE)
    survives(CompressedImage(format=encoding, data=data), IMAGE)


@given(
    names=st.lists(st.sampled_from(['t', 'ch0', 'ch1']) | TEXT, max_size=4),
    offsets=st.lists(UNSIGNED, min_size=4, max_size=4),
    kinds_=st.lists(st.integers(0, 255) | st.just(7), min_size=4, max_size=4),
    height=st.integers(0, 2),
    width=UNSIGNED,
    step=UNSIGNED,
    big=st.booleans(),
    data=st.binary(max_size=256),
)
@settings(max_examples=200, deadline=None)
def test_sound_codec_survives_anything(names, offsets, kinds_, height, width, step, big, data):
    fields = [
        PointField(name=name, offset=offset, datatype=kind, count=1)
        for name, offset, kind in zip(names, offsets, kinds_, strict=False)
    ]
    message = PointCloud2(
        fields=fields, height=height, width=width, point_step=step, is_bigendian=big, data=data
    )
    survives(message, SOUND)


@given(
    table=hnp.arrays(
        np.float32, st.tuples(st.integers(1, 50), st.just(2)), elements=st.floats(width=32)
    )
)
@settings(max_examples=100, deadline=None)
def test_sound_codec_survives_any_numbers(table):
    message = audio_message(table[:, 1], 8000, 1)
    message.data = table.tobytes()
    survives(message, SOUND)


@given(
    rows=st.lists(st.lists(NUMBERS, max_size=3), max_size=6),
    seconds=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=6, max_size=6),
    names=st.lists(TEXT, max_size=3),
)
@settings(max_examples=150, deadline=None)
def test_trajectory_codec_survives_anything(rows, seconds, names):
    message = positions(*rows, joint_names=names)
    for point, second in zip(message.points, seconds, strict=False):
        point.time_from_start.sec = second
    survives(message, PEN)
    for row in rows:
        survives(JointState(position=row, name=names), PEN)
        survives(JointState(position=row, name=names), JOINTS)


@given(text=st.text(max_size=300), numbers=st.lists(st.floats(width=32), max_size=8))
@settings(max_examples=100, deadline=None)
def test_symbol_and_vector_codecs_survive_anything(text, numbers):
    survives(String(data=text), SYMBOL)
    survives(Float32MultiArray(data=numbers), FORCE)


def test_a_stack_is_one_message_at_a_time():
    """A vector of two values a moment apart is read and written as joint states of one."""
    modality = build_modality(
        ModalitySpec('arm', 'vector', 2, {'low': (0.0,) * 3, 'high': (1.0,) * 3, 'frames': 2})
    )
    codec = codec_for(modality)
    message = codec.message_type(position=[0.1, 0.2, 0.3])
    raw, _ = codec.decode(message, RECEIPT_NS, modality.single)
    array = modality.to_model(Stack((np.zeros(3, np.float32), complete(raw))))
    draft = Draft(modality.single, modality.newest(array), make_header(1), message, None)
    assert codec.write(draft).position.tolist() == pytest.approx([0.1, 0.2, 0.3])


def raw_sound(**options):
    return build_modality(
        ModalitySpec('sound', 'sound', preprocessing={'raw_rate_hz': 8000, **options})
    )


@pytest.mark.parametrize(
    ('name', 'options', 'scale'),
    [
        ('u8', {}, 0.012),
        ('s16le', {}, 1e-4),
        ('s16be', {}, 1e-4),
        ('s32le', {}, 1e-6),
        ('f32le', {}, 1e-6),
    ],
)
def test_sound_codec_reads_bytes_of_any_format(name, options, scale):
    samples = 0.5 * np.sin(np.arange(400) * 0.3)
    whole = {'u8': 127, 's16le': 2**15 - 1, 's16be': 2**15 - 1, 's32le': 2**31 - 1, 'f32le': 1.0}[
        name
    ]
    dtype = RAW_FORMATS[name]
    values = samples * whole + (128 if name == 'u8' else 0)
    both = np.repeat(values.astype(dtype), 2)
    it = raw_sound(raw_format=name, raw_channels=2)
    message = UInt8MultiArray(data=both.tobytes())
    waveform, stamp_ns = codec_for(it, 'std_msgs/msg/UInt8MultiArray').decode(message, 10**9, it)
    assert (waveform.rate_hz, stamp_ns) == (8000, 10**9 - 50_000_000)
    np.testing.assert_allclose(waveform.samples, samples, atol=scale)


def test_sound_codec_reads_audio_common_of_both_kinds():
    """The package is on no index: its messages are made up here field by field."""
    header = make_header(7)
    samples = [100, -100, 200, -200]
    data = SimpleNamespace(int16_data=array('h', samples))
    info = SimpleNamespace(format=8, channels=2, rate=16000)
    stamped = SimpleNamespace(header=header, audio=SimpleNamespace(audio_data=data, info=info))
    waveform, stamp_ns = decode_audio_stamped(stamped, 0, SOUND)
    assert (waveform.rate_hz, stamp_ns, list(waveform.samples)) == (16000, 7, [0.0, 0.0])
    info.format = 4
    with pytest.raises(InvalidInput, match='audio format 4 is none of'):
        decode_audio_stamped(stamped, 0, SOUND)
    audio = SimpleNamespace(data=array('B', np.array(samples, '<i2').tobytes()))
    stamped = SimpleNamespace(header=header, audio=audio)
    waveform, stamp_ns = decode_stamped_bytes(stamped, 0, raw_sound())
    assert stamp_ns == 7
    np.testing.assert_allclose(waveform.samples, np.array(samples) / 2**15)


def test_sound_codec_says_what_raw_sound_lacks():
    odd = UInt8MultiArray(data=[1, 2, 3])
    codec = codec_for(SOUND, 'std_msgs/msg/UInt8MultiArray')
    with pytest.raises(InvalidInput, match='3 bytes are no s16le'):
        codec.decode(odd, 0, SOUND)
    with pytest.raises(InvalidInput, match=r'set preprocessing\.raw_rate_hz'):
        codec.decode(UInt8MultiArray(data=[1, 2]), 0, SOUND)
    with pytest.raises(ConfigError, match='raw_format is "mp3"; known: u8, s16le'):
        raw_sound(raw_format='mp3')
    if find_spec('audio_common_msgs') is None:
        with pytest.raises(ConfigError, match='no package audio_common_msgs with messages'):
            codec_for(SOUND, 'audio_common_msgs/msg/AudioStamped')
