"""Coherence on known answers."""

from __future__ import annotations

import numpy as np
import pytest

from mm_perception.data.dataset import Dataset
from mm_perception.engines.classifiers import Classifiers
from mm_perception.evaluation.coherence import by_observed, classifier_accuracy, measure_coherence
from mm_perception.evaluation.generation import cross_targets, encode_all, subsets
from mm_perception.modalities.base import Array
from tests.helpers.agreeing_world import AveragingEngine

ROWS, LABELS = 2500, 4


class Arithmetic(AveragingEngine):
    """
    An engine whose answers are known: modality ``a`` says the label, ``b`` is always 0.

    The joint mean is what the present modalities say on average, and so is its sample.
    """

    def __init__(self) -> None:
        super().__init__(('a', 'b'))
        self.code_dims = dict.fromkeys('ab', LABELS)

    def encode(self, name: str, data: Array) -> Array:
        return data if name == 'a' else np.eye(LABELS, dtype=np.float32)[np.zeros(len(data), int)]


@pytest.fixture
def dataset() -> Dataset:
    labels = np.random.default_rng(0).integers(0, LABELS, ROWS)
    one_hot = np.eye(LABELS, dtype=np.float32)
    return Dataset(
        names=('a', 'b'),
        values={'a': one_hot, 'b': one_hot},
        index={'a': labels, 'b': labels},
        present=np.ones((ROWS, 2), bool),
    )


@pytest.mark.parametrize('estimator', ['mean', 'sample'])
def test_coherence_counts_what_is_right(dataset: Dataset, estimator: str) -> None:
    labels = dataset.index['a']
    wanted = cross_targets(dataset.names, subsets(('a', 'b'))[:-1])
    rows = measure_coherence(Arithmetic(), dataset, labels, Classifiers({}), wanted, estimator)
    found = {(row.target, row.observed): row.value for row in rows}
    assert found == {('b', ('a',)): 1.0, ('a', ('b',)): float((labels == 0).mean())}
    assert by_observed(rows)['b'] == {'1': 1.0}
    assert all(row.n == ROWS and row.estimator == estimator for row in rows)


def test_classifiers_are_measured_on_real_data(dataset: Dataset) -> None:
    accuracy = classifier_accuracy(dataset, dataset.index['a'], Classifiers({}))
    assert accuracy == {'a': 1.0, 'b': 1.0}


def test_rows_share_the_latents_of_their_unique_values(dataset: Dataset) -> None:
    latents = encode_all(Arithmetic(), dataset)
    np.testing.assert_array_equal(latents['a'].argmax(1), dataset.index['a'])


def test_subsets_are_all_and_smallest_first() -> None:
    found = subsets(('a', 'b', 'c'))
    assert len(found) == 7
    assert [len(s) for s in found] == [1, 1, 1, 2, 2, 2, 3]
