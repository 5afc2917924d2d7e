"""What the tutorial tells to write, written and run."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('torch', reason='torch is not installed')

from mm_perception.bundle import save_bundle
from mm_perception.config import load_training
from mm_perception.data.dataset import Dataset, load_dataset
from mm_perception.engines.export import with_graphs
from mm_perception.spec import TrainingSpec
from mm_perception.training.defaults import completed
from tests.helpers.small_bundle import make_bundle

TUTORIAL = (Path(__file__).parents[2] / 'docs' / 'tutorial.md').read_text()


def blocks(language):
    return re.findall(rf'```{language}\n(.*?)```', TUTORIAL, re.DOTALL)


@pytest.fixture
def robot(tmp_path, monkeypatch):
    """Model of the tutorial's configuration, in whose folder everything runs."""
    monkeypatch.chdir(tmp_path)
    Path('my_robot.yaml').write_text(blocks('yaml')[0])
    return load_training(Path('my_robot.yaml')).model


def completed_model(model):
    """Fill in what training finds from the data, here from two rows."""
    names, index = model.names, np.arange(2)
    values = {m.name: np.eye(2, 6).reshape(2, -1) for m in model.modalities}
    rows = Dataset(names, values, dict.fromkeys(names, index), np.ones((2, len(names)), bool))
    return completed(TrainingSpec('my_robot', '', model), rows).model


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)


def test_the_tutorial_builds_a_dataset(robot, rgb):
    rows = [{'camera': rgb, 'force': [1.0] * 6, 'object': 'cup'}, {'camera': rgb}] * 2
    assert 'rows = [...]' in blocks('python')[0]
    exec(blocks('python')[0].replace('rows = [...]', 'rows = given'), {'given': rows})  # noqa: S102 - code of ours
    dataset = load_dataset(Path('data/my_robot'), 'train')
    assert dataset.present.sum(0).tolist() == [4, 2, 2]
    assert [len(dataset.values[name]) for name in robot.names] == [4, 2, 2]


def test_the_tutorial_gives_an_observation(robot, rgb):
    robot = replace(completed_model(robot), joint_latent_dim=32)
    bundle = with_graphs(make_bundle('my_robot', spec=robot))
    save_bundle(bundle, Path('models/my_robot'), '# my_robot\n')
    scope = {'rgb': rgb}
    exec(blocks('python')[2], scope)  # noqa: S102 - code of ours
    assert scope['observation'].shape == (2 * robot.joint_latent_dim,)
    assert np.isfinite(scope['observation']).all()
