"""A new kind of modality: one short file, then it trains, is bundled and runs as any other."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed')
pytest.importorskip('torch', reason='torch is not installed')

from sensor_msgs.msg import Temperature

import mm_perception
from mm_perception.data.dataset import Dataset, save_dataset
from mm_perception.ros.codecs import input_codec, make_header, output_codec
from mm_perception.spec import ModalitySpec, StageSpec
from mm_perception.training.run import Run, train
from tests.helpers.robot import Robot
from tests.helpers.toy_training import configuration

SECOND = '/second'
TOY = Path(__file__).parents[1] / 'helpers' / 'toy_kind.py'
ROWS = 400


def dataset(seed: int) -> Dataset:
    """Angles, and a vector that tells them."""
    turns = np.random.default_rng(seed).random(ROWS).astype(np.float32)
    angle = np.stack([np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)], 1) / 2 + 0.5
    index = np.arange(ROWS)
    values = {'angle': angle.astype(np.float32), 'pose': angle.astype(np.float32)}
    present = np.ones((ROWS, 2), bool)
    return Dataset(('angle', 'pose'), values, dict.fromkeys(values, index), present)


@pytest.fixture(scope='module')
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that was trained with the kind, of which other tests know nothing."""
    importlib.import_module('tests.helpers.toy_kind')
    folder = tmp_path_factory.mktemp('toy')
    for seed, split in enumerate(('train', 'test')):
        save_dataset(folder / 'data', split, dataset(seed))
    spec = configuration(folder)
    dense = {'type': 'dense', 'hidden': (32,)}
    pose = {'low': (0.0, 0.0), 'high': (1.0, 1.0)}
    modalities = (
        ModalitySpec(
            'angle', 'angle', 2, likelihood='optimal_sigma', beta=0.1, latent_weight=100.0
        ),
        ModalitySpec(
            'pose', 'vector', 2, pose, dense, 'optimal_sigma', beta=0.1, latent_weight=100.0
        ),
    )
    stage = StageSpec(epochs=40, batch_size=32, warm_up_epochs=3)
    model = replace(spec.model, modalities=modalities)
    unimodal = dict.fromkeys(('angle', 'pose'), stage)
    spec = replace(spec, name='toy', model=model, top=stage, unimodal=unimodal)
    train(Run(spec, folder / 'work', quiet=True), folder / 'toy', 'a test')
    return folder / 'toy'


def test_toy_kind_takes_60_lines() -> None:
    code = TOY.read_text().split('@dataclass', 1)[1].splitlines()
    assert sum(bool(line.strip()) for line in code) <= 60


def test_toy_kind_is_filled_in(bundle: Path) -> None:
    perception = mm_perception.load(str(bundle))
    assert perception.engine.name == 'onnx'
    truth = np.linspace(-0.4, 0.4, 9)
    errors = []
    for turns in truth:
        angle = 2 * np.pi * turns
        perception.update('pose', np.array([np.cos(angle), np.sin(angle)], np.float32) / 2 + 0.5)
        made = perception.infer().reconstructions['angle']
        errors.append(abs(perception.modalities['angle'].from_model(made) - turns))
    assert np.median(errors) < 0.05, errors


def test_toy_kind_has_codecs_that_agree(bundle: Path) -> None:
    modality = mm_perception.load(str(bundle)).modalities['angle']
    array = modality.to_model(0.2)
    message = output_codec('angle').encode(modality, array, make_header(7))
    assert input_codec('angle').decode(message, 0, modality)[0] == pytest.approx(0.2, abs=1e-6)
    np.testing.assert_allclose(output_codec('angle').decode(modality, message), array, atol=1e-6)


def test_toy_kind_runs_in_the_node(bundle: Path, robot: Robot, tmp_path: Path) -> None:
    code = 'import tests.helpers.toy_kind\nfrom mm_perception.ros.cmi_node import main\nmain()'
    arguments = ['--ros-args', '-r', f'__ns:={SECOND}', '-p', f'bundle:={bundle}']
    with (tmp_path / 'log').open('w') as log:
        node = subprocess.Popen(
            [sys.executable, '-c', code, *arguments, '-p', 'autostart:=true'],
            stdout=log,
            stderr=log,
        )
    try:
        publisher = robot.node.create_publisher(Temperature, 'angle', 10)
        robot.watch('filled/angle', Temperature)

        def fused() -> bool:
            header = make_header(robot.now_ns())
            publisher.publish(Temperature(header=header, temperature=0.2))
            return robot.used() == {'angle'} and bool(robot.received['filled/angle'])

        robot.until(fused, 'filled/angle', 40.0)
        assert robot.received['filled/angle'][-1].temperature == pytest.approx(0.2, abs=1e-5)
    finally:
        node.terminate()
        node.wait(20)
