"""Missed faults, false alarms and what is generated when a sensor lies, on known answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mm_perception.engines.classifiers import Classifiers
from mm_perception.evaluation.consistency import (
    ABSENT,
    AUROC,
    BLAMED_ANOTHER,
    EXCLUDED,
    FALSE_ALARM,
    LYING,
    MISSED,
    Events,
    evidence_alone,
    make_events,
    measure_consistency,
    measure_exclusion,
)
from mm_perception.evaluation.generation import Row, encode_all
from mm_perception.fusion.consistency import ConsistencyCheck
from mm_perception.lab.tables.bundle_metrics import contradiction_tables
from tests.helpers.agreeing_world import (
    LABELS,
    NAMES,
    AveragingEngine,
    exact_health,
    world,
    world_spec,
)

ROWS = 300


def labelled_world(seed: int = 0) -> tuple[np.ndarray, Events]:
    """True labels of a world, which its events know."""
    data = world(ROWS, seed)
    labels = data.values['a'].argmax(1)
    index = np.stack([data.index[name] for name in NAMES], axis=1)
    return labels, Events(labels, data.present, index)


def check_of(threshold: float = 4.0) -> ConsistencyCheck:
    return ConsistencyCheck(AveragingEngine(), world_spec(), exact_health(threshold=threshold))


def rows_of(threshold: float) -> list[Row]:
    engine, check = AveragingEngine(), check_of(threshold)
    evidence = evidence_alone(engine, check, encode_all(engine, world(ROWS)))
    return measure_consistency(check, evidence, labelled_world()[1], pairings=2)


def values(rows: list[Row], metric: str) -> set[float]:
    return {row.value for row in rows if row.metric == metric}


def test_events_pair_data_of_one_label_anew() -> None:
    labels, events = labelled_world()
    paired = events.paired_anew(np.random.default_rng(0))
    assert (labels[paired] == labels[:, None]).all()
    assert all((np.sort(column) == np.arange(ROWS)).all() for column in paired.T)
    assert (paired[:, 0] != paired[:, 1]).mean() > 0.9


def test_events_never_pair_what_was_not_recorded() -> None:
    _, events = labelled_world()
    present = np.random.default_rng(1).random((ROWS, 4)) < 0.6
    paired = replace(events, present=present).paired_anew(np.random.default_rng(0))
    for column in range(4):
        assert (present[paired[:, column], column] == present[:, column]).all()


def test_events_of_unknown_labels_stay_as_they_are() -> None:
    events = make_events(world(ROWS), world_spec())
    paired = events.paired_anew(np.random.default_rng(0))
    assert (paired == np.arange(ROWS)[:, None]).all()


def test_events_take_labels_only_from_rows_that_show_them() -> None:
    data = world(ROWS)
    one_hot = np.eye(3, dtype=np.float32)[data.values['d'].argmax(1)]
    present = data.present.copy()
    present[:100, 3] = False
    data = replace(data, values={**data.values, 'd': one_hot}, present=present)
    events = make_events(data, world_spec(labelled=True))
    assert (events.labels[:100] < 0).all() and len(set(events.labels[:100])) == 100
    assert set(events.labels[100:]) == set(range(len(LABELS)))


def test_events_faults_show_another_label_and_another_value() -> None:
    labels, events = labelled_world()
    source = events.faulty(2, np.random.default_rng(0))
    assert (source >= 0).all() and (labels[source] != labels).all()
    same = replace(events, labels=np.zeros(ROWS, int))
    assert (same.faulty(2, np.random.default_rng(0)) < 0).all()


def test_consistency_metrics_of_a_right_judge() -> None:
    rows = rows_of(threshold=4.0)
    assert values(rows, MISSED) == values(rows, BLAMED_ANOTHER) == {0.0}
    assert values(rows, FALSE_ALARM) == {0.0} and values(rows, AUROC) == {1.0}
    faults = [row for row in rows if row.metric == MISSED]
    assert len(faults) == 2 * (6 * 2 + 4 * 3 + 4)
    assert {row.n for row in faults} == {ROWS}


def test_consistency_metrics_of_a_judge_that_sleeps() -> None:
    rows = rows_of(threshold=1e9)
    assert values(rows, MISSED) == {1.0} and values(rows, FALSE_ALARM) == {0.0}


@pytest.mark.parametrize(('threshold', 'found'), [(4.0, True), (1e9, False)])
def test_lies_cost_nothing_where_they_are_found(threshold: float, found: bool) -> None:
    engine, spec = AveragingEngine(), world_spec(labelled=True)
    data, labels = world(ROWS), labelled_world()[0]
    check = ConsistencyCheck(engine, spec, exact_health(threshold=threshold))
    one_hot = 2.0 * np.eye(3, dtype=np.float32)[labels]
    data = replace(data, values={**data.values, 'd': one_hot})
    rows = measure_exclusion(engine, check, data, labels, Classifiers({}))
    assert {(row.metric, row.n) for row in rows} == {
        (metric, ROWS) for metric in (ABSENT, LYING, EXCLUDED)
    }
    assert values(rows, ABSENT) == {1.0}
    three = [row for row in rows if len(row.observed) == 3]
    assert {row.target for row in three} == set(NAMES)
    assert values(rows, EXCLUDED) == (values(rows, ABSENT) if found else values(rows, LYING))


def test_consistency_table_has_a_line_per_figure() -> None:
    table = contradiction_tables('test', rows_of(4.0))
    assert '| missed_fault | a | 0.00 (0.00 to 0.00) | 0.00 (0.00 to 0.00) |' in '\n'.join(table)
    assert '| false_alarm, as recorded | latent | 0.00 | 0.00 | 0.00 |' in table
    assert contradiction_tables('test', []) == []
