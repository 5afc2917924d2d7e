"""Compressed pictures made to harm: the process that decodes them may die, and nothing else."""

from __future__ import annotations

import os
import signal
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage

from mm_perception.bundle import Bundle, save_bundle
from mm_perception.errors import InvalidInput
from mm_perception.ros.picture_process import PictureProcess, decode_apart, essential_picture
from mm_perception.ros.picture_worker import DEADLINE_S
from tests.helpers.robot import NodeProcess, Robot
from tests.helpers.small_bundle import make_bundle, small_spec


def chunk(kind: bytes, data: bytes = b'') -> bytes:
    check = struct.pack('>I', zlib.crc32(kind + data))
    return struct.pack('>I', len(data)) + kind + data + check


def png(*chunks: bytes) -> bytes:
    return b'\x89PNG\r\n\x1a\n' + b''.join(chunks)


def encoded(suffix: str, pixels: np.ndarray, *options: int) -> bytes:
    return bytes(cv2.imencode(suffix, pixels, options)[1].tobytes())


def essential(data: bytes) -> bytes:
    return essential_picture(np.frombuffer(data, np.uint8))[0]


HEAD = chunk(b'IHDR', struct.pack('>IIBBBBB', 4, 4, 8, 2, 0, 0, 0))
PIXELS = chunk(b'IDAT', zlib.compress(bytes(13 * 4)))
END = chunk(b'IEND')
PICTURE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
# A frame larger than the picture: OpenCV 4.11 writes it over its memory (177 bytes).
ANIMATION = (
    chunk(b'acTL', struct.pack('>II', 2, 0)),
    chunk(b'fcTL', struct.pack('>IIIIIHHBB', 0, 4000, 4000, 0, 0, 1, 1, 0, 0)),
    chunk(b'fdAT', struct.pack('>I', 1) + zlib.compress(bytes(100))),
)


@pytest.fixture
def process() -> Iterator[PictureProcess]:
    process = PictureProcess()
    yield process
    process.close()


def test_only_what_makes_pixels_of_a_png_reaches_the_decoder() -> None:
    plain = png(HEAD, PIXELS, END)
    text = chunk(b'tEXt', b'Comment\0' + bytes(1000))
    assert essential(png(HEAD, text, *ANIMATION, PIXELS, text, END)) == plain
    assert decode_apart(essential(png(HEAD, *ANIMATION, PIXELS, END))).shape == (4, 4, 3)
    grey, alpha = PICTURE[:, :, 0], np.dstack((PICTURE, PICTURE[:, :, :1]))
    for pixels in (PICTURE, grey, alpha, PICTURE.astype(np.uint16) * 257):
        found = decode_apart(essential(encoded('.png', pixels)))
        np.testing.assert_array_equal(found, pixels)


def progressive(scans: int, side: int = 64) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    pixels = np.zeros((side, side), np.uint8)
    data = encoded('.jpg', pixels, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    last = data.rindex(b'\xff\xda')
    return data[:last] + data[last:-2] * scans + data[-2:]


def test_decode_time_is_bounded_before_a_decoder_sees_the_picture() -> None:
    begin_s = time.perf_counter()
    for data, reason in (
        (progressive(6000), 'scans'),
        (png(HEAD, *[chunk(b'tEXt')] * 2_000_000, PIXELS, END), 'chunks'),
        (b'\xff\xd8' + b'\xff\xfe\x00\x02' * 2_000_000, 'segments'),
        (b'\xff\xd8' + b'\xff' * 8_000_000, 'neither'),
    ):
        with pytest.raises(InvalidInput, match=reason):
            decode(data)
    assert time.perf_counter() - begin_s < 2.0
    assert decode_apart(essential(progressive(1))).shape == (64, 64)


def decode(data: bytes) -> Any:
    from mm_perception.modalities import build_modality
    from mm_perception.ros.codecs.image import decode_compressed

    modality = build_modality(small_spec().modalities[0])
    return decode_compressed(CompressedImage(data=data), 1, modality)[0]


def test_decoder_that_dies_costs_one_picture(process: PictureProcess) -> None:
    good = encoded('.jpg', PICTURE)
    assert process.decode(good).shape == PICTURE.shape
    zygote, other = process._process.pid, encoded('.png', PICTURE[:8, :9])
    for _ in range(10):
        (child,) = map(int, Path(f'/proc/{zygote}/task/{zygote}/children').read_text().split())
        os.kill(child, signal.SIGSEGV)
        with pytest.raises(InvalidInput, match=r'died .*signal 11'):
            process.decode(good)
        begin_s = time.perf_counter()
        assert process.decode(other).shape == (8, 9, 3), (
            'its own pixels, not those asked for before'
        )
        assert time.perf_counter() - begin_s < 0.2
    assert not process.lost


def test_decoder_that_takes_long_is_ended(process: PictureProcess) -> None:
    slow = progressive(6000, side=1024)  # past what is let through
    begin_s = time.perf_counter()
    with pytest.raises(InvalidInput, match='signal 27'):
        process.decode(slow)
    assert time.perf_counter() - begin_s < 5 * DEADLINE_S + 3.0
    assert process.decode(encoded('.png', PICTURE)).shape == PICTURE.shape


def test_decoder_that_was_killed_starts_anew() -> None:
    good = encoded('.jpg', PICTURE)
    decode_apart(good)
    from mm_perception.ros import picture_process

    picture_process._of_thread.process.close()
    assert decode_apart(good).shape == PICTURE.shape


def test_decoder_ends_with_who_started_it(process: PictureProcess) -> None:
    process.decode(encoded('.jpg', PICTURE))
    os.close(os.dup(process._requests))
    process._open.close()
    assert process._process.wait(5) == 0


def test_memory_of_a_large_picture_is_given_back(process: PictureProcess) -> None:
    large = encoded('.png', np.zeros((4000, 4000, 3), np.uint8))
    assert process.decode(large).shape == (4000, 4000, 3)
    assert os.fstat(process._shared).st_blocks * 512 < 20 << 20


def test_camera_goes_on_after_pictures_that_kill_the_decoder(
    start: Callable[..., NodeProcess], robot: Robot, tmp_path: Any
) -> None:
    from dataclasses import replace

    spec = small_spec()
    camera = replace(spec.modalities[0], message='sensor_msgs/msg/CompressedImage')
    spec = replace(spec, modalities=(camera, *spec.modalities[1:]))
    bundle: Bundle = save_bundle(make_bundle(spec=spec), tmp_path / 'camera', '#\n')
    robot.node.destroy_publisher(robot.publishers.pop('image'))
    publisher = robot.node.create_publisher(CompressedImage, 'image', 10)
    node = start(f'bundle:={bundle.path}', 'autostart:=true', 'rate_hz:=10')
    robot._send_image = lambda: publisher.publish(  # type: ignore[method-assign]
        CompressedImage(data=encoded('.jpg', robot.picture()))
    )
    robot.live = {'image', 'symbol'}
    robot.until_used({'image', 'symbol'}, 40.0)
    import psutil

    for _ in range(2):
        robot.received['cmi/status'].clear()
        (zygote,) = psutil.Process(node.process.pid).children()
        (child,) = zygote.children()
        child.kill()
        robot.run(1.5)
        states = [
            value.value
            for message in robot.received['cmi/status']
            for entry in message.status if entry.name == 'image'
            for value in entry.values if value.key == 'used'
        ]  # fmt: skip
        assert len(states) > 5 and states.count('false') <= 3
        assert states[-1] == 'true'
    assert 'died of this picture' in node.log
    assert node.stop() == 0 and 'Traceback' not in node.log
