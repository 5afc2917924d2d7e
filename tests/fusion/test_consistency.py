"""Judging whether modalities agree, on known answers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from mm_perception.bundle import Health
from mm_perception.engines.build import build_engine
from mm_perception.engines.engine import Engine
from mm_perception.errors import BundleError, NothingObserved
from mm_perception.fusion.consistency import (
    ClassHead,
    ConsistencyCheck,
    Judgement,
    feature_count,
    read_class_head,
    surprise_nats,
)
from mm_perception.fusion.session import InferenceSession
from mm_perception.modalities import build_modality
from tests.helpers.agreeing_world import (
    CENTRES,
    NAMES,
    AveragingEngine,
    exact_head,
    exact_health,
    health_of,
    world_spec,
)
from tests.helpers.small_bundle import make_bundle

HEALTH = exact_health()


def judge(labels: Sequence[int], names: tuple[str, ...] = NAMES) -> Judgement:
    check = ConsistencyCheck(AveragingEngine(), world_spec(), exact_health())
    absent = np.full((1, 3), 7.0, np.float32)
    codes = dict.fromkeys(NAMES, absent)
    codes |= {name: CENTRES[[label]] for name, label in zip(names, labels)}
    return judged(check, codes, names)


def judged(
    check: ConsistencyCheck, codes: dict[str, np.ndarray], names: Sequence[str]
) -> Judgement:
    """Judgement of one row, each of whose modalities is read alone."""
    rows = {name: np.repeat(code, len(names), axis=0) for name, code in codes.items()}
    (judgement,) = check.judge(names, np.stack(check.read(rows, names))[None])
    return judgement


def test_consistency_surprise_by_hand() -> None:
    evidence = np.log(2 * np.array([[[0.9, 0.1], [0.2, 0.8]]]))
    expected = -math.log(2 * (0.9 * 0.2 + 0.1 * 0.8)) + math.log(2)
    np.testing.assert_allclose(surprise_nats(evidence), [[expected, expected]])


def test_consistency_of_three_uses_what_the_others_say_together() -> None:
    shares = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    together = shares[0] * shares[1] / (shares[0] * shares[1]).sum()
    expected = -math.log(2 * (together * shares[2]).sum()) + math.log(2)
    assert surprise_nats(np.log(2 * shares)[None])[0, 2] == pytest.approx(expected)


@pytest.mark.parametrize('faulty', range(4))
@pytest.mark.parametrize(('honest', 'lie'), list(itertools.permutations(range(3), 2)))
def test_consistency_blames_the_one_that_three_contradict(
    faulty: int, honest: int, lie: int
) -> None:
    judgement = judge([lie if column == faulty else honest for column in range(4)])
    assert judgement.contradicted == NAMES[faulty] and not judgement.disagree
    assert judgement.surprise[NAMES[faulty]] > 1.0
    assert max(judgement.surprise, key=lambda name: judgement.surprise[name]) == NAMES[faulty]


@pytest.mark.parametrize('faulty', range(3))
def test_consistency_blames_the_one_that_two_contradict(faulty: int) -> None:
    judgement = judge([2 if column == faulty else 0 for column in range(3)], ('a', 'c', 'd'))
    assert judgement.contradicted == ('a', 'c', 'd')[faulty]


def test_consistency_never_blames_one_of_two() -> None:
    for first, second in itertools.product(range(3), repeat=2):
        judgement = judge([first, second], ('b', 'd'))
        assert judgement.contradicted == ''
        assert judgement.disagree == (first != second)
        assert (max(judgement.surprise.values()) > 1.0) == judgement.disagree


@pytest.mark.parametrize('labels', [(0, 1, 2), (0, 0, 1, 1), (0, 1, 2, 2)])
def test_consistency_blames_none_where_the_others_do_not_agree(labels: tuple[int, ...]) -> None:
    judgement = judge(labels, NAMES[: len(labels)])
    assert judgement.contradicted == '' and judgement.disagree


def test_consistency_has_nothing_to_say_of_one() -> None:
    assert judge([0], NAMES[:1]) == Judgement({NAMES[0]: 0.0})


@pytest.mark.parametrize('label', range(3))
def test_consistency_is_quiet_where_all_agree(label: int) -> None:
    judgement = judge([label] * 4)
    assert judgement.contradicted == '' and not judgement.disagree
    assert max(judgement.surprise.values()) < 1.0


def test_consistency_does_not_depend_on_the_order_of_modalities() -> None:
    data = dict(zip(NAMES, CENTRES[[0, 0, 1, 0]] + np.float32([[0.1], [0.2], [0.0], [0.3]])))
    found = []
    for names in (NAMES, ('c', 'd', 'b', 'a')):
        check = ConsistencyCheck(AveragingEngine(names), world_spec(names), exact_health(names))
        found.append(judged(check, {n: data[n][None] for n in names}, names))
    assert found[0].contradicted == found[1].contradicted == 'c'
    assert found[0].surprise == pytest.approx(found[1].surprise)


def test_consistency_counts_less_what_is_unusual() -> None:
    head, data = exact_head(), CENTRES[[1]]
    usual = head.evidence(data, np.full((1, 3), 0.1))
    unsure = head.evidence(data, np.full((1, 3), 0.1 * math.e**2))
    assert usual.argmax() == unsure.argmax() == 1
    assert np.ptp(unsure) == pytest.approx(np.ptp(usual) / 3.0)
    np.testing.assert_array_equal(usual, head.evidence(data, np.full((1, 3), 0.01)))


def test_class_head_survives_half_precision() -> None:
    again = read_class_head(HEALTH, 'a', 3)
    std = np.full((3, 3), 0.1)
    expected = exact_head().evidence(CENTRES, std)
    np.testing.assert_allclose(again.evidence(CENTRES, std), expected, rtol=1e-2, atol=0.05)


def with_array(name: str, value: object) -> Health:
    arrays = {**HEALTH.class_heads, name: np.asarray(value, np.float16)}
    return replace(HEALTH, class_heads=arrays)


@pytest.mark.parametrize(
    'health',
    [
        replace(HEALTH, class_heads={}),
        replace(HEALTH, usual={}),
        replace(HEALTH, thresholds={'2': 1.0}),
        replace(HEALTH, thresholds=dict.fromkeys('234', float('nan'))),
        with_array('b.hidden.weight', np.zeros((4, 6))),
        with_array('b.hidden.weight', np.full((3, 6), np.inf)),
        with_array('b.output.weight', np.zeros(18)),
        with_array('b.output.bias', np.zeros((3, 1))),
        with_array('b.output.bias', 0.0),
    ],
)
def test_consistency_refuses_a_broken_calibration(health: Health) -> None:
    with pytest.raises(BundleError, match='calibrate-health'):
        ConsistencyCheck(AveragingEngine(), world_spec(), health)


def update(session: InferenceSession, name: str, label: int) -> None:
    session.update(name, CENTRES[label])


def test_session_judges_and_works_it_out_once() -> None:
    engine = AveragingEngine()
    session = InferenceSession(engine, world_spec(), HEALTH)
    for name in NAMES:
        update(session, name, 2 if name == 'b' else 1)
    (judgement,) = session.judge(NAMES)
    assert judgement is not None and judgement.contradicted == 'b'
    assert engine.fused == 1
    assert session.judge(NAMES)[0] is judgement and session.judge(set(NAMES))[0] is judgement
    assert engine.fused == 1
    update(session, 'b', 1)
    (mended,) = session.judge(NAMES)
    assert mended is not None and mended.contradicted == '' and engine.fused == 2
    (fewer,) = session.judge(('a', 'c'))
    assert fewer is not None and set(fewer.surprise) == {'a', 'c'} and engine.fused == 2


def test_session_judges_after_the_fusion_took_the_new_data() -> None:
    session = InferenceSession(AveragingEngine(), world_spec(), HEALTH)
    for name in NAMES:
        update(session, name, 0)
    session.judge(NAMES)
    update(session, 'd', 1)
    session.infer(NAMES, ())
    (judgement,) = session.judge(NAMES)
    assert judgement is not None and judgement.contradicted == 'd'


def test_session_without_calibration_judges_nothing() -> None:
    session = InferenceSession(AveragingEngine(), world_spec())
    assert session.judge(NAMES) == [None]


def test_session_judges_only_what_was_given() -> None:
    session = InferenceSession(AveragingEngine(), world_spec(), HEALTH)
    with pytest.raises(NothingObserved, match='no data of a'):
        session.judge({'a'})


def random_health(engine: Engine, seed: int) -> Health:
    """Class heads of random weights, with which about anything contradicts anything."""
    generator, bundle = np.random.default_rng(seed), make_bundle()

    def layer(inputs: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
        return generator.normal(0, 3, (inputs, outputs)), generator.normal(size=outputs)

    heads = {
        m.name: ClassHead(
            layer(feature_count(engine, bundle.spec, m.name), 5), layer(5, 4), -1.0, 0.5
        )
        for m in bundle.spec.modalities
    }
    return health_of(heads, 1.0)


def test_session_judgement_of_a_model_depends_on_present_data_alone() -> None:
    bundle = make_bundle()
    engine = build_engine(bundle, 'cpu')
    health, generator = random_health(engine, 0), np.random.default_rng(0)
    session = InferenceSession(engine, bundle.spec, health)
    shapes = {m.name: build_modality(m).shape for m in bundle.spec.modalities}
    for _ in range(5):
        fresh = InferenceSession(engine, bundle.spec, health)
        present = [n for n in shapes if generator.random() < 0.7] or ['image']
        for name, shape in shapes.items():
            data = generator.random(shape, dtype=np.float32)
            session.update(name, data)
            if name in present:
                fresh.update(name, data)
        (mine,), (expected,) = session.judge(present), fresh.judge(present)
        if len(present) < 2:
            assert mine is expected is None
            continue
        assert mine is not None and expected is not None
        assert mine.surprise == pytest.approx(expected.surprise, rel=1e-4, abs=1e-4)
        assert (mine.contradicted, mine.disagree) == (expected.contradicted, expected.disagree)
