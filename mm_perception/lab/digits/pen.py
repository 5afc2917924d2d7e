"""Pen recordings of digits, and how they look to a camera."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mm_perception.errors import DataError
from mm_perception.modalities import Motion
from mm_perception.modalities.base import Array

UJI_FILE = Path('ujipenchars2/ujipenchars2_digits.txt')
PENDIGITS_TRAIN_FILE = Path('pendigits_orig/pendigits-orig.tra')
PENDIGITS_TEST_FILE = Path('pendigits_orig/pendigits-orig.tes')
RATE_HZ = 100.0
UJI_TRAIN_WRITERS = 40
VALIDATION_LAST_FIGURE = 3
MIN_POINTS = 5
DIGITS = tuple('0123456789')


@dataclass(frozen=True)
class PenDigit:
    """
    One handwritten digit.

    :param writer: unique over all corpora.
    :param strokes: per stroke ``float32[T, 2]``, tablet units, y up, at a fixed rate.
    :param source: file and line, for messages.
    """

    label: str
    writer: str
    strokes: tuple[Array, ...]
    source: str

    @property
    def motion(self) -> Motion:
        """The first stroke, timed at the tablets' nominal 100 Hz."""
        points = self.strokes[0]
        return Motion(points, np.arange(len(points), dtype=np.float32) / np.float32(RATE_HZ))


def read_uji(path: Path) -> list[PenDigit]:
    """
    Read UJI Pen Characters 2 (official text format); y is turned up.

    :raises DataError: if the file is missing or a line does not fit the format.
    """
    digits = []
    lines = _numbered_lines(path)
    for number, line in lines:
        if not line.startswith('WORD'):
            raise _broken(path, number, f'expected WORD, got {line[:20]!r}')
        fields = line.split()
        if len(fields) != 3 or '_W' not in fields[2]:
            raise _broken(path, number, 'expected "WORD character id"')
        strokes = tuple(_uji_strokes(path, lines, number))
        if fields[1] in DIGITS:
            writer = 'uji-' + fields[2].split('_W')[1].split('-')[0]
            digits.append(PenDigit(fields[1], writer, strokes, f'{path.name}:{number}'))
    return _not_empty(path, digits)


def read_pendigits(path: Path) -> list[PenDigit]:
    """
    Read the original pendigits (UNIPEN text).

    Writers are numbered anew in each of its two files, so their names carry the file's.

    :raises DataError: if the file is missing or a line does not fit the format.
    """
    digits = []
    label = writer = ''
    begun = 0
    strokes: list[list[str]] = []
    pen_down = False
    for number, line in (*_numbered_lines(path), (0, '.SEGMENT')):
        if line.startswith('.SEGMENT'):
            if pen_down:
                raise _broken(path, number or begun, 'a stroke has no .PEN_UP')
            if begun:
                arrays = tuple(_parse_points(path, begun, ' '.join(s).split()) for s in strokes)
                digits.append(PenDigit(label, writer, arrays, f'{path.name}:{begun}'))
            strokes, begun = [], number
        elif line.startswith('.COMMENT'):
            fields = line.split()
            if len(fields) != 4 or fields[1] not in DIGITS:
                raise _broken(path, number, 'expected ".COMMENT digit writer serial"')
            label, writer = fields[1], f'pendigits-{path.suffix[1:]}-{int(fields[2]):02d}'
        elif line.startswith('.PEN_DOWN'):
            pen_down = True
            strokes.append([])
        elif line.startswith('.PEN_UP'):
            pen_down = False
        elif pen_down:
            strokes[-1].append(line)
        elif not line.startswith('.'):
            raise _broken(path, number, f'unexpected {line[:20]!r} outside of a stroke')
    return _not_empty(path, digits)


def one_stroke(digits: list[PenDigit]) -> list[PenDigit]:
    """Keep the digits drawn in one stroke of at least a few distinct points."""
    return [
        digit
        for digit in digits
        if len(digit.strokes) == 1 and len(np.unique(digit.strokes[0], axis=0)) >= MIN_POINTS
    ]


def load_pen_digits(data_root: Path) -> dict[str, list[PenDigit]]:
    """
    Read all one-stroke digits, split by writer as :func:`split_of_writer` says.

    :param data_root: folder of the raw recordings.
    :returns: digits of ``train``, ``validation`` and ``test``; no writer is in two of them.
    :raises DataError: if a file is missing or broken.
    """
    uji = read_uji(data_root / UJI_FILE)
    train = read_pendigits(data_root / PENDIGITS_TRAIN_FILE)
    test = read_pendigits(data_root / PENDIGITS_TEST_FILE)
    splits: dict[str, list[PenDigit]] = {'train': [], 'validation': [], 'test': []}
    for digit in one_stroke(train + test + uji):
        splits[split_of_writer(digit.writer)].append(digit)
    return splits


def split_of_writer(writer: str) -> str:
    """
    Which split a writer belongs to.

    Test writers are those of ``pendigits-orig.tes`` and the last 20 of the 60 of UJI Pen 2. Of
    the others, those whose number ends in 3 are for validation: 3 of 30 and 4 of 40, two of
    whom write one-stroke sevens (8 such writers stay in training).

    :param writer: as in :class:`PenDigit`.
    :returns: ``train``, ``validation`` or ``test``.
    """
    corpus, _, number = writer.rpartition('-')
    if corpus == 'pendigits-tes' or (corpus == 'uji' and int(number) > UJI_TRAIN_WRITERS):
        return 'test'
    return 'validation' if int(number) % 10 == VALIDATION_LAST_FIGURE else 'train'


def _uji_strokes(path: Path, lines: Iterator[tuple[int, str]], number: int) -> Iterator[Array]:
    number, line = next(lines, (number, ''))
    fields = line.split()
    if len(fields) != 2 or fields[0] != 'NUMSTROKES' or not fields[1].isdigit():
        raise _broken(path, number, 'expected "NUMSTROKES n"')
    for _ in range(int(fields[1])):
        number, line = next(lines, (number, ''))
        head, _, tail = line.partition('#')
        words = head.split()
        if len(words) != 2 or words[0] != 'POINTS' or not words[1].isdigit():
            raise _broken(path, number, 'expected "POINTS n # x1 y1 ..."')
        points = _parse_points(path, number, tail.split())
        if len(points) != int(words[1]):
            raise _broken(path, number, f'{words[1]} points announced, {len(points)} found')
        yield points * np.array([1.0, -1.0], np.float32)


def _parse_points(path: Path, number: int, words: list[str]) -> Array:
    try:
        values = np.array(words, np.float32)
    except ValueError as error:
        raise _broken(path, number, 'a coordinate is not a number') from error
    if len(values) % 2 or not len(values):
        raise _broken(path, number, f'{len(values)} coordinates are no pairs of x and y')
    return values.reshape(-1, 2)


def _numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text(encoding='latin-1')
    except OSError as error:
        raise DataError(
            f'{path}: cannot be read ({error.strerror}); give the folder of the recordings'
            ' with --data or MM_PERCEPTION_DATA'
        ) from error
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith('//'):
            yield number, line.strip()


def _not_empty(path: Path, digits: list[PenDigit]) -> list[PenDigit]:
    if not digits:
        raise DataError(f'{path}: holds no digits; download the file again')
    return digits


def _broken(path: Path, number: int, what: str) -> DataError:
    return DataError(f'{path}:{number}: {what}; download the file again')


INK = 15
PAPER = 255
FILL = 0.68
LINE_WIDTH = 0.075
MAX_POINTS = 100
SUBPIXEL_BITS = 4


def render_stroke(points: Array, height: int = 480, width: int = 640) -> NDArray[np.uint8]:
    """
    Draw a stroke, centred; its longer side and the pen's width fill 75 % of the height.

    :param points: ``float32[T, 2]``, any unit, y up.
    :param height: of the image, pixels.
    :param width: of the image, pixels.
    :returns: RGB image ``uint8[height, width, 3]``.
    """
    points = np.asarray(points, np.float32)
    if len(points) > MAX_POINTS:
        points = _thin(points)
    low, high = points.min(axis=0), points.max(axis=0)
    scale = FILL * min(height, width) / max(float((high - low).max()), 1e-6)
    offset = np.array([(width - 1) / 2, (height - 1) / 2])
    pixels = (points - (low + high) / 2) * [scale, -scale] + offset
    image = np.full((height, width), PAPER, np.uint8)
    fixed = np.rint(pixels * (1 << SUBPIXEL_BITS)).astype(np.int32)
    thickness = max(round(LINE_WIDTH * min(height, width)), 1)
    cv2.polylines(image, [fixed], False, INK, thickness, cv2.LINE_AA, SUBPIXEL_BITS)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB))


def _thin(points: Array) -> Array:
    """Keep MAX_POINTS points, equally spaced along the path."""
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    position = np.concatenate(([0.0], np.cumsum(steps)))
    wanted = np.linspace(0.0, position[-1], MAX_POINTS)
    return np.stack([np.interp(wanted, position, axis) for axis in points.T], axis=1)
