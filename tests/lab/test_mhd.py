import json
import shutil
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from mm_perception.data.dataset import load_dataset, splits
from mm_perception.errors import DataError
from mm_perception.lab.digits import mhd
from mm_perception.lab.digits.authors import import_authors
from mm_perception.lab.digits.mhd import BuildOptions, build_mhd
from mm_perception.lab.digits.mnist import mnist_digits
from mm_perception.lab.digits.speech import VALIDATION_SPEAKERS

OPTIONS = BuildOptions(
    seed=3, train_size=60, test_size=30, validation_size=20, voices=0, mnist_size=0, progress=False
)


@pytest.fixture(scope='module')
def built(raw_root, tmp_path_factory):
    out = tmp_path_factory.mktemp('built') / 'mhd'
    return out, build_mhd(raw_root, out, OPTIONS)


needs_programs = pytest.mark.skipif(
    not (shutil.which('espeak-ng') and shutil.which('flite')),
    reason='espeak-ng or flite is not installed',
)


def names(dataset, attribute):
    table, index = dataset.attributes[attribute]
    return {table[k] for k in index}


def test_build_gives_balanced_splits_of_the_paper_shapes(built):
    out, summary = built
    sizes = {'train': 60, 'test': 30, 'test_speaker': 50, 'validation': 20}
    assert splits(out) == tuple(sizes)
    for split, size in sizes.items():
        data = load_dataset(out, split)
        assert len(data) == size == summary['splits'][split]['samples']
        assert data.names == ('image', 'trajectory', 'sound', 'symbol')
        rows = np.arange(size)
        shapes = {'image': (1, 28, 28), 'trajectory': (200,), 'sound': (128, 32), 'symbol': (10,)}
        for name, shape in shapes.items():
            values = data.rows(name, rows)
            assert values.shape == (size, *shape) and values.dtype == np.float32
            assert values.min() >= 0 and 0.5 < values.max() <= 1
        labels = data.attributes['label'][1]
        np.testing.assert_array_equal(data.rows('symbol', rows).argmax(1), labels)
        assert (np.bincount(labels) == size // 10).all()
        assert data.present.all()


def test_build_has_no_leak_between_splits(built):
    data = {split: load_dataset(built[0], split) for split in splits(built[0])}
    writers = {split: names(part, 'writer') for split, part in data.items()}
    assert writers['test'] == writers['test_speaker']
    assert writers['validation'] == {'uji-03', 'pendigits-tra-23'}
    for one, other in combinations(('train', 'validation', 'test'), 2):
        assert not writers[one] & writers[other]
        for name in ('image', 'trajectory', 'sound'):
            seen = {value.tobytes() for value in data[one].values[name]}
            assert not seen & {value.tobytes() for value in data[other].values[name]}
    assert names(data['test_speaker'], 'speaker') == {'fsdd-zoe'}
    for split, sounds in (('train', 5 * 40), ('validation', 20), ('test', 40)):
        assert names(data[split], 'speaker') == {'fsdd-anna', 'fsdd-bert'}
        assert len(data[split].values['sound']) == sounds


@needs_programs
def test_build_holds_generated_voices_out_for_validation(raw_root, tmp_path):
    options = replace(OPTIONS, voices=1)
    summary = build_mhd(raw_root, tmp_path / 'mhd', options)
    train, unheard = (load_dataset(tmp_path / 'mhd', s) for s in ('train', 'validation_speaker'))
    generated = names(train, 'speaker') - {'fsdd-anna', 'fsdd-bert'}
    assert len(generated) == 1 and not generated & names(unheard, 'speaker')
    assert names(unheard, 'speaker') == set(VALIDATION_SPEAKERS)
    assert names(unheard, 'writer') == {'uji-03', 'pendigits-tra-23'}
    assert summary['splits']['validation_speaker']['samples'] == len(unheard) == 500


def test_build_other_splits_do_not_depend_on_validation(built, raw_root, tmp_path):
    smaller = build_mhd(raw_root, tmp_path / 'mhd', replace(OPTIONS, validation_size=10))
    for split in ('train', 'test', 'test_speaker'):
        assert smaller['splits'][split]['sha256'] == built[1]['splits'][split]['sha256']


def test_build_uses_every_sound_before_any_twice(built):
    index = load_dataset(built[0], 'test_speaker').index['sound']
    assert sorted(index) == list(range(50))


def test_build_is_deterministic_by_seed(built, raw_root, tmp_path):
    again = build_mhd(raw_root, tmp_path / 'mhd', OPTIONS)
    hashes = [{k: v['sha256'] for k, v in s['splits'].items()} for s in (built[1], again)]
    assert hashes[0] == hashes[1]
    other = BuildOptions(
        seed=4, train_size=10, test_size=10, voices=0, mnist_size=0, progress=False
    )
    assert (
        build_mhd(raw_root, tmp_path / 'other', other)['splits']['test_speaker']['sha256']
        != hashes[0]['test_speaker']
    )


def test_build_that_is_interrupted_leaves_nothing(raw_root, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(mhd, 'save_dataset', interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_mhd(raw_root, tmp_path / 'data' / 'mhd', OPTIONS)
    assert list((tmp_path / 'data').iterdir()) == []


def test_build_never_replaces_a_folder_of_another_sort(raw_root, tmp_path):
    (tmp_path / 'thesis.txt').write_text('years of work')
    with pytest.raises(DataError, match='holds something else'):
        build_mhd(raw_root, tmp_path, OPTIONS)
    assert (tmp_path / 'thesis.txt').exists()


def test_build_names_the_digits_that_a_split_lacks(raw_root, tmp_path):
    shutil.copytree(raw_root, tmp_path / 'raw')
    for path in (tmp_path / 'raw/fsdd/recordings').glob('[28]_*_45.wav'):
        path.unlink()
    with pytest.raises(DataError, match='no validation speech of the digits 2, 8'):
        build_mhd(tmp_path / 'raw', tmp_path / 'out', OPTIONS)
    assert not (tmp_path / 'out').exists()


def test_build_without_recordings_says_which(tmp_path):
    with pytest.raises(DataError, match='fsdd'):
        build_mhd(tmp_path / 'absent', tmp_path / 'out', OPTIONS)
    assert not (tmp_path / 'out').exists()


def test_mnist_joins_as_dark_ink_on_paper(real_root):
    modality = mhd.mhd_modalities()['image']
    some = mhd.see_mnist(real_root, replace(OPTIONS, mnist_size=12), modality)
    images, labels = mnist_digits(real_root, 'train')
    assert some.values['image'].shape == (12, 1, 28, 28) and len(images) == 55_000
    ink = some.values['image'].reshape(12, -1)
    assert (ink.max(1) > 200).all() and (np.median(ink, axis=1) == 0).all()
    alike = [
        max(np.corrcoef(each, image.ravel())[0, 1] for image in images[labels == label][:300])
        for each, label in zip(ink, some.labels, strict=True)
    ]
    assert np.median(alike) > 0.5  # about the same drawings, centred otherwise


def test_images_that_join_have_but_their_label(built):
    dataset = load_dataset(built[0], 'train')
    images = np.full((3, 1, 28, 28), 9, np.uint8)
    joined = mhd.join_images(dataset, mhd.Part({'image': images}, np.array([4, 4, 7]), []))
    rows = np.arange(60, 63)
    assert len(joined) == 63 and len(joined.complete()) == 60
    assert joined.present[rows].tolist() == [[True, False, False, True]] * 3
    np.testing.assert_array_equal(joined.rows('symbol', rows).argmax(1), [4, 4, 7])
    np.testing.assert_array_equal(joined.rows('image', rows), images / np.float32(255))
    np.testing.assert_array_equal(
        joined.rows('image', np.arange(60)), dataset.rows('image', np.arange(60))
    )
    assert names(joined.subset(rows), 'writer') == {'unknown'}


@pytest.mark.parametrize('size', [0, 15])
def test_options_reject_sizes_that_cannot_be_balanced(size):
    with pytest.raises(DataError, match='multiple of 10'):
        BuildOptions(train_size=size)


def authors_file(path, size, sound_shape=(4, 32, 32)):
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(size) % 10
    parts = ((1, 28, 28), (200,), sound_shape)
    content = [torch.rand(size, *shape, generator=rng) for shape in parts]
    limits = {'min': torch.tensor(-80.0), 'max': torch.tensor(0.0)}
    torch.save((labels, *content, limits, limits), path)
    return labels, content


def test_authors_files_become_a_dataset(tmp_path):
    labels, (images, trajectories, sounds) = authors_file(tmp_path / 'mhd_train.pt', 20)
    authors_file(tmp_path / 'mhd_test.pt', 10)
    import_authors(tmp_path, tmp_path / 'out')
    data = load_dataset(tmp_path / 'out', 'train')
    rows = np.arange(20)
    np.testing.assert_allclose(data.rows('image', rows), images, atol=0.5 / 255 + 1e-6)
    np.testing.assert_array_equal(data.rows('trajectory', rows), trajectories)
    joined = np.stack([np.concatenate(list(sound)) for sound in sounds.numpy()])
    np.testing.assert_allclose(data.rows('sound', rows), joined, atol=0.5 / 255 + 1e-6)
    np.testing.assert_array_equal(data.rows('symbol', rows).argmax(1), labels)
    assert len(load_dataset(tmp_path / 'out', 'test')) == 10


def test_authors_files_missing_broken_or_odd_are_one_line(tmp_path):
    with pytest.raises(DataError, match='no such file'):
        import_authors(tmp_path, tmp_path / 'out')
    (tmp_path / 'mhd_train.pt').write_bytes(b'not a torch file')
    with pytest.raises(DataError, match='not readable'):
        import_authors(tmp_path, tmp_path / 'out')
    torch.save({'labels': 1}, tmp_path / 'mhd_train.pt')
    with pytest.raises(DataError, match='expected a tuple'):
        import_authors(tmp_path, tmp_path / 'out')
    authors_file(tmp_path / 'mhd_train.pt', 10, sound_shape=(4, 16, 32))
    with pytest.raises(DataError, match='sounds have shape'):
        import_authors(tmp_path, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_summary_is_written_beside_the_data(built):
    out, summary = built
    assert json.loads((out / 'build.json').read_text()) == summary
    assert summary['splits']['train']['writers'] == 4
