"""A configuration that leaves all out keeps what it is given; a collapsed latent is warned of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mm_perception.bundle import Bundle, load_bundle
from mm_perception.data.dataset import Dataset, save_dataset
from mm_perception.engines.build import build_engine
from mm_perception.spec import ModalitySpec, ModelSpec, StageSpec, TrainingSpec
from mm_perception.training.run import Run, train

ELEMENTS = 4


def joints(count: int, seed: int) -> Dataset:
    """Two groups of joints that move on their own, but for the first of both; one is constant."""
    generator = np.random.default_rng(seed)
    left, right = generator.uniform(0.3, 0.7, (2, count, ELEMENTS)).astype(np.float32)
    right[:, 0] = 1.0 - left[:, 0]
    left[:, 3] = 0.5
    index = np.arange(count)
    present = np.ones((count, 2), bool)
    return Dataset(
        ('left', 'right'),
        {'left': left, 'right': right},
        dict.fromkeys(('left', 'right'), index),
        present,
    )


def trained(folder: Path, model: ModelSpec, rows: int = 600) -> Bundle:
    for split, count in {'train': rows, 'validation': 150, 'test': 150}.items():
        save_dataset(folder / 'data', split, joints(count, len(split)))
    spec = TrainingSpec('joints', str(folder / 'data'), model, StageSpec(steps=400, batch_size=64))
    return train(Run(spec, folder / 'work', quiet=True), folder / 'bundle', 'test')


def model(**changes: object) -> ModelSpec:
    """Nothing but kinds and ranges, in networks that train in seconds."""
    ranges = {'low': (0.0,) * ELEMENTS, 'high': (1.0,) * ELEMENTS}
    groups = tuple(
        ModalitySpec(name, 'vector', preprocessing=ranges) for name in ('left', 'right')
    )
    spec = ModelSpec(groups, message_dim=32, joint_hidden=(32,), decoder_hidden=(32,))
    return replace(spec, **changes)  # type: ignore[arg-type]


def error(bundle: Bundle, split: str, target: str, observed: list[str]) -> float:
    (row,) = (
        row
        for row in bundle.training['errors'][split]
        if row['target'] == target and row['observed'] == observed
    )
    return float(row['error'])


@pytest.fixture(scope='module')
def defaults(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return trained(tmp_path_factory.mktemp('defaults'), model())


def test_the_defaults_give_back_what_is_observed(defaults: Bundle) -> None:
    assert defaults.training['warnings'] == []
    for split in ('validation', 'test'):
        for target in ('left', 'right'):
            assert error(defaults, split, target, ['left', 'right']) < 0.02


def test_the_defaults_fill_in_what_the_others_tell(defaults: Bundle) -> None:
    # One of three moving joints follows from the other group: the others stay unknown.
    assert error(defaults, 'test', 'left', ['right']) == pytest.approx((2 / 3) ** 0.5, abs=0.08)
    assert error(defaults, 'test', 'right', ['left']) == pytest.approx((3 / 4) ** 0.5, abs=0.08)


def test_what_is_left_open_is_found_from_the_data(defaults: Bundle) -> None:
    left, right = defaults.spec.modalities
    assert (left.latent_dim, right.latent_dim) == (3, 4)
    assert left.network == {'type': 'linear'} and left.likelihood == 'optimal_sigma'
    assert defaults.spec.joint_encoder == 'skip'
    assert defaults.statistics['left']['constant_elements'] == [3]
    assert defaults.statistics['right']['constant_elements'] == []


def test_the_card_has_figures_without_a_symbol(defaults: Bundle) -> None:
    card = (defaults.path / 'README.md').read_text()
    assert 'Errors on `test`' in card and 'Errors on `validation`' in card
    assert '| left | 1.0' in card and 'Warning' not in card


def test_a_saved_bundle_gives_back_what_is_observed(defaults: Bundle) -> None:
    engine = build_engine(load_bundle(defaults.path), 'cpu')
    data, present = joints(8, 5), np.ones((8, 2), bool)
    codes = {name: engine.encode(name, data.values[name]) for name in data.names}
    joint, std = engine.fuse(codes, present)
    np.testing.assert_allclose(engine.decode('right', joint), data.values['right'], atol=2e-3)
    assert (std > 0).all()


def test_the_old_defaults_are_warned_of(tmp_path: Path) -> None:
    weighed = tuple(replace(m, latent_weight=1.0) for m in model().modalities)
    old = model(modalities=weighed, joint_encoder='mean')
    bundle = trained(tmp_path, old)
    assert bundle.training['latents']['kl'] < 1.0
    assert error(bundle, 'test', 'left', ['left', 'right']) > 0.5
    warnings = ' '.join(bundle.training['warnings'])
    assert 'left even while it is observed; leave latent_weight out' in warnings
    assert '**Warning:**' in (bundle.path / 'README.md').read_text()


def test_few_rows_take_as_many_steps(tmp_path: Path) -> None:
    bundle = trained(tmp_path, model(), rows=60)
    assert error(bundle, 'test', 'left', ['right']) < 1.0
