"""Judgements: errors in their units, the choice of the baseline, the sums, and the words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mm_perception.data.dataset import Dataset, save_dataset
from mm_perception.errors import DataError
from mm_perception.evaluation.bundle_judgement import read_judgement
from mm_perception.evaluation.judgement import (
    Cell,
    Judgement,
    OutageRow,
    Scale,
    from_rows,
    judge,
    measure_outages,
    plain_rows,
    summary,
)
from mm_perception.evaluation.judgement_report import judgement_report, not_worth_in_words
from mm_perception.evaluation.state_probe import explained, measure_state, state_table
from mm_perception.modalities.base import Array
from tests.helpers.linear_gaussian import NAMES, LinearGaussianEngine, sample_world
from tests.helpers.moving_robot import SPEC, moving_robot, save_moving_robot

OFF = np.float32(0.1)


class Oracle:
    """Knows the truth, and is off by a tenth in the model's unit; says so for half of it."""

    name = 'ours'

    def fit(self, dataset: Dataset) -> None:
        """Learn nothing."""

    def predict(
        self,
        dataset: Dataset,
        target: str,
        observed: tuple[str, ...],
        lost: np.ndarray,
        now: np.ndarray,
    ) -> Array:
        return dataset.rows(target, now) + OFF

    def interval(
        self,
        dataset: Dataset,
        target: str,
        observed: tuple[str, ...],
        lost: np.ndarray,
        now: np.ndarray,
    ) -> tuple[Array, Array]:
        value = self.predict(dataset, target, observed, lost, now)
        widths = np.where(np.arange(len(now)) % 2, 0.2, 0.05).astype(np.float32)
        return value, np.broadcast_to(widths.reshape(-1, *(1,) * (value.ndim - 1)), value.shape)


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp('robot')
    save_moving_robot(path)
    return path


@pytest.fixture(scope='module')
def judgement(folder: Path) -> Judgement:
    found = judge([Oracle()], SPEC, folder)
    assert found is not None
    return found


def test_judgement_has_every_method_in_every_cell(judgement: Judgement) -> None:
    cells = {row.cell for row in judgement.test}
    # 3 targets: both others, each alone (that is also one more lost); 6 ages.
    assert len(cells) == 3 * 3 * 6
    assert len(judgement.test) == len(judgement.validation) == len(cells) * 9


def test_errors_are_in_sensor_units_and_in_training_stds(folder: Path) -> None:
    train, test = moving_robot(8), moving_robot(4, 2)
    scales = {name: Scale.of(train, SPEC, name) for name in SPEC.names}
    rows = {(r.target, r.observed, r.age_s): r for r in measure_outages([Oracle()], test, scales)}
    arm = rows['arm', ('force', 'camera'), 1.0]
    assert arm.error == pytest.approx(4.0 * OFF, rel=1e-4) and arm.unit == 'sensor unit'
    std = train.values['arm'].std(0)
    assert arm.error_std == pytest.approx(np.sqrt(np.mean((OFF / std) ** 2)), rel=1e-4)
    assert arm.coverage90 == pytest.approx(0.5, abs=0.02)
    camera = rows['camera', ('arm', 'force'), 1.0]
    assert camera.error == pytest.approx(OFF, rel=1e-4) and camera.unit == '0..1'
    pooled = np.sqrt(np.square(train.values['camera'].std(0)).mean())
    assert camera.error_std == pytest.approx(OFF / pooled, rel=1e-4)
    # The true change in a tick and the tenth, over the true change.
    change = np.diff(test.values['arm'][:120], axis=0)
    usual = np.sqrt(np.mean(change**2))
    assert arm.jump == pytest.approx(np.sqrt(OFF**2 + usual**2) / usual, rel=0.25)


def test_baseline_is_chosen_on_validation_and_ratios_are_of_the_test() -> None:
    def row(method: str, error: float) -> OutageRow:
        return OutageRow('a', ('b',), 1.0, method, error, 'rad', error, 9)

    validation = (row('ours', 0.5), row('hold', 1.0), row('mean', 0.8))
    test = (row('ours', 0.6), row('hold', 0.5), row('mean', 1.2))
    found = Judgement(validation, test)
    cell = Cell('a', ('b',), 1.0)
    assert found.best() == {cell: 'mean'}
    assert found.ratios() == {cell: pytest.approx(0.5)}
    assert found.ratios('hold') == {cell: pytest.approx(0.5 / 1.2)}
    assert found.not_worth() == []
    weak = Judgement((row('ours', 0.79), *validation[1:]), test)
    assert weak.not_worth() == [('a', ('b',))]


def test_ratio_of_a_sensor_that_stands_still_is_one() -> None:
    def row(method: str, error: float) -> OutageRow:
        return OutageRow('a', ('b',), 1.0, method, error, 'rad', error * 0.1, 9)

    still = (row('ours', 5e-3), row('hold', 0.0), row('mean', 1.0))
    assert list(Judgement(still, still).ratios().values()) == [1.0]
    moved = (row('ours', 0.1), row('hold', 0.0), row('mean', 1.0))
    assert list(Judgement(moved, moved).ratios().values()) == [pytest.approx(10.0)]
    lucky = (row('ours', 0.1), row('hold', 2e-3), row('mean', 1e-3))
    assert Judgement(lucky, moved).best() == {moved[0].cell: 'hold'}, (
        'below 0.001 stds all are equal'
    )
    assert from_rows(plain_rows(Judgement(lucky, moved))).best() == {moved[0].cell: 'hold'}


def test_summary_sums_up_by_how_many_are_lost(judgement: Judgement) -> None:
    one, two = summary(judgement)
    assert (one['lost'], one['cells'], two['lost'], two['cells']) == ('one', 18, 'two', 36)
    ratios = [ratio for cell, ratio in judgement.ratios().items() if len(cell.observed) == 2]
    assert one['geometric_mean'] == pytest.approx(np.exp(np.mean(np.log(ratios))))
    assert one['worst'] == max(ratios)
    assert one['within'] == np.mean(np.array(ratios) <= 1.03)
    best = judgement.best()
    assert {best[cell] for cell in best if cell.target == 'camera' and 'arm' in cell.observed} <= {
        'ridge', 'ridge_memory', 'kalman',
    }  # fmt: skip


def test_rows_for_machines_tell_the_whole_judgement(judgement: Judgement) -> None:
    rows = plain_rows(judgement, recording='robot', seed=1)
    keys = {'recording', 'target', 'observed', 'age_s', 'method', 'seed', 'error', 'unit'}
    assert all(keys <= row.keys() for row in rows)
    assert {'coverage90', 'jump'} <= next(r for r in rows if r['method'] == 'ours').keys()
    again = from_rows(rows)
    assert again.best() == judgement.best()
    for cell, ratio in judgement.ratios().items():
        assert again.ratios()[cell] == pytest.approx(ratio, rel=1e-4)


def test_report_says_figures_and_what_is_not_worth_it(judgement: Judgement) -> None:
    text = '\n'.join(judgement_report(judgement))
    assert '| target | unit | 0.1 s | 0.2 s | 0.5 s | 1 s | 2 s | 5 s |' in text
    assert '| arm | sensor unit | 0.4 (' in text
    assert 'Intervals of 90 % hold 50 to 50 %' in text and '0 % of these shares' in text
    assert '| kalman |' in text and '| constant_velocity |' in text
    assert 'Not worth filling in' not in text
    (words,) = not_worth_in_words(judgement, 'hold')
    assert words.endswith('does as well: arm; force; camera.')


def test_baselines_are_taken_from_another_judgement(
    folder: Path, judgement: Judgement, tmp_path: Path
) -> None:
    again = judge([Oracle()], SPEC, folder, judgement)
    assert again is not None and again.best() == judgement.best()
    assert sorted(again.test, key=repr) == sorted(judgement.test, key=repr)
    file = tmp_path / 'judgement.json'
    file.write_text(json.dumps({'rows': plain_rows(judgement, recording=folder.name)}))
    assert read_judgement(file, folder).best() == judgement.best()
    with pytest.raises(DataError, match=f'judges {folder.name}, not other'):
        read_judgement(file, tmp_path / 'other')
    file.write_text('{}')
    with pytest.raises(DataError, match='no judgement of a bundle'):
        read_judgement(file, folder)


def test_data_without_time_or_splits_are_not_judged(tmp_path: Path) -> None:
    save_moving_robot(tmp_path)
    save_dataset(tmp_path, 'test', replace(moving_robot(1), time_s=None))
    assert judge([], SPEC, tmp_path) is None
    save_dataset(tmp_path / 'part', 'train', moving_robot(1))
    assert judge([], SPEC, tmp_path / 'part') is None


def test_picture_has_a_panel_per_target(judgement: Judgement, tmp_path: Path) -> None:
    import cv2

    from mm_perception.lab.tables.outage_picture import draw_outages

    draw_outages(judgement.test, 'robot', tmp_path / 'pictures' / 'robot.png')
    image = cv2.imread(str(tmp_path / 'pictures' / 'robot.png'))
    assert image.shape[1] > 1000 and image.std() > 5
    thirds = [part.std() for part in np.array_split(image, 3, axis=1)]
    assert min(thirds) > 5


def recorded(count: int, seed: int) -> Dataset:
    dataset = sample_world(count, seed)[1]
    number = np.arange(count) * 5 // count
    names = [f'run {k}' for k in range(5)]
    time_s = np.arange(count) * 0.1
    return replace(dataset, attributes={'recording': (names, number)}, time_s=time_s)


def test_state_is_read_from_the_latent_as_well_as_it_can_be() -> None:
    train, test = recorded(3000, 0), recorded(2000, 1)
    subsets = [NAMES, ('b', 'c')]
    found = measure_state(LinearGaussianEngine(), train, test, subsets)
    rows = {(row.target, row.observed): row for row in found}
    assert len(rows) == 6
    # The posterior's mean is all that linear sensors tell of another one.
    unseen = rows['a', ('b', 'c')]
    assert unseen.latent == pytest.approx(unseen.ridge, abs=0.02)
    assert unseen.network == pytest.approx(unseen.ridge, abs=0.05)
    assert rows['b', NAMES].ridge > 0.999 and rows['b', NAMES].network == 1.0
    assert 0.2 < unseen.latent < rows['a', NAMES].latent < 1.0
    assert '| a | a | 0.' in '\n'.join(state_table(found, NAMES))


def test_state_that_stands_still_is_no_target() -> None:
    train, test = recorded(300, 0), recorded(300, 1)
    still = replace(test, values={**test.values, 'b': np.ones((300, 2), np.float32)})
    found = measure_state(LinearGaussianEngine(), train, still, [('a', 'c')])
    assert [row.target for row in found] == ['a', 'c']


def test_explained_is_the_share_of_the_variance() -> None:
    truth = np.random.default_rng(0).standard_normal((4000, 2))
    assert explained(truth, truth) == 1.0
    assert explained(truth, np.repeat(truth.mean(0)[None], 4000, 0)) == pytest.approx(0.0)
    assert explained(truth, truth * 0.5) == pytest.approx(0.75, abs=0.01)
    assert explained(np.ones((5, 2)), np.ones((5, 2))) == 0.0
