"""Datasets that know the time of their rows."""

from dataclasses import replace

import numpy as np
import pytest

from mm_perception.data.dataset import (
    Dataset,
    add_build,
    load_dataset,
    load_preprocessing,
    save_build,
    save_dataset,
    save_preprocessing,
    splits,
)
from mm_perception.data.rows import Division
from mm_perception.errors import DataError


def moving(number=(0, 0, 0, 1, 1), time_s=(0.0, 0.1, 0.3, 0.0, 0.1)):
    """A joint that two recordings saw."""
    rows = np.arange(len(number))
    return Dataset(
        names=('joint',),
        values={'joint': np.linspace(0, 1, len(rows), dtype=np.float32)[:, None]},
        index={'joint': rows},
        present=np.ones((len(rows), 1), bool),
        attributes={'recording': (['monday', 'tuesday'], np.array(number))},
        time_s=np.array(time_s),
    )


def test_rows_know_their_recording_and_time_on_disk_too(tmp_path):
    save_dataset(tmp_path, 'train', moving())
    for dataset in (moving(), load_dataset(tmp_path, 'train')):
        first, second = dataset.recordings()
        assert (first.name, second.name) == ('monday', 'tuesday')
        assert first.rows.tolist() == [0, 1, 2] and second.rows.tolist() == [3, 4]
        assert first.time_s.tolist() == [0.0, 0.1, 0.3] and first.time_s.dtype == np.float64


def test_recordings_of_a_subset_are_in_the_order_of_time():
    dataset = moving().subset(np.array([2, 4, 0]))
    first, second = dataset.recordings()
    assert dataset.rows('joint', first.rows)[:, 0].tolist() == [0.0, 0.5]
    assert first.time_s.tolist() == [0.0, 0.3] and second.rows.tolist() == [1]
    assert [r.name for r in moving().subset(np.array([4])).recordings()] == ['tuesday']


@pytest.mark.parametrize('forgotten', [{'time_s': None}, {'attributes': {}}])
def test_data_without_time_say_so(forgotten, tmp_path):
    dataset = replace(moving(), **forgotten)
    with pytest.raises(DataError, match='tells no time of its rows; import'):
        dataset.recordings()


def test_data_without_time_are_saved_as_ever(tmp_path):
    save_dataset(tmp_path, 'train', replace(moving(), time_s=None))
    assert load_dataset(tmp_path, 'train').time_s is None


@pytest.mark.parametrize(
    'dataset',
    [moving(time_s=(0.0, 0.3, 0.1, 0.0, 0.1)), moving(number=(0, 1, 0, 1, 1)), moving((1, 1, 0))],
    ids=['time', 'mixed', 'recordings'],
)
def test_rows_out_of_order_are_not_saved(dataset, tmp_path):
    dataset = replace(dataset, time_s=dataset.time_s[: len(dataset)])
    with pytest.raises(DataError, match='split test are not in the order of time'):
        save_dataset(tmp_path, 'test', dataset)
    assert not list(tmp_path.iterdir())


def test_other_options_of_preprocessing_take_the_splits_before_off_the_list(tmp_path):
    assert load_preprocessing(tmp_path / 'nothing') == {}
    decided = {'joint': {'low': (0.0,), 'high': (2.0,)}}
    assert save_preprocessing(tmp_path, decided) == ()
    for split in ('train', 'test'):
        save_dataset(tmp_path, split, moving())
        add_build(tmp_path, split, rate_hz=10.0)
    assert save_preprocessing(tmp_path, decided) == ()
    assert splits(tmp_path) == ('train', 'test')
    assert load_preprocessing(tmp_path) == {'joint': {'low': [0.0], 'high': [2.0]}}
    assert save_preprocessing(tmp_path, {}) == ('train', 'test')
    assert splits(tmp_path) == ()


def test_build_file_keeps_what_is_known_of_other_splits(tmp_path):
    for split, rate_hz in (('train', 10.0), ('test', 20.0), ('train', 30.0)):
        save_dataset(tmp_path, split, moving())
        add_build(tmp_path, split, rate_hz=rate_hz)
    again = save_build(tmp_path, {'train': {}})['splits']['train']['sha256']
    add_build(tmp_path, 'test', rate_hz=20.0)
    written = (tmp_path / 'build.json').read_text()
    assert written.count(again) == 2  # both splits hold the same
    assert '"rate_hz": 20.0' in written and '"rows": 5' in written


def recorded(lengths):
    """Rows of recordings at 10 Hz, of one modality that tells each row."""
    number = np.repeat(np.arange(len(lengths)), lengths)
    time_s = np.concatenate([np.arange(n) / 10 for n in lengths])
    rows = np.arange(len(number))
    names = [f'r{k}' for k in range(len(lengths))]
    attributes = {'recording': (names, number)}
    values = {'one': rows[:, None].astype(np.float32)}
    return Dataset(('one',), values, {'one': rows}, rows[:, None] >= 0, attributes, time_s)


SHARES = {'train': 0.7, 'validation': 0.15, 'test': 0.15}


def test_few_recordings_are_cut_into_blocks_of_time_with_gaps():
    dataset = recorded((1000, 500))
    parts = Division(SHARES, 2, 2.0).divide(dataset)
    for number, length_s, gap_s in ((0, 99.9, 2.0), (1, 49.9, 0.03 * 49.9)):
        spans = []
        for part in parts.values():
            own = part.time_s[part.attributes['recording'][1] == number]
            spans.append((own[0], own[-1]))
        assert spans[0][0] == 0.0 and spans[2][1] == pytest.approx(length_s)
        assert spans[0][1] == pytest.approx(0.7 * length_s, abs=0.1)
        for (_, end_s), (begin_s, _) in zip(spans, spans[1:]):
            assert gap_s - 0.01 <= begin_s - end_s <= gap_s + 0.2
    shown = [set(part.values['one'].ravel()) for part in parts.values()]
    assert not (shown[0] & shown[1] or shown[1] & shown[2])


def test_many_recordings_are_given_whole_to_the_splits():
    dataset = recorded((20,) * 20)
    parts = Division(SHARES, 20, 2.0).divide(dataset)
    owners = {n: np.unique(p.attributes['recording'][1]).tolist() for n, p in parts.items()}
    assert {name: len(of) for name, of in owners.items()} == {
        'train': 14,
        'validation': 3,
        'test': 3,
    }
    assert sorted(k for of in owners.values() for k in of) == list(range(20))
    assert sum(len(part) for part in parts.values()) == len(dataset)
