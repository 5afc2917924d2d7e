"""Learning when modalities agree: on a world that is known, and for a bundle on disk."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mm_perception.bundle import Health, load_bundle
from mm_perception.cli import main as frame
from mm_perception.config import to_plain
from mm_perception.data.dataset import Dataset, save_dataset
from mm_perception.engines.build import build_engine
from mm_perception.evaluation.consistency import (
    AUROC,
    FALSE_ALARM,
    MISSED,
    evidence_alone,
    make_events,
    measure_consistency,
)
from mm_perception.evaluation.generation import encode_all
from mm_perception.fusion.confidence import TABLE, WEIGHTS
from mm_perception.fusion.consistency import ConsistencyCheck
from mm_perception.fusion.session import InferenceSession
from mm_perception.spec import StageSpec
from mm_perception.training import consistency
from mm_perception.training.consistency import calibrate_consistency
from mm_perception.training.run import Run, train
from tests.helpers.agreeing_world import NAMES, AveragingEngine, plain, world, world_spec
from tests.helpers.toy_training import configuration, recordings


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consistency, 'STEPS', 200)


def calibrate(training: Dataset, held: Dataset) -> Health | None:
    return calibrate_consistency(AveragingEngine(), world_spec(), training, held)


def assert_finds_faults(health: Health | None) -> None:
    assert health is not None
    engine = AveragingEngine()
    check = ConsistencyCheck(engine, world_spec(), health)
    fresh = world(1000, seed=2)
    labels = fresh.values['a'].argmax(1)
    events = replace(make_events(fresh, world_spec()), labels=labels)
    evidence = evidence_alone(engine, check, encode_all(engine, fresh))
    rows = measure_consistency(check, evidence, events, pairings=1)
    for count in (2, 3, 4):
        means = {
            metric: np.mean(
                [r.value for r in rows if r.metric == metric and len(r.observed) == count]
            )
            for metric in (MISSED, FALSE_ALARM, AUROC)
        }
        assert means[MISSED] < 0.05 and means[FALSE_ALARM] < 0.03 and means[AUROC] > 0.99


def test_consistency_is_learned_from_what_occurs_together() -> None:
    """No label is known here."""
    health = calibrate(world(2000, seed=0), world(1000, seed=1))
    assert health is not None and set(health.thresholds) == {'2', '3', '4'}
    json.dumps(to_plain(replace(health, class_heads={})))
    assert_finds_faults(health)


def test_consistency_is_learned_from_rows_that_lack_modalities() -> None:
    training = world(3000, seed=0)
    present = np.random.default_rng(0).random((3000, len(NAMES))) < 0.7
    values = {name: values.copy() for name, values in training.values.items()}
    for column, name in enumerate(NAMES):
        values[name][~present[:, column]] = 50.0  # what was not recorded must not matter
    training = replace(training, values=values, present=present)
    assert_finds_faults(calibrate(training, world(1000, seed=1)))


def test_consistency_calibration_is_the_same_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(consistency, 'STEPS', 20)
    data = world(300)
    assert plain(calibrate(data, data)) == plain(calibrate(data, data))


def test_consistency_needs_enough_rows_of_two_modalities() -> None:
    enough, few = world(300), world(150)
    assert calibrate(enough, few) == calibrate(few, enough) is None
    alone = np.zeros((300, len(NAMES)), bool)
    alone[:, 0] = True
    assert calibrate(enough, replace(enough, present=alone)) is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_dataset(tmp_path / 'data', 'train', recordings(0))
    save_dataset(tmp_path / 'data', 'test', recordings(1))
    return tmp_path


def quick_training(folder: Path) -> Path:
    brief = StageSpec(epochs=3, batch_size=32)
    spec = configuration(folder, top=brief, unimodal=dict.fromkeys(('camera', 'arm'), brief))
    spec = replace(spec, unimodal={**spec.unimodal, 'word': StageSpec(epochs=40, batch_size=32)})
    train(Run(spec, folder / 'work', quiet=True, classifiers=False), folder / 'bundle', 'test')
    return folder / 'bundle'


def test_training_calibrates_agreement_on_the_validation_split(folder: Path) -> None:
    save_dataset(folder / 'data', 'validation', recordings(2))
    bundle = load_bundle(quick_training(folder))
    assert bundle.health is not None and bundle.health.rows == 600
    assert 'the others contradict is found' in (bundle.path / 'README.md').read_text()
    session = InferenceSession(build_engine(bundle, 'cpu'), bundle.spec, bundle.health)
    example = recordings(1)
    for name in ('camera', 'arm', 'word'):
        session.update(name, example.rows(name, np.array([0]))[0])
    (judgement,) = session.judge(bundle.spec.names)
    assert judgement is not None and set(judgement.surprise) == {'camera', 'arm', 'word'}


def digests(folder: Path) -> dict[str, str]:
    files = folder.glob('[mc]*.safetensors')
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_command_calibrates_a_bundle_that_is_not(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = quick_training(folder)
    before, weights = load_bundle(path), digests(path)
    assert before.health is None  # 60 rows are kept back
    assert 'Nothing says whether its modalities agree' in (path / 'README.md').read_text()
    engine = build_engine(before, 'cpu')
    assert InferenceSession(engine, before.spec, before.health).judge(()) == [None]
    arguments = ['calibrate-health', str(path), '--dataset', str(folder / 'data')]
    assert frame.main(arguments) == 2
    assert 'has no split "validation"' in capsys.readouterr().err
    assert frame.main([*arguments, '--split', 'test']) == 0
    after = load_bundle(path)
    assert after.health is not None and after.health.rows == 600
    assert after.hash == before.hash and digests(path) == weights
    assert 'the others contradict is found' in (path / 'README.md').read_text()
    assert frame.main([*arguments, '--split', 'test', '--false-alarm', '1.5']) == 2
    assert '--false-alarm 1.5: give a share above 0 and below 1' in capsys.readouterr().err
    assert plain(load_bundle(path).health) == plain(after.health)
    assert frame.main([*arguments, '--split', 'test', '--false-alarm', '0.1']) == 0
    strict, often = after.health, load_bundle(path).health
    assert often is not None and often.false_alarm == 0.1
    for name, array in strict.class_heads.items():
        if name in (TABLE, WEIGHTS):  # learned from the split for the thresholds
            continue
        np.testing.assert_array_equal(often.class_heads[name], array)
    assert all(often.thresholds[n] < value for n, value in strict.thresholds.items())
    assert 'at a false-alarm rate of 10 %' in (path / 'README.md').read_text()
    after = load_bundle(path)
    save_dataset(folder / 'data', 'few', recordings(3).subset(np.arange(100)))
    assert frame.main([*arguments, '--split', 'few']) == 2
    assert 'need 200 rows each' in capsys.readouterr().err
    assert plain(load_bundle(path).health) == plain(after.health)
