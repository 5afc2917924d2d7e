import gzip
import json
import struct

import numpy as np
import pytest

from mm_perception.cli.main import main
from mm_perception.data.dataset import load_dataset, splits
from mm_perception.errors import DataError
from mm_perception.lab.digits.mnist import COLLECTIONS, build_images, read_idx
from mm_perception.modalities import build_modality
from mm_perception.spec import ModalitySpec


def write_idx(path, array, kind=8, shape=None):
    head = bytes((0, 0, kind, array.ndim)) + struct.pack(f'>{array.ndim}I', *shape or array.shape)
    path.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))


def write_pair(folder, stem, images, labels):
    write_idx(folder / f'{stem}-images-idx3-ubyte.gz', images)
    write_idx(folder / f'{stem}-labels-idx1-ubyte.gz', labels)


@pytest.fixture
def raw(tmp_path):
    """A folder of 40 training and 20 test images; the first pixels hold number and label."""
    for name in COLLECTIONS:
        folder = tmp_path / 'raw' / name
        folder.mkdir(parents=True)
        for stem, count in (('train', 40), ('t10k', 20)):
            labels = np.arange(count) * 3 % 10
            images = np.random.default_rng(count).integers(0, 256, (count, 28, 28))
            images[:, 0, 0], images[:, 0, 1] = np.arange(count), labels
            write_pair(folder, stem, images, labels)
    return tmp_path / 'raw'


def test_idx_reads_shape_and_values(tmp_path):
    expected = np.arange(24).reshape(2, 3, 4)
    write_idx(tmp_path / 'a.gz', expected)
    found = read_idx(tmp_path / 'a.gz', 3)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (b'', 'starts with nothing'),
        (b'no gzip', 'no readable gzip'),
        (gzip.compress(bytes(16) * 90, mtime=0)[:25], 'cut off'),
        (gzip.compress(bytes(16), mtime=0), 'starts with 00000000, expected 00000801'),
        (gzip.compress(b'\0\0\x0d\1\0\0\0\1\7', mtime=0), 'starts with 00000d01'),
        (gzip.compress(b'\0\0\x08\1\0\0', mtime=0), 'idx of bytes with 1 axes'),
        (gzip.compress(b'\0\0\x08\1\0\0\0\4\7\7\7', mtime=0), 'states 4 bytes, holds 3'),
        (gzip.compress(b'\0\0\x08\1\0\0\0\2\7\7\7', mtime=0), 'states 2 bytes, holds 3'),
    ],
)
def test_idx_broken_file_is_one_line(tmp_path, content, reason):
    path = tmp_path / 'a.gz'
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf'a\.gz: .*{reason}') as error:
        read_idx(path, 1)
    assert '\n' not in str(error.value)


def test_idx_altered_file_is_refused(tmp_path):
    write_idx(tmp_path / 'a.gz', np.arange(200))
    content = bytearray((tmp_path / 'a.gz').read_bytes())
    content[40] ^= 0xFF
    (tmp_path / 'a.gz').write_bytes(content)
    with pytest.raises(DataError, match='no readable gzip'):
        read_idx(tmp_path / 'a.gz', 1)


def test_images_splits_keep_the_official_test_set(raw, tmp_path):
    summary = build_images(raw, tmp_path / 'out', COLLECTIONS['mnist'], validation_size=12)
    data = {split: load_dataset(tmp_path / 'out', split) for split in splits(tmp_path / 'out')}
    assert {split: len(part) for split, part in data.items()} == {
        'train': 28, 'validation': 12, 'test': 20,
    }  # fmt: skip
    numbers = {split: part.values['image'][:, 0, 0, 0].tolist() for split, part in data.items()}
    assert sorted(numbers['train'] + numbers['validation']) == list(range(40))
    assert numbers['test'] == list(range(20))
    for part in data.values():
        rows = np.arange(len(part))
        assert part.values['image'].dtype == np.uint8
        images, symbols = part.rows('image', rows), part.rows('symbol', rows)
        assert images.shape[1:] == (1, 28, 28) and images.max() <= 1
        np.testing.assert_allclose(images[:, 0, 0, 1] * 255, symbols.argmax(1), atol=1e-4)
        np.testing.assert_array_equal(part.attributes['label'][1], symbols.argmax(1))
    assert json.loads((tmp_path / 'out/build.json').read_text()) == summary


def test_images_validation_set_depends_on_the_seed_alone(raw, tmp_path):
    hashes = []
    for number, seed in enumerate((0, 0, 1)):
        summary = build_images(raw, tmp_path / str(number), COLLECTIONS['mnist'], seed, 12)
        hashes.append({k: v['sha256'] for k, v in summary['splits'].items()})
    assert hashes[0] == hashes[1]
    assert hashes[0]['validation'] != hashes[2]['validation']
    assert hashes[0]['test'] == hashes[2]['test']


@pytest.mark.parametrize('name', COLLECTIONS)
def test_images_labels_are_those_of_a_symbol(name):
    labels = COLLECTIONS[name].labels
    symbol = build_modality(
        ModalitySpec('symbol', 'symbol', 2, preprocessing={'labels': list(labels)})
    )
    for number, label in enumerate(labels):
        assert symbol.to_model(label).argmax() == number
        assert symbol.from_model(symbol.to_model(label)) == label


def test_images_that_do_not_fit_are_one_line(raw, tmp_path):
    folder, out = raw / 'mnist', tmp_path / 'out'
    blank = np.zeros((4, 28, 28))
    for images, labels, reason in (
        (np.zeros((4, 28, 27)), np.zeros(4), r'images of \(28, 27\)'),
        (blank, np.zeros(3), '3 labels for 4 images'),
        (blank[:0], np.zeros(0), '0 labels for 0 images'),
        (blank, np.array([0, 1, 10, 2]), 'label 10; expected 0 to 9'),
    ):
        write_pair(folder, 't10k', images, labels)
        with pytest.raises(DataError, match=reason) as error:
            build_images(raw, out, COLLECTIONS['mnist'], validation_size=12)
        assert '\n' not in str(error.value)
    assert not out.exists()


@pytest.mark.parametrize('size', [0, 40])
def test_images_reject_validation_sizes_that_leave_nothing(raw, tmp_path, size):
    with pytest.raises(DataError, match='give 1 to 39'):
        build_images(raw, tmp_path / 'out', COLLECTIONS['mnist'], validation_size=size)


def test_build_data_command_builds_fashion(raw, tmp_path, capsys):
    out = tmp_path / 'out'
    options = ['--data', str(raw), '--out', str(out), '--validation-size', '10']
    assert main(['build-data', 'fashion_mnist', *options]) == 0
    names, labels = load_dataset(out, 'test').attributes['label']
    assert names[labels[3]] == 'Ankle boot'
    assert str(out) in capsys.readouterr().out


@pytest.mark.parametrize('name', COLLECTIONS)
def test_real_files_give_the_official_sizes(real_root, tmp_path, name):
    summary = build_images(real_root, tmp_path / 'out', COLLECTIONS[name])
    assert {split: about['samples'] for split, about in summary['splits'].items()} == {
        'train': 55_000, 'validation': 5000, 'test': 10_000,
    }  # fmt: skip
    test = load_dataset(tmp_path / 'out', 'test')
    assert (np.bincount(test.attributes['label'][1]) > 850).all()
    first = {'mnist': [7, 2, 1, 0, 4], 'fashion_mnist': [9, 2, 1, 1, 6]}
    assert test.attributes['label'][1][:5].tolist() == first[name]
    validation = load_dataset(tmp_path / 'out', 'validation')
    assert (np.bincount(validation.attributes['label'][1]) > 400).all()
