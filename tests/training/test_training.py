"""Training on a small synthetic robot, from a dataset on disk to a bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mm_perception.bundle import load_bundle
from mm_perception.data.dataset import load_dataset, save_dataset
from mm_perception.engines.build import build_engine
from mm_perception.errors import ConfigError
from mm_perception.fusion.session import InferenceSession
from mm_perception.model.nexus import Nexus
from mm_perception.spec import StageSpec, TrainingSpec
from mm_perception.training.augmentation import build_augmentation
from mm_perception.training.defaults import UNIMODAL, completed, paced
from mm_perception.training.loop import Logging, fit, warm_up_factor
from mm_perception.training.run import Run, train
from mm_perception.training.stages import (
    TensorSource,
    joint_stage,
    split_positions,
    unimodal_stage,
)
from tests.helpers.toy_training import configuration, recordings, robot


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_dataset(tmp_path / 'data', 'train', recordings(0))
    save_dataset(tmp_path / 'data', 'test', recordings(1))
    return tmp_path


def run(folder: Path, spec: TrainingSpec, **options: object) -> Run:
    return Run(spec, folder / 'work', quiet=True, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize('joint', [False, True])
def test_training_learns_to_fill_in(folder: Path, joint: bool) -> None:
    spec = configuration(folder, joint=joint)
    if joint:
        spec = replace(spec, top=replace(spec.top, epochs=80))
    bundle = train(run(folder, spec), folder / 'bundle', 'test')
    figures = bundle.metrics['test']
    assert min(figures['classifier_accuracy'].values()) > 0.97
    for target, sizes in figures['by_observed'].items():
        assert sizes['2'] > 0.97, target
        assert sizes['1'] > 0.9, target
    loaded = load_bundle(folder / 'bundle')
    session = InferenceSession(build_engine(loaded, 'cpu'), loaded.spec)
    session.update('arm', np.array([0.1, 0.1, 0.7, 0.1], np.float32))
    assert session.infer({'arm'}, {'word'}).reconstructions['word'].argmax() == 2
    card = (folder / 'bundle' / 'README.md').read_text()
    assert 'Coherence on `test`' in card and 'Training time' in card


@pytest.mark.parametrize('family', ['mvae', 'mmvae_flat', 'mopoe_flat'])
def test_training_of_another_family_gives_a_bundle_that_runs(folder: Path, family: str) -> None:
    spec = configuration(folder)
    unimodal = spec.unimodal if family == 'mvae' else {}
    spec = replace(spec, model=replace(spec.model, family=family), unimodal=unimodal)
    bundle = train(run(folder, spec), folder / 'bundle', 'test')
    assert set(bundle.training['seconds']) == {*unimodal, 'top' if unimodal else 'joint'}
    assert ('active_units' in bundle.statistics['arm']) == bool(unimodal)
    figures = bundle.metrics['test']['by_observed']
    assert figures['camera']['1'] > 0.9 and figures['arm']['2'] > 0.9
    engine = build_engine(load_bundle(folder / 'bundle'), 'cpu')
    card = (folder / 'bundle' / 'README.md').read_text()
    assert ('does not fuse' in card) == (not engine.fuses) == (family == 'mmvae_flat')


def test_a_missing_unimodal_stage_has_the_default(folder: Path) -> None:
    spec = configuration(folder)
    unimodal = {name: stage for name, stage in spec.unimodal.items() if name != 'arm'}
    data = load_dataset(folder / 'data', 'train')
    assert completed(replace(spec, unimodal=unimodal), data).unimodal == {
        **unimodal,
        'arm': UNIMODAL,
    }


def test_few_images_are_given_principal_components(folder: Path) -> None:
    spec = configuration(folder)
    camera, *others = spec.model.modalities
    plain = replace(camera, network={}, latent_dim=0, likelihood='')
    open_spec = replace(spec, model=replace(spec.model, modalities=(plain, *others)))
    data = load_dataset(folder / 'data', 'train')
    found = completed(open_spec, data).model.modality('camera')
    assert found == replace(camera, network={'type': 'linear'}, latent_dim=32)
    joint = completed(replace(open_spec, joint=True), data).model.modality('camera')
    assert joint.network == {}


def test_a_stage_without_epochs_takes_its_steps() -> None:
    stage = StageSpec(batch_size=10, steps=100)
    few, many = paced(stage, 20), paced(stage, 20_000)
    assert (few[0].epochs, few[1]) == (25, 2)  # 4 steps an epoch
    assert (many[0].epochs, many[1]) == (1, 1)
    assert paced(replace(stage, epochs=7), 4) == (replace(stage, epochs=7), 3)
    assert few[0].warm_up_epochs == 5


def test_training_on_rows_with_missing_modalities_works(tmp_path: Path) -> None:
    save_dataset(tmp_path / 'data', 'train', recordings(0, missing=0.4))
    save_dataset(tmp_path / 'data', 'test', recordings(1))
    spec = configuration(tmp_path)  # with fewer values, as many steps need more epochs
    longer = {name: replace(spec.unimodal[name], epochs=40) for name in ('camera', 'arm')}
    spec = replace(spec, unimodal={**spec.unimodal, **longer}, top=replace(spec.top, epochs=60))
    bundle = train(run(tmp_path, spec), tmp_path / 'bundle', 'test')
    for target, sizes in bundle.metrics['test']['by_observed'].items():
        assert sizes['2'] > 0.95, target


def test_a_modality_that_was_never_recorded_is_explained(tmp_path: Path) -> None:
    whole = recordings(0)
    never = replace(whole, present=whole.present & np.array([True, False, True]))
    save_dataset(tmp_path / 'data', 'train', never)
    with pytest.raises(ConfigError, match='split train has no row with arm; record it, or leave'):
        train(run(tmp_path, configuration(tmp_path)), tmp_path / 'bundle', 'test')


def test_an_interrupted_stage_resumes_to_the_same_weights(folder: Path) -> None:
    spec = configuration(folder)
    source = TensorSource(load_dataset(folder / 'data', 'train'), torch.device('cpu'))

    def fresh() -> object:
        torch.manual_seed(3)
        return unimodal_stage(spec, 'arm', source)

    whole = fresh()
    fit(whole, folder / 'whole.safetensors', False, Logging(quiet=True))
    cut = fresh()
    step = cut.loss
    calls = 0

    def failing(positions: torch.Tensor, warm_up: float) -> object:
        nonlocal calls
        calls += 1
        if calls > 100:
            raise KeyboardInterrupt
        return step(positions, warm_up)

    with pytest.raises(KeyboardInterrupt):
        checkpoint = folder / 'cut.safetensors'
        fit(replace(cut, loss=failing), checkpoint, False, Logging(quiet=True))
    again = fresh()
    fit(again, folder / 'cut.safetensors', True, Logging(quiet=True))
    for name, value in whole.module.state_dict().items():
        torch.testing.assert_close(again.module.state_dict()[name], value)


def test_a_checkpoint_of_another_configuration_is_refused(folder: Path) -> None:
    source = TensorSource(load_dataset(folder / 'data', 'train'), torch.device('cpu'))
    spec = configuration(folder)
    fit(unimodal_stage(spec, 'word', source), folder / 'c', False, Logging(quiet=True))
    heavier = replace(robot().modalities[2], beta=2.0)
    model = replace(spec.model, modalities=(*robot().modalities[:2], heavier))
    for changed in (replace(spec, seed=1), replace(spec, model=model)):
        other = unimodal_stage(changed, 'word', source)
        with pytest.raises(ConfigError, match='belongs to another configuration'):
            fit(other, folder / 'c', True, Logging(quiet=True))


def test_same_seed_gives_the_same_bundle(folder: Path) -> None:
    spec = configuration(folder)
    short = {name: replace(stage, epochs=2) for name, stage in spec.unimodal.items()}
    spec = replace(spec, unimodal=short, top=replace(spec.top, epochs=2))
    hashes = set()
    for name in 'ab':
        shown = Run(spec, folder / name, quiet=True)
        hashes.add(train(shown, folder / f'bundle_{name}', 'test').hash)
    assert len(hashes) == 1


def test_stages_in_processes_equal_stages_in_turn(folder: Path) -> None:
    spec = configuration(folder)
    short = {name: replace(stage, epochs=2) for name, stage in spec.unimodal.items()}
    spec = replace(spec, unimodal=short, top=replace(spec.top, epochs=1))
    bundles = [
        train(Run(spec, folder / str(jobs), jobs=jobs, quiet=True), folder / f'b{jobs}', '')
        for jobs in (1, 2)
    ]
    for name, array in bundles[0].weights.items():
        np.testing.assert_allclose(bundles[1].weights[name], array, rtol=1e-3, atol=1e-4)


def test_a_joint_step_leaves_missing_modalities_alone(folder: Path) -> None:
    save_dataset(folder / 'data', 'train', recordings(0, missing=0.5))
    source = TensorSource(load_dataset(folder / 'data', 'train'), torch.device('cpu'))
    stage = joint_stage(configuration(folder), source)
    assert isinstance(stage.module, Nexus)
    loss, _ = stage.loss(torch.arange(16), 1.0)
    assert loss.isfinite()


def test_a_dataset_that_does_not_fit_is_explained(folder: Path) -> None:
    spec = configuration(folder)
    fewer = replace(spec.model, modalities=spec.model.modalities[:2])
    with pytest.raises(ConfigError, match='has modalities camera, arm, word'):
        train(run(folder, replace(spec, model=fewer)), folder / 'b', '')


def test_warm_up_rises_to_one() -> None:
    spec = StageSpec(epochs=10, warm_up_epochs=4)
    factors = [warm_up_factor(spec, epoch) for epoch in range(6)]
    assert factors == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_validation_positions_are_apart() -> None:
    training, validation = split_positions(100, 0.1, 0)
    assert len(validation) == 10
    assert sorted([*training, *validation]) == list(range(100))


def test_an_autoencoder_learns_to_look_through_noise(folder: Path) -> None:
    noisy = replace(UNIMODAL, epochs=15, batch_size=32, augmentation={'type': 'ink', 'noise': 0.6})
    data = load_dataset(folder / 'data', 'train')
    clean = torch.from_numpy(
        load_dataset(folder / 'data', 'test').unique('camera', np.arange(200))
    )
    torch.manual_seed(0)
    shown = (clean + 0.6 * torch.randn_like(clean)).clamp(0.0, 1.0)
    errors = []
    for stage in (noisy, replace(noisy, augmentation={})):
        spec = configuration(folder, unimodal={'camera': stage})
        trained = unimodal_stage(spec, 'camera', TensorSource(data, torch.device('cpu')))
        fit(trained, folder / f'{len(errors)}.safetensors', False, Logging(quiet=True))
        with torch.no_grad():
            made = trained.module.decode(trained.module.encode(shown).mean)
        errors.append(float((made - clean).square().mean()))
    assert errors[0] < 0.7 * errors[1]


def test_augmentation_moves_but_stays_in_range() -> None:
    torch.manual_seed(0)
    options = {'type': 'affine', 'shift': [1.0, 2.0], 'gain': 0.05, 'noise': 0.01}
    data = torch.zeros(16, 1, 9, 9)
    data[:, :, 4, 4] = 1.0
    moved, _ = build_augmentation(options, 'x')(data)
    assert moved.shape == data.shape
    assert moved.min() >= 0 and moved.max() <= 1
    assert (moved - data).abs().max() > 0.1
    weight = moved.clamp_min(0.1) - 0.1
    rows = (weight.sum((1, 3)) * torch.arange(9)).sum(1) / weight.sum((1, 2, 3))
    assert (rows - 4).abs().max() <= 1.2
    assert all((part == data).all() for part in build_augmentation({}, 'x')(data))
    with pytest.raises(ConfigError, match=r'x\.type: unknown augmentation "twist"'):
        build_augmentation({'type': 'twist'}, 'x')
