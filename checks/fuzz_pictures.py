"""
Pictures broken by structure: chunks of PNG, segments and scans of JPEG, bytes within them.

``python -m checks.fuzz_pictures --tries 1000000 --json docs/fuzz_pictures.json``. Each is taken as
the node takes it, and either is a picture or is refused with a reason.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage

from mm_perception.errors import InvalidInput
from mm_perception.modalities import build_modality
from mm_perception.ros.codecs.image import decode_compressed
from mm_perception.ros.lifecycle import trim_memory
from mm_perception.ros.picture_process import PNG_START, essential_picture
from mm_perception.spec import ModalitySpec

MAX_WALK_S = 0.2
MAX_GROWTH_MIB = 64
KINDS = (b'IHDR', b'PLTE', b'tRNS', b'IDAT', b'IEND', b'acTL', b'fcTL', b'fdAT', b'iCCP', b'tEXt')
MARKERS = (
    0xC0,
    0xC1,
    0xC2,
    0xC4,
    0xC8,
    0xC9,
    0xCC,
    0xD0,
    0xD8,
    0xD9,
    0xDA,
    0xDB,
    0xDD,
    0xE0,
    0xFE,
)
NUMBERS = (0, 1, 2, 3, 7, 8, 255, 4096, 32768, 65535, 1 << 24, (1 << 31) - 1, 1 << 31, 2**32 - 1)
Parts = list[bytes]


def samples() -> list[bytes]:
    """Small pictures of every kind that OpenCV writes."""
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 255, (24, 32, 3), np.uint8)
    pictures = (colour, colour[:, :, 0], np.dstack((colour, colour[:, :, :1])))
    deep = (colour.astype(np.uint16) * 257, colour[:, :, 0].astype(np.uint16) * 257)
    made = [cv2.imencode('.png', p)[1] for p in (*pictures, *deep)]
    for options in ([], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 1]):
        made += [cv2.imencode('.jpg', p, options)[1] for p in pictures[:2]]
    return [data.tobytes() for data in made]


def split(data: bytes) -> Parts:
    """Chunks of a PNG, or segments of a JPEG, each scan with its data; together the whole."""
    if data.startswith(PNG_START):
        parts, position = [PNG_START], len(PNG_START)
        while position < len(data):
            end = position + 12 + struct.unpack('>I', data[position : position + 4])[0]
            parts.append(data[position:end])
            position = end
        return parts
    bounds = [0, 2]
    while data[bounds[-1] + 1] != 0xD9:
        begin = bounds[-1]
        end = begin + 2 + struct.unpack('>H', data[begin + 2 : begin + 4])[0]
        while data[begin + 1] == 0xDA and not (
            data[end] == 0xFF and data[end + 1] not in (0, *range(0xD0, 0xD8))
        ):
            end += 1
        bounds.append(end)
    return [data[a:b] for a, b in zip(bounds, [*bounds[1:], len(data)])]


def _bytes(parts: Parts, rng: random.Random) -> None:
    k = rng.randrange(len(parts))
    part = bytearray(parts[k])
    for _ in range(rng.randint(1, 4)):
        part[rng.randrange(len(part))] = rng.randrange(256)
    parts[k] = bytes(part)


def _number(parts: Parts, rng: random.Random) -> None:
    k = rng.randrange(len(parts))
    value, width = rng.choice(NUMBERS), rng.choice((1, 2, 4))
    at = rng.randrange(max(len(parts[k]) - width, 1))
    number = (value % 256**width).to_bytes(width, 'big')
    parts[k] = parts[k][:at] + number + parts[k][at + width :]


def _cut(parts: Parts, rng: random.Random) -> None:
    k = rng.randrange(len(parts))
    parts[k] = parts[k][: rng.randrange(len(parts[k]))]


def _drop(parts: Parts, rng: random.Random) -> None:
    if len(parts) > 1:
        del parts[rng.randrange(len(parts))]


def _repeat(parts: Parts, rng: random.Random) -> None:
    k = rng.randrange(len(parts))
    parts[k:k] = [parts[k]] * rng.choice((1, 2, 10, 200))


def _swap(parts: Parts, rng: random.Random) -> None:
    a, b = rng.randrange(len(parts)), rng.randrange(len(parts))
    parts[a], parts[b] = parts[b], parts[a]


def _insert(parts: Parts, rng: random.Random) -> None:
    content = rng.randbytes(rng.choice((0, 1, 4, 13, 26, 300)))
    chunk = rng.choice(KINDS) + content
    made = struct.pack('>I', len(content)) + chunk + struct.pack('>I', zlib.crc32(chunk))
    if not parts[0].startswith(PNG_START[:1]):
        made = bytes((0xFF, rng.choice(MARKERS))) + struct.pack('>H', len(content) + 2) + content
    parts.insert(rng.randint(1, len(parts)), made)


def _mend(parts: Parts, rng: random.Random) -> None:
    """Make the checks of a PNG right, so that the decoder believes what was broken."""
    for k, part in enumerate(parts):
        if len(part) >= 12 and parts[0] == PNG_START:
            body = part[4:-4]
            parts[k] = (
                struct.pack('>I', len(body) - 4) + body + struct.pack('>I', zlib.crc32(body))
            )


CHANGES: tuple[Callable[[Parts, random.Random], None], ...] = (
    _bytes, _bytes, _number, _cut, _drop, _repeat, _swap, _insert, _insert,
)  # fmt: skip


def broken(count: int, seed: int) -> Iterator[bytes]:
    """Broken pictures."""
    rng = random.Random(seed)
    whole = [split(data) for data in samples()]
    for _ in range(count):
        parts = list(rng.choice(whole))
        for _ in range(rng.randint(1, 3)):
            rng.choice(CHANGES)(parts, rng)
            parts = [part for part in parts if part] or [b'\0']
        if rng.random() < 0.7:
            _mend(parts, rng)
        yield b''.join(parts)


def resident_mib() -> int:
    """Memory that this process holds now."""
    trim_memory()
    return int(Path('/proc/self/statm').read_text().split()[1]) * resource.getpagesize() >> 20


def main() -> int:
    """Fuzz; exit code 1 if anything escaped, took too long or grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--tries', type=int, default=20_000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--json', type=Path)
    args = parser.parse_args()
    modality = build_modality(ModalitySpec('photo', 'image', 4))
    counts = {'tries': 0, 'pictures': 0, 'refused': 0, 'decoder died': 0}
    longest_s, taken_mib, wrong = 0.0, 0, []
    for data in broken(args.tries, args.seed):
        counts['tries'] += 1
        begin_s = time.thread_time()
        with suppress(InvalidInput):
            essential_picture(np.frombuffer(data, np.uint8))
        longest_s = max(longest_s, time.thread_time() - begin_s)
        try:
            decode_compressed(CompressedImage(data=data), 1, modality)
            counts['pictures'] += 1
        except InvalidInput as error:
            counts['decoder died' if 'died' in str(error) else 'refused'] += 1
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            wrong.append(f'{error!r}: {data.hex()}')
            print(wrong[-1], flush=True)
        if counts['tries'] == max(args.tries // 10, 1):
            taken_mib = resident_mib()
    grown_mib = resident_mib() - taken_mib
    report = {
        **counts,
        'escaped': len(wrong),
        'longest before the decoder (ms)': round(longest_s * 1e3, 2),
        'growth (MiB)': grown_mib,
    }
    print(json.dumps(report))
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + '\n')
    return int(bool(wrong) or longest_s > MAX_WALK_S or grown_mib > MAX_GROWTH_MIB)


if __name__ == '__main__':
    sys.exit(main())
