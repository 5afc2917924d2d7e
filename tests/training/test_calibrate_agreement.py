"""Learning when modalities agree: on a world that is known, and for a bundle on disk."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mm_perception.bundle import load_bundle
from mm_perception.cli import main as frame
from mm_perception.data.dataset import Dataset, save_dataset
from mm_perception.engines.build import build_engine
from mm_perception.evaluation.consistency import (
    AUROC,
    FALSE_ALARM,
    MISSED,
    evidence_alone,
    make_events,
    measure_agreement,
)
from mm_perception.evaluation.generation import encode_all
from mm_perception.fusion.consistency import SECTION, ConsistencyCheck
from mm_perception.fusion.session import InferenceSession
from mm_perception.spec import StageSpec
from mm_perception.training import consistency as topics
from mm_perception.training.consistency import calibrate_agreement
from mm_perception.training.run import Run, train
from tests.helpers.agreeing_world import NAMES, AveragingEngine, world, world_spec
from tests.helpers.toy_training import configuration, recordings


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, 'STEPS', 200)


def calibrate(training: Dataset, held: Dataset) -> dict[str, object]:
    return calibrate_agreement(AveragingEngine(), world_spec(), training, held)


def check(calibration: dict[str, object]) -> None:
    engine = AveragingEngine()
    agreement = ConsistencyCheck(engine, world_spec(), calibration)
    fresh = world(1000, seed=2)
    labels = fresh.values['a'].argmax(1)
    events = replace(make_events(fresh, world_spec()), labels=labels)
    evidence = evidence_alone(engine, agreement, encode_all(engine, fresh))
    rows = measure_agreement(agreement, evidence, events, pairings=1)
    for count in (2, 3, 4):
        means = {
            metric: np.mean(
                [r.value for r in rows if r.metric == metric and len(r.observed) == count]
            )
            for metric in (MISSED, FALSE_ALARM, AUROC)
        }
        assert means[MISSED] < 0.05 and means[FALSE_ALARM] < 0.03 and means[AUROC] > 0.99


def test_agreement_is_learned_from_what_occurs_together() -> None:
    """No label is known here."""
    calibration = calibrate(world(2000, seed=0), world(1000, seed=1))
    assert set(calibration['thresholds']) == {'2', '3', '4'}  # type: ignore[call-overload]
    json.dumps(calibration)
    check(calibration)


def test_agreement_is_learned_from_rows_that_lack_modalities() -> None:
    training = world(3000, seed=0)
    present = np.random.default_rng(0).random((3000, len(NAMES))) < 0.7
    values = {name: values.copy() for name, values in training.values.items()}
    for column, name in enumerate(NAMES):
        values[name][~present[:, column]] = 50.0  # what was not recorded must not matter
    training = replace(training, values=values, present=present)
    check(calibrate(training, world(1000, seed=1)))


def test_agreement_calibration_is_the_same_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(topics, 'STEPS', 20)
    data = world(300)
    assert calibrate(data, data) == calibrate(data, data)


def test_agreement_needs_enough_rows_of_two_modalities() -> None:
    enough, few = world(300), world(150)
    assert calibrate(enough, few) == calibrate(few, enough) == {}
    alone = np.zeros((300, len(NAMES)), bool)
    alone[:, 0] = True
    assert calibrate(enough, replace(enough, present=alone)) == {}


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
    assert bundle.health[SECTION]['rows'] == 600
    assert 'the others contradict is found' in (bundle.path / 'README.md').read_text()
    session = InferenceSession(build_engine(bundle, 'cpu'), bundle.spec, bundle.health)
    example = recordings(1)
    for name in ('camera', 'arm', 'word'):
        session.update(name, example.rows(name, np.array([0]))[0])
    (judgement,) = session.judge(bundle.spec.names)
    assert judgement is not None and set(judgement.surprise) == {'camera', 'arm', 'word'}


def digests(folder: Path) -> dict[str, str]:
    files = folder.glob('*.safetensors')
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_command_calibrates_a_bundle_that_is_not(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = quick_training(folder)
    before, weights = load_bundle(path), digests(path)
    assert SECTION not in before.health  # 60 rows are kept back
    assert 'Nothing says whether its modalities agree' in (path / 'README.md').read_text()
    engine = build_engine(before, 'cpu')
    assert InferenceSession(engine, before.spec, before.health).judge(()) == [None]
    arguments = ['calibrate-health', str(path), '--dataset', str(folder / 'data')]
    assert frame.main(arguments) == 2
    assert 'has no split "validation"' in capsys.readouterr().err
    assert frame.main([*arguments, '--split', 'test']) == 0
    after = load_bundle(path)
    assert after.health[SECTION]['rows'] == 600
    assert after.hash == before.hash and digests(path) == weights
    assert 'the others contradict is found' in (path / 'README.md').read_text()
    assert frame.main([*arguments, '--split', 'test', '--false-alarm', '1.5']) == 2
    assert '--false-alarm 1.5: give a share above 0 and below 1' in capsys.readouterr().err
    assert load_bundle(path).health == after.health
    assert frame.main([*arguments, '--split', 'test', '--false-alarm', '0.1']) == 0
    strict, often = (b.health[SECTION] for b in (after, load_bundle(path)))
    assert often['false_alarm'] == 0.1 and often['readers'] == strict['readers']
    assert all(often['thresholds'][n] < value for n, value in strict['thresholds'].items())
    assert 'at a false-alarm rate of 10 %' in (path / 'README.md').read_text()
    after = load_bundle(path)
    save_dataset(folder / 'data', 'few', recordings(3).subset(np.arange(100)))
    assert frame.main([*arguments, '--split', 'few']) == 2
    assert 'need 200 rows each' in capsys.readouterr().err
    assert load_bundle(path).health == after.health
