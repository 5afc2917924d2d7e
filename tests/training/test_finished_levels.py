"""What follows the top level: refinement through the frozen decoders, and calibration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mm_perception.bundle import load_bundle
from mm_perception.data.dataset import save_dataset
from mm_perception.engines.build import build_engine
from mm_perception.errors import ConfigError
from mm_perception.evaluation.calibration import measure_reconstruction_calibration
from mm_perception.evaluation.generation import encode_all, fuse_all, presence
from mm_perception.model.build import build_model
from mm_perception.model.nexus import Nexus
from mm_perception.spec import StageSpec, TrainingSpec
from mm_perception.training.calibration import held_out
from mm_perception.training.loop import Logging, fit, use_bfloat16
from mm_perception.training.run import Run, train
from mm_perception.training.stages import (
    TensorSource,
    cache_posteriors,
    refinement_stage,
    unimodal_stage,
)
from tests.helpers.toy_training import configuration, recordings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_dataset(tmp_path / 'data', 'train', recordings(0))
    save_dataset(tmp_path / 'data', 'test', recordings(1))
    save_dataset(tmp_path / 'data', 'validation', recordings(2))
    return tmp_path


def refined(folder: Path) -> TrainingSpec:
    """A run that refines the camera alone."""
    spec = configuration(folder)
    camera, *others = spec.model.modalities
    camera = replace(camera, data_weight=1.0)
    return replace(spec, model=replace(spec.model, modalities=(camera, *others)))


def test_refinement_changes_the_top_decoder_alone_and_helps_the_data(folder: Path) -> None:
    spec = replace(refined(folder), refinement=StageSpec(epochs=6, batch_size=64))
    torch.manual_seed(0)
    model = build_model(spec.model)
    assert isinstance(model, Nexus)
    source = TensorSource(recordings(0), torch.device('cpu'))
    for name in ('camera', 'arm'):
        alone = unimodal_stage(spec, name, source)
        fit(alone, folder / f'{name}.safetensors', False, Logging(quiet=True))
        model.unimodal[name] = alone.module
    posteriors = cache_posteriors(model.unimodal, source)
    for name, posterior in posteriors.items():
        model.top.scale[name].fit(posterior)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stage = refinement_stage(spec, model, posteriors, source)

    def measured() -> float:
        torch.manual_seed(1)
        return stage.loss(torch.arange(200), 1.0)[0].item()

    first = measured()
    fit(stage, folder / 'refinement.safetensors', False, Logging(quiet=True))
    assert measured() < first - 0.5
    changed = {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    assert changed and all(name.startswith('top.decoders.camera.') for name in changed)


@pytest.mark.parametrize('device', ['cpu', pytest.param('cuda', marks=pytest.mark.gpu)])
def test_refined_and_calibrated_training_publishes_a_std_that_holds(
    folder: Path, device: str
) -> None:
    spec = replace(
        refined(folder),
        refinement=StageSpec(epochs=4, batch_size=64),
        calibration=StageSpec(epochs=60, batch_size=128, learning_rate=2e-3),
    )
    spec = replace(spec, model=replace(spec.model, calibrated=True))
    train(Run(spec, folder / 'work', device, quiet=True), folder / 'bundle', 'test')
    bundle = load_bundle(folder / 'bundle')
    assert {'refinement', 'calibration'} <= set(bundle.training['seconds'])
    assert min(bundle.metrics['test']['by_observed']['word'].values()) > 0.95
    engine, test = build_engine(bundle, 'cpu'), recordings(1)
    codes, names = encode_all(engine, test), test.names
    complete, width = fuse_all(engine, codes, presence(names, names))
    truth = complete + width * np.random.default_rng(0).standard_normal(complete.shape)
    for name in names:
        mean, std = fuse_all(engine, codes, presence(names, [name]))
        inside = np.abs(truth - mean) < 1.645 * std
        assert inside.mean() == pytest.approx(0.9, abs=0.07), name
        assert std.mean() > width.mean(), name
    too_small = {
        estimator: {
            row.target: row.value
            for row in measure_reconstruction_calibration(engine, test, [('word',)], estimator)
            if row.metric == 'error_per_std'
        }
        for estimator in ('mean', 'ancestral')
    }
    print(too_small)
    assert too_small['ancestral']['camera'] < too_small['mean']['camera']


def test_calibration_takes_the_validation_split_or_rows_kept_from_training(folder: Path) -> None:
    spec = configuration(folder, validation_fraction=0.2)
    assert len(held_out(spec, recordings(0))) == len(recordings(2))
    (folder / 'other').mkdir()
    save_dataset(folder / 'other', 'train', recordings(0))
    alone = replace(spec, dataset=str(folder / 'other'))
    assert len(held_out(alone, recordings(0))) == len(recordings(0)) // 5
    with pytest.raises(ConfigError, match=r'no split "validation" .* keeps no rows'):
        held_out(replace(alone, validation_fraction=0.0), recordings(0))


def test_precision_is_chosen_or_refused_in_one_line() -> None:
    cpu = torch.device('cpu')
    assert use_bfloat16('bfloat16', cpu) and not use_bfloat16('float32', cpu)
    assert use_bfloat16('auto', cpu) in (True, False)
    with pytest.raises(ConfigError, match='unknown "half"; known: auto, float32, bfloat16'):
        use_bfloat16('half', cpu)
