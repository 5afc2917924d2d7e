from collections import Counter

import numpy as np
import pytest

from mm_perception.errors import DataError
from mm_perception.lab.digits.pen import (
    PENDIGITS_TEST_FILE,
    PENDIGITS_TRAIN_FILE,
    UJI_FILE,
    load_pen_digits,
    one_stroke,
    read_pendigits,
    read_uji,
    split_of_writer,
)


def test_uji_reads_writers_and_turns_y_up(tmp_path):
    path = tmp_path / 'uji.txt'
    path.write_text(
        '//\nWORD 7 UJI2_W05-02\n  NUMSTROKES 1\n  POINTS 3 # 0 1 5 1 2 9\n'
        'WORD a UJI2_W05-01\n  NUMSTROKES 1\n  POINTS 1 # 0 1\n'
    )
    (digit,) = read_uji(path)
    assert (digit.label, digit.writer) == ('7', 'uji-05')
    np.testing.assert_array_equal(digit.strokes[0], [[0, -1], [5, -1], [2, -9]])


def test_pendigits_reads_every_stroke_and_names_the_file_in_the_writer(tmp_path):
    path = tmp_path / 'some.tes'
    path.write_text(
        '.INCLUDE x\n.SEGMENT DIGIT 0 ? "4"\n.COMMENT 4  3  11\n.PEN_DOWN\n 1 2\n 3 4\n.PEN_UP\n'
        '.DT 100\n.PEN_DOWN\n 5 6\n.PEN_UP\n.DT 100\n'
    )
    (digit,) = read_pendigits(path)
    assert (digit.label, digit.writer) == ('4', 'pendigits-tes-03')
    assert [len(stroke) for stroke in digit.strokes] == [2, 1]
    assert one_stroke([digit]) == []


@pytest.mark.parametrize(
    ('text', 'line', 'reason'),
    [
        ('POINTS 1 # 0 1\n', 1, 'expected WORD'),
        ('WORD 7 UJI2_W05-01\n', 1, 'NUMSTROKES'),
        ('WORD 7 UJI2_W05-01\nNUMSTROKES 1\nPOINTS 2 # 0 1\n', 3, '2 points announced, 1 found'),
        ('WORD 7 UJI2_W05-01\nNUMSTROKES 1\nPOINTS 1 # 0 x\n', 3, 'not a number'),
        ('WORD 7 UJI2_W05-01\nNUMSTROKES 1\nPOINTS 1 # 0\n', 3, 'pairs'),
        ('WORD 7 UJI2_W05-01\nNUMSTROKES 2\nPOINTS 1 # 0 1\n', 3, 'POINTS'),
    ],
)
def test_uji_broken_line_is_named(tmp_path, text, line, reason):
    path = tmp_path / 'uji.txt'
    path.write_text(text)
    with pytest.raises(DataError, match=rf'uji\.txt:{line}: .*{reason}'):
        read_uji(path)


@pytest.mark.parametrize(
    ('text', 'line', 'reason'),
    [
        ('.SEGMENT\n.COMMENT 4 3\n', 2, 'expected ".COMMENT'),
        ('.SEGMENT\n.COMMENT 4 3 1\n.PEN_DOWN\n 1 2\n', 1, 'no .PEN_UP'),
        ('.SEGMENT\n.COMMENT 4 3 1\n.PEN_DOWN\n 1 z\n.PEN_UP\n', 1, 'not a number'),
        ('.SEGMENT\n 1 2\n', 2, 'outside of a stroke'),
    ],
)
def test_pendigits_broken_line_is_named(tmp_path, text, line, reason):
    path = tmp_path / 'some.tra'
    path.write_text(text)
    with pytest.raises(DataError, match=rf'some\.tra:{line}: .*{reason}'):
        read_pendigits(path)


@pytest.mark.parametrize('reader', [read_uji, read_pendigits])
def test_reader_missing_or_empty_file_is_one_line(tmp_path, reader):
    with pytest.raises(DataError, match='cannot be read') as error:
        reader(tmp_path / 'absent.txt')
    assert '\n' not in str(error.value)
    (tmp_path / 'empty.tra').write_text('\n')
    with pytest.raises(DataError, match='no digits'):
        reader(tmp_path / 'empty.tra')


def test_pen_splits_share_no_writer(raw_root):
    digits = load_pen_digits(raw_root)
    assert {split: {d.writer for d in part} for split, part in digits.items()} == {
        'train': {'uji-01', 'uji-40', 'pendigits-tra-01', 'pendigits-tra-02'},
        'validation': {'uji-03', 'pendigits-tra-23'},
        'test': {'uji-41', 'pendigits-tes-01', 'pendigits-tes-02'},
    }


@pytest.mark.parametrize(
    ('writer', 'split'),
    [
        ('pendigits-tra-13', 'validation'),
        ('pendigits-tra-30', 'train'),
        ('pendigits-tes-13', 'test'),
        ('uji-33', 'validation'),
        ('uji-40', 'train'),
        ('uji-43', 'test'),
    ],
)
def test_split_of_writer_follows_corpus_and_number(writer, split):
    assert split_of_writer(writer) == split


def test_readers_find_all_of_the_real_recordings(real_root):
    uji = read_uji(real_root / UJI_FILE)
    pendigits = [
        read_pendigits(real_root / f) for f in (PENDIGITS_TRAIN_FILE, PENDIGITS_TEST_FILE)
    ]
    assert [len(uji), *map(len, pendigits)] == [1200, 7494, 3498]
    assert len(one_stroke(uji)) == 945
    counts = Counter(d.label for part in pendigits for d in one_stroke(part))
    assert counts.total() == 8308
    assert [counts[label] for label in '457'] == [455, 215, 164]
    digits = load_pen_digits(real_root)
    writers = {split: {d.writer for d in part} for split, part in digits.items()}
    assert not writers['train'] & writers['test'] | writers['validation'] & writers['test']
    assert not writers['train'] & writers['validation']
    assert [len(writers[split]) for split in ('train', 'validation', 'test')] == [63, 7, 34]
    assert {d.label for d in digits['validation']} == set('0123456789')
    sevens = {s: {d.writer for d in part if d.label == '7'} for s, part in digits.items()}
    assert [len(sevens[split]) for split in ('train', 'validation')] == [8, 2]
