"""Labels, values and figures of datasets whose rows lack modalities."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip('torch', reason='torch is not installed')

from mm_perception.data.dataset import Dataset, save_dataset
from mm_perception.engines.torch_classifiers import TorchClassifiers
from mm_perception.evaluation.coherence import evaluate_bundle
from mm_perception.evaluation.generation import label_indices, labels_of_unique
from mm_perception.modalities import build_modality
from mm_perception.model.networks import Classifier
from mm_perception.spec import ModalitySpec, ModelSpec
from tests.helpers.small_bundle import make_bundle

ROWS = 40
BUNDLE = make_bundle()
SPEC = BUNDLE.spec
SYMBOL = SPEC.names.index('symbol')


def whole():
    """Every row with values of its own and a label in turn."""
    rng = np.random.default_rng(0)
    shapes = {m.name: build_modality(m).shape for m in SPEC.modalities}
    values = {name: rng.random((ROWS, *shape), np.float32) for name, shape in shapes.items()}
    values['symbol'] = np.eye(10, dtype=np.float32)
    index = dict.fromkeys(SPEC.names, np.arange(ROWS)) | {'symbol': np.arange(ROWS) % 10}
    return Dataset(SPEC.names, values, index, np.ones((ROWS, len(SPEC.names)), bool))


def with_gaps():
    """The same; every third row lacks its label, every fourth its first modality."""
    present = np.ones((ROWS, len(SPEC.names)), bool)
    present[::3, SYMBOL] = False
    present[::4, 0] = False
    return replace(whole(), present=present)


def test_rows_without_a_label_have_none():
    labels = label_indices(with_gaps(), SPEC)
    expected = np.arange(ROWS) % 10
    expected[::3] = -1
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(label_indices(whole(), SPEC), np.arange(ROWS) % 10)


def test_names_of_joints_are_no_labels():
    limits = {'low': (0.0, 0.0), 'high': (1.0, 1.0), 'names': ('elbow', 'wrist')}
    arm = ModalitySpec('arm', 'vector', 2, limits)
    word = ModalitySpec('word', 'symbol', 2, {'labels': ('yes', 'no')})
    values = {'arm': np.eye(2, dtype=np.float32), 'word': np.eye(2, dtype=np.float32)}
    index = {'arm': np.array([0, 1, 1]), 'word': np.array([1, 0, 1])}
    data = Dataset(('arm', 'word'), values, index, np.ones((3, 2), bool))
    assert label_indices(data, ModelSpec((arm, word))).tolist() == [1, 0, 1]
    assert label_indices(data.only('arm'), ModelSpec((arm,))) is None


def test_values_without_a_label_have_none():
    unique, count = labels_of_unique(with_gaps(), SPEC, SPEC.names[0])
    expected = np.arange(ROWS) % 10
    expected[::3] = expected[::4] = -1
    np.testing.assert_array_equal(unique, expected)
    assert count == 10


def test_only_values_that_a_row_shows_stay():
    gaps = with_gaps()
    shown = gaps.shown()
    first = SPEC.names[0]
    assert len(shown.values[first]) == ROWS - len(range(0, ROWS, 4))
    for column, name in enumerate(SPEC.names):
        rows = np.flatnonzero(gaps.present[:, column])
        np.testing.assert_array_equal(shown.rows(name, rows), gaps.rows(name, rows))
    never = replace(gaps, present=gaps.present & (np.arange(len(SPEC.names)) != 0)).shown()
    assert len(never.values[first]) == 1 and set(never.index[first]) == {0}
    same = whole().shown()
    for name in SPEC.names:
        np.testing.assert_array_equal(same.values[name], whole().values[name])


def test_figures_come_from_rows_with_all_modalities(tmp_path):
    judges = {m.name: Classifier(m, 10) for m in SPEC.modalities if m.kind != 'symbol'}
    bundle = replace(BUNDLE, classifiers=TorchClassifiers(judges).state())
    gaps = with_gaps()
    save_dataset(tmp_path / 'gaps', 'test', gaps)
    save_dataset(tmp_path / 'complete', 'test', gaps.subset(np.flatnonzero(gaps.present.all(1))))
    nothing = replace(gaps, present=gaps.present & (np.arange(len(SPEC.names)) != 0))
    save_dataset(tmp_path / 'nothing', 'test', nothing)
    found, expected = (evaluate_bundle(bundle, tmp_path / name) for name in ('gaps', 'complete'))
    assert found == expected and found['test']['n'] == gaps.present.all(1).sum()
    assert evaluate_bundle(bundle, tmp_path / 'nothing') == {}
