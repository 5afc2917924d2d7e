"""A small folder of raw recordings in the official formats, made up; and the real one."""

import os
import wave
from pathlib import Path

import numpy as np
import pytest

# Corners of each digit, y up.
DIGITS = {
    '0': [(5, 10), (1, 8), (0, 4), (3, 0), (6, 4), (5, 9), (4, 10)],
    '1': [(0, 7), (2, 10), (2, 5), (2, 0)],
    '2': [(0, 8), (3, 10), (5, 8), (3, 4), (0, 0), (6, 0)],
    '3': [(0, 9), (3, 10), (4, 8), (2, 5), (5, 3), (3, 0), (0, 1)],
    '4': [(3, 10), (0, 4), (6, 4), (5, 7), (4, 0)],
    '5': [(6, 10), (1, 10), (0, 6), (4, 6), (5, 2), (0, 0)],
    '6': [(5, 10), (1, 6), (0, 2), (3, 0), (5, 3), (1, 4)],
    '7': [(0, 10), (6, 10), (4, 5), (2, 0)],
    '8': [(5, 9), (2, 10), (1, 7), (5, 3), (3, 0), (1, 2), (5, 8)],
    '9': [(5, 9), (2, 10), (0, 7), (3, 6), (5, 9), (4, 0)],
}


def stroke(label, rng):
    """Points along the corners of a digit, by hand: ``int[T, 2]``, y up."""
    corners = np.array(DIGITS[label], float) * 20.0 + rng.normal(0.0, 3.0, 2)
    corners += rng.normal(0.0, 2.0, corners.shape)
    position = np.linspace(0, len(corners) - 1, 40)
    points = [np.interp(position, np.arange(len(corners)), axis) for axis in corners.T]
    return np.rint(np.stack(points, 1) + 100).astype(int)


def write_uji(path, writers, rng):
    lines = ['//', '// UJI: 100 units per millimetre']
    for label in DIGITS:
        for writer in writers:
            numbers = (stroke(label, rng) * [1, -1]).reshape(-1)
            lines += [f'WORD {label} UJI2_W{writer:02d}-01', '  NUMSTROKES 1']
            lines += [f'  POINTS {len(numbers) // 2} # {" ".join(map(str, numbers))}']
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(lines) + '\n')


def write_pendigits(path, writers, rng):
    lines = ['.INCLUDE        dene.doc', '']
    for label in DIGITS:
        for writer in writers:
            lines += [f'.SEGMENT DIGIT 0 ? "{label}"', f'.COMMENT {label} {writer} 7', '.PEN_DOWN']
            lines += [f' {x}  {y}' for x, y in stroke(label, rng)]
            lines += ['.PEN_UP', '.DT 100', '']
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(lines))


def write_speech(folder, speakers, indices, rng):
    folder.mkdir(parents=True)
    for label in DIGITS:
        for number, speaker in enumerate(speakers):
            for index in indices:
                time = np.arange(2400) / 8000
                tone = np.sin(2 * np.pi * (200 + 250 * int(label) + 20 * number) * time)
                samples = tone * np.hanning(2400) + rng.normal(0.0, 1e-3, 2400)
                with wave.open(str(folder / f'{label}_{speaker}_{index}.wav'), 'wb') as file:
                    file.setparams((1, 2, 8000, 0, 'NONE', ''))
                    file.writeframes((samples * 20000).astype('<i2').tobytes())


@pytest.fixture(scope='session')
def raw_root(tmp_path_factory):
    """A folder as ``MM_PERCEPTION_DATA`` names it, with a few made-up recordings."""
    rng = np.random.default_rng(0)
    root = tmp_path_factory.mktemp('raw')
    write_uji(root / 'ujipenchars2/ujipenchars2_digits.txt', (1, 3, 40, 41), rng)
    write_pendigits(root / 'pendigits_orig/pendigits-orig.tra', (1, 2, 23), rng)
    write_pendigits(root / 'pendigits_orig/pendigits-orig.tes', (1, 2), rng)
    write_speech(root / 'fsdd/recordings', ('anna', 'bert', 'zoe'), (0, 1, 5, 6, 45), rng)
    return root


@pytest.fixture(scope='session')
def real_root():
    """The folder of the real recordings."""
    root = Path(os.environ.get('MM_PERCEPTION_DATA', '../shared/data'))
    if not (root / 'fsdd').is_dir():
        pytest.skip(f'no raw recordings in {root}; set MM_PERCEPTION_DATA')
    return root
