"""Any message at all: read or refused with a reason, and never more than that."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import zlib
from array import array
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage

from checks.fuzz_messages import INPUTS, InputPath, fuzzed_spec
from mm_perception.errors import InvalidInput
from mm_perception.fusion.gathering import complete
from mm_perception.modalities import build_modality
from mm_perception.ros.codecs import input_codec
from mm_perception.ros.picture_process import essential_picture

ROOT = Path(__file__).parents[2]
MESSAGES = int(os.environ.get('FUZZ_MESSAGES', '20000'))
PICTURES = int(os.environ.get('FUZZ_PICTURES', '5000'))
MODALITIES = {spec.name: build_modality(spec) for spec in fuzzed_spec().modalities}
RECEIPT_NS = 1_700_000_000_000_000_000


def test_fuzz_malformed_messages_neither_escape_nor_leak(tmp_path: Path) -> None:
    report = tmp_path / 'fuzz.json'
    command = [sys.executable, '-m', 'checks.fuzz_messages', '--messages', str(MESSAGES)]
    # A process of its own: a crash of the deserialisation in C++ must not end the tests.
    done = subprocess.run(
        [*command, '--json', str(report)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    result = json.loads(report.read_text())
    assert result['malformed'] == MESSAGES
    assert result['refused by the node'] > MESSAGES / 4, 'hardly anything was malformed'


def test_fuzz_pictures_broken_by_structure_are_read_or_refused(tmp_path: Path) -> None:
    report = tmp_path / 'fuzz.json'
    command = [sys.executable, '-m', 'checks.fuzz_pictures', '--tries', str(PICTURES)]
    done = subprocess.run(
        [*command, '--json', str(report)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    result = json.loads(report.read_text())
    assert result['tries'] == PICTURES and result['escaped'] == 0
    assert min(result['pictures'], result['refused']) > PICTURES / 20


# Any values of the fields' types


NUMBERS = {
    'boolean': st.booleans(),
    'octet': st.binary(min_size=1, max_size=1),
    'float': st.floats(width=32),
    'double': st.floats(),
    'string': st.text(st.characters(codec='utf-8', exclude_characters='\0'), max_size=12),
    **{
        f'{sign}int{bits}': st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        if not sign
        else st.integers(0, 2**bits - 1)
        for bits in (8, 16, 32, 64)
        for sign in ('', 'u')
    },
}
CODES = {'uint8': 'B', 'float': 'f', 'double': 'd'}
SIZES = st.sampled_from([0, 1, 2, 3, 4, 8, 12, 16])


def values(kind: str) -> st.SearchStrategy[Any]:
    """Values of a type as ROS writes it."""
    sequence = re.fullmatch(r'sequence<([^,>]+)(?:, \d+)?>', kind)
    fixed = re.fullmatch(r'(.+)\[(\d+)\]', kind)
    if sequence:
        several = st.lists(values(sequence[1]), max_size=16)
        code = CODES.get(sequence[1])
        return several.map(lambda items: array(code, items)) if code else several
    if fixed:
        return st.lists(values(fixed[1]), min_size=int(fixed[2]), max_size=int(fixed[2]))
    if kind in NUMBERS:
        return NUMBERS[kind] | SIZES if kind.startswith('uint') else NUMBERS[kind]
    package, name = kind.split('/')
    return messages(getattr(__import__(f'{package}.msg', fromlist=[name]), name))


def messages(message_type: type) -> st.SearchStrategy[Any]:
    """Messages of a type with any values in their fields."""
    fields = message_type.get_fields_and_field_types()  # type: ignore[attr-defined]
    return st.builds(message_type, **{name: values(kind) for name, kind in fields.items()})


@pytest.mark.parametrize('name', list(MODALITIES))
def test_fuzz_codec_reads_or_refuses_any_message(name: str) -> None:
    modality = MODALITIES[name]
    codec = input_codec(modality.spec.kind, modality.spec.message)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(messages(codec.message_type))
    def check(message: Any) -> None:
        received = deserialize_message(serialize_message(message), codec.message_type)
        try:
            raw, stamp_ns = codec.decode(received, RECEIPT_NS, modality)
            raw = complete(raw)
            assert isinstance(stamp_ns, int)
            window = modality.new_window()
            window.push(raw, stamp_ns)
            modality.trace(raw)
            if window.latest is not None:
                array_ = modality.to_model(window.latest.raw)
                assert array_.shape == modality.shape
                assert np.isfinite(array_).all()
        except InvalidInput as error:
            assert str(error) and '\n' not in str(error)

    check()


def test_fuzz_covers_every_kind_and_message_type() -> None:
    from mm_perception.ros.codecs.base import _INPUTS, _MADE_WHEN_ASKED

    fuzzed = {(kind, message) for _, kind, message, _ in INPUTS}
    assert set(_INPUTS) - set(_MADE_WHEN_ASKED) <= fuzzed, 'registered, one by one'
    assert fuzzed & set(_MADE_WHEN_ASKED), 'and some of those that are read by their fields'


def test_fuzz_notices_a_defect_which_stops_no_other_modality(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = InputPath(fuzzed_spec())

    def fail(raw: Any) -> Any:
        raise ZeroDivisionError('on purpose')

    monkeypatch.setattr(path.perception.modalities['symbol'], 'to_model', fail)
    for _ in range(4):
        path.take('symbol', input_codec('symbol').message_type(data='3'))
        path.take(
            'pair',
            input_codec('vector', 'std_msgs/msg/Float32MultiArray').message_type(data=[1.0, 2.0]),
        )
    assert path.defects and all('on purpose' in defect for defect in path.defects)
    assert path.fused is not None and set(path.fused.observed) == {'pair'}


# Pictures that claim more than they are


def picture_size(data: bytes) -> tuple[int, int] | None:
    return essential_picture(np.frombuffer(data, np.uint8))[1]


def png(chunks: list[tuple[int, bytes, bytes]]) -> bytes:
    """A PNG of chunks: (length that is claimed, kind, data)."""
    body = b''.join(
        struct.pack('>I', length) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
        for length, kind, data in chunks
    )
    return b'\x89PNG\r\n\x1a\n' + body


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_picture_size_is_what_the_decoder_finds(suffix: str) -> None:
    for height, width in ((1, 1), (48, 64), (480, 640)):
        data = cv2.imencode(suffix, np.zeros((height, width, 3), np.uint8))[1].tobytes()
        assert picture_size(data) == (width, height)
        for cut in range(0, len(data), max(len(data) // 40, 1)):
            assert picture_size(data[:cut]) in (None, (width, height))


def test_picture_that_claims_too_much_is_refused_unread() -> None:
    head = (13, b'IHDR', struct.pack('>IIBBBBB', 30000, 30000, 8, 2, 0, 0, 0))
    small = (13, b'IHDR', struct.pack('>IIBBBBB', 4, 4, 8, 2, 0, 0, 0))
    end = (0, b'IEND', b'')
    hollow = (13, b'IHDR', struct.pack('>IIBBBBB', 5000, 5000, 8, 2, 0, 0, 0))
    jpeg = bytearray(cv2.imencode('.jpg', np.zeros((8, 8), np.uint8))[1].tobytes())
    frame = jpeg.index(b'\xff\xc0')
    jpeg[frame + 5 : frame + 9] = struct.pack('>HH', 60000, 60000)
    modality = MODALITIES['photo']
    decode = input_codec('image', 'sensor_msgs/msg/CompressedImage').decode
    for data, word in (
        (png([head, end]), '30000x30000'),
        (png([hollow, end]), 'claims 5000x5000'),
        (bytes(jpeg), '60000x60000'),
        (png([small, (3_000_000_000, b'IDAT', b'x'), end]), 'neither'),
        (png([(3_000_000_000, b'IHDR', small[2]), end]), 'neither'),
        (b'BM' + bytes(100), 'neither'),
    ):
        with pytest.raises(InvalidInput, match=word):
            decode(CompressedImage(data=data), RECEIPT_NS, modality)


def test_what_follows_a_picture_is_not_read_as_a_part_of_it() -> None:
    """OpenCV reads on where it has met no pixels, and takes the next bytes for 2.3 GB to come."""
    head = (13, b'IHDR', struct.pack('>IIBBBBB', 4, 4, 8, 2, 0, 0, 0))
    hollow = png([head, (0, b'IEND', b'')])
    assert picture_size(hollow) == (4, 4)
    assert picture_size(hollow * 2) is None
